"""Objects that other programs made up: they are edits, and never mistaken for what we published."""

from shopfloor.domain.records import echoes, seal, sealed


def test_an_object_without_our_part_has_a_seal_of_its_own_and_is_not_ours() -> None:
    line = {"id": "wo-a", "metadata": {"team": "x"}}
    assert len(seal(line)) == 16
    assert seal(line) != seal({"id": "wo-a"})
    assert not sealed(line)


def test_metadata_of_another_shape_is_an_edit() -> None:
    published = {"id": "wo-a", "metadata": {"shopfloor": {}}}
    assert not echoes({"id": "wo-a", "metadata": "text"}, published)
    assert echoes({"id": "wo-a", "metadata": "text"}, {"id": "wo-a", "metadata": "text"})
