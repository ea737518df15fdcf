"""The page of results keeps its prose and takes one campaign's figures at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

import campaigns
from benchmarks.__main__ import modules
from benchmarks.figures import Figure
from campaigns import page
from campaigns.__main__ import main
from campaigns.outcome import Options, Outcome

TEXT = "# Page\n\n<!-- chaos -->\nold\n<!-- /chaos -->\n\nprose\n\n<!-- scale -->\n<!-- /scale -->\nend\n"


def written(folder: Path, name: str, outcome: Outcome) -> str:
    file = folder / "page.md"
    file.write_text(TEXT)
    page.write(name, outcome, Options(seed=7, size=0.5), took_s=12.4, file=file)
    return file.read_text()


def test_one_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    figures = [Figure(name="lost", value=0, bar="0", ok=True), Figure(name="a | b", value=3, ok=False)]
    text = written(tmp_path, "chaos", Outcome(figures=figures, untested=["Two machines."]))
    assert "old" not in text
    assert "Seed 7, size 0.5, 12 s" in text
    assert "| lost | 0 | 0 |  |  | ok |" in text
    assert "| a \\| b | 3 |  |  |  | MISSED |" in text
    assert "- Two machines.\n<!-- /chaos -->" in text
    assert text.startswith("# Page\n\n<!-- chaos -->\n")
    assert text.endswith("prose\n\n<!-- scale -->\n<!-- /scale -->\nend\n")


def test_the_section_names_what_was_tested_and_where(tmp_path: Path) -> None:
    text = written(tmp_path, "scale", Outcome(figures=[]))
    assert f"commit `{page.commit()}`" in text
    assert page.machine() in text


def test_a_campaign_without_a_section_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"page\.md has no section 'flood'"):
        written(tmp_path, "flood", Outcome(figures=[]))


def test_every_campaign_has_its_section_and_every_section_its_campaign() -> None:
    text = page.PAGE.read_text()
    marks = {part.split(" -->")[0] for part in text.split("<!-- ")[1:] if not part.startswith("/")}
    assert marks == set(modules(campaigns))


def test_an_unknown_campaign_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["flood"])
    assert ended.value.code == 2
    assert "there is no campaign 'flood'" in capsys.readouterr().err
