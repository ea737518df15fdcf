"""The search for the first bad layer of a stack, for every place that it can have."""

import math
from collections.abc import Callable
from random import Random

import pytest

from shopfloor.domain.halving import Halving

MOST = 64


def search(height: int, green: Callable[[int, int], bool]) -> tuple[Halving, list[int]]:
    """Run it; ``green(height, run)`` is how the run-th test of a height goes. Also the heights that were tested."""
    halving, tested = Halving(height), list[int]()
    while (asked := halving.next()) is not None:
        tested.append(asked.height)
        assert asked.again == (tested.count(asked.height) > 1), "nothing is tested twice but a suspect"
        halving.told(green=green(asked.height, tested.count(asked.height)))
        assert len(tested) < MOST * MOST
    return halving, tested


def below(bad: int) -> Callable[[int, int], bool]:
    """Green wherever the bad layer is left out."""
    return lambda height, _run: height < bad


@pytest.mark.parametrize("height", range(1, MOST + 1))
def test_a_good_stack_is_tested_once(height: int) -> None:
    halving, tested = search(height, lambda _height, _run: True)
    assert (halving.good, halving.blamed, tested) == (height, 0, [height])


@pytest.mark.parametrize("height", range(1, MOST + 1))
def test_the_first_bad_layer_is_found_wherever_it_is(height: int) -> None:
    for bad in range(1, height + 1):
        halving, tested = search(height, below(bad))
        assert (halving.good, halving.blamed) == (bad - 1, bad)
        assert len(tested) <= 1 + math.ceil(math.log2(height)) + 1, "the whole, its halves, and the suspect again"


def test_of_twenty_with_one_bad_the_extra_tests_are_about_log2() -> None:
    extra = [len(search(20, below(bad))[1]) - 1 for bad in range(1, 21)]
    assert max(extra) <= math.ceil(math.log2(20)) + 1
    assert sum(extra) / len(extra) <= math.log2(20) + 1.2


@pytest.mark.parametrize("height", [1, 2, 7, 20])
def test_what_is_red_for_nothing_at_first_everywhere_blames_nobody(height: int) -> None:
    halving, _ = search(height, lambda _height, run: run > 1)
    assert (halving.good, halving.blamed) == (height, 0)


@pytest.mark.parametrize("seed", range(200))
def test_only_the_first_bad_layer_is_ever_blamed(seed: int) -> None:
    chance = Random(seed)
    height = chance.randrange(1, 40)
    bad = chance.choice([height + 1, chance.randrange(1, height + 1)])
    unlucky = {n for n in range(1, height + 1) if chance.random() < 0.3}
    halving, tested = search(height, lambda tall, run: tall < bad and not (run == 1 and tall in unlucky))
    assert (halving.good, halving.blamed) == (min(height, bad - 1), 0 if bad > height else bad)
    assert len(tested) <= 2 * height + 1
