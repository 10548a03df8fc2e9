"""Nested containers: their leaves, their paths, and what is made of them again."""

import dataclasses
from collections import Counter, OrderedDict, defaultdict
from typing import Any, NamedTuple

import pytest

from pullback._core import trees


class Pair(NamedTuple):
    one: Any
    other: Any


@dataclasses.dataclass(frozen=True)
class Record:
    one: Any
    length: int = dataclasses.field(init=False, default=0)


CASES: dict[str, tuple[Any, list[Any], list[str]]] = {
    "leaf": (1, [1], []),
    "none": (None, [], []),
    "tuple": ((1, None, (2, 3)), [1, 2, 3], ["0", "2.0", "2.1"]),
    "names": (Pair(1, [2]), [1, 2], ["one", "other.0"]),
    "dict": ({"b": 1, "a": {3: 2}}, [1, 2], ["b", "a.3"]),
    "ordered": (OrderedDict(b=1, a=2), [1, 2], ["b", "a"]),
    "counter": (Counter("aab"), [2, 1], ["a", "b"]),
    "default": (defaultdict(list, {"a": [1]}), [1], ["a.0"]),
    "dataclass": (Record({"w": 1}), [1], ["one.w"]),
    "class": ([Record], [Record], ["0"]),
}


@pytest.mark.parametrize("case", CASES)
def test_trees(case: str) -> None:
    tree, leaves, paths = CASES[case]
    assert trees.leaves(tree) == leaves
    assert trees.paths(tree) == paths
    same = trees.fill(tree, leaves)
    assert (same, type(same)) == (tree, type(tree))
    assert trees.leaves(trees.rebuild(tree, str)) == list(map(str, leaves))


def test_subclass_of_dict_keeps_its_default() -> None:
    found = trees.rebuild(defaultdict(list, a=1), float)
    assert found["missing"] == []
