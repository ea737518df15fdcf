"""The graph of orders seen as a whole: cycles, waves, the critical path, predicted collisions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from shopfloor.domain.errors import UsageError
from shopfloor.domain.order import Order
from shopfloor.domain.paths import WHOLE, folders_above, overlap, plain_path

__all__ = ["Edges", "check_acyclic", "collisions", "critical_path", "depth_below", "overlap", "reaches", "waves"]

Edges = Mapping[str, Sequence[str]]
"""node -> the nodes it waits for; a node that is not a key has ended or is somebody else's"""


def check_acyclic(edges: Edges, label: Mapping[str, str]) -> None:
    """Raise UsageError that names the cycle, e.g. ``'a' waits for 'b' waits for 'a'``."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as problem:
        nodes: list[str] = list(problem.args[1])
        # graphlib lists a cycle with every node before the ones that wait for it; people read "waits for".
        path = " waits for ".join(repr(label.get(node, node)) for node in reversed(nodes))
        raise UsageError(
            f"the orders wait for each other in a circle: {path}",
            hint="take one of these out of a depends_on: line",
        ) from None


def reaches(starts: Iterable[str], goal: str, needs: Callable[[str], Iterable[str]]) -> bool:
    """True when whoever waits for ``starts`` waits for ``goal``, directly or through others."""
    left, seen = list(starts), set()
    while left:
        node = left.pop()
        if node == goal:
            return True
        if node not in seen:
            seen.add(node)
            left.extend(needs(node))
    return False


def waves(edges: Edges) -> list[list[str]]:
    """Orders grouped by when they could start at the earliest, each wave in the given order."""
    position = {node: i for i, node in enumerate(edges)}
    sorter = TopologicalSorter(_inside(edges))
    sorter.prepare()
    found = []
    while sorter.is_active():
        wave = sorted(sorter.get_ready(), key=position.__getitem__)
        found.append(wave)
        sorter.done(*wave)
    return found


def depth_below(edges: Edges) -> dict[str, int]:
    """For each node the length of the longest chain that waits behind it (0: nobody waits)."""
    inside = _inside(edges)
    below = dict.fromkeys(inside, 0)
    for node in reversed(list(TopologicalSorter(inside).static_order())):
        for need in inside[node]:
            below[need] = max(below[need], below[node] + 1)
    return below


def critical_path(edges: Edges) -> list[str]:
    """The longest chain, first to last; ties go to the order given first."""
    below = depth_below(edges)
    dependants: dict[str, list[str]] = {node: [] for node in edges}
    for node, needs in _inside(edges).items():
        for need in needs:
            dependants[need].append(node)
    path: list[str] = []
    # A node with the longest chain behind it waits for nobody: else the one it waits for had a longer one.
    choice = list(edges)
    while choice:
        path.append(max(choice, key=below.__getitem__))
        choice = dependants[path[-1]]
    return path


def collisions(orders: Sequence[Order], *, most: int = 1000) -> list[tuple[str, str, list[str]]]:
    """Pairs of order names that declare a common path, with the paths: they will not run side by side.

    Pairs come in the order of ``orders``, at most ``most`` of them: n orders on one hot file make n * n / 2.
    """
    holders: dict[str, list[int]] = {}
    below: dict[str, dict[str, None]] = {}
    declared = [list(dict.fromkeys(filter(None, map(plain_path, order.files)))) for order in orders]
    for index, paths in enumerate(declared):
        for path in paths:
            holders.setdefault(path, []).append(index)
            for folder in folders_above(path):
                below.setdefault(folder, {})[path] = None
    found: list[tuple[str, str, list[str]]] = []
    for index, paths in enumerate(declared):
        met: dict[int, set[str]] = {}
        for path in paths:
            for place in (path, *folders_above(path), *below.get(path, ())):
                for other in _after(holders.get(place, ()), index, most - len(found)):
                    met.setdefault(other, set()).add(max(path, place, key=_depth))
        found += [(orders[index].name, orders[other].name, sorted(met[other])) for other in sorted(met)]
        if len(found) >= most:
            break
    return found[:most]


def _depth(path: str) -> int:
    return 0 if path == WHOLE else 1 + path.count("/")


def _after(indexes: Sequence[int], index: int, most: int) -> Sequence[int]:
    """The next ``most`` of these ascending indexes behind ``index``."""
    start = bisect_right(indexes, index)
    return indexes[start : start + most]


def _inside(edges: Edges) -> dict[str, list[str]]:
    return {node: [need for need in needs if need in edges] for node, needs in edges.items()}
