"""A sample of the combinations of parameters, for libraries on which a call takes milliseconds."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import pytest

Value = tuple[Any, ...]
Function = tuple[Any, str]  # its file and its name

# A table of parameters that several functions of a file have is split among at most this many of them.
SHARE = 3


def covering(items: Sequence[pytest.Item], kept: Collection[str] = ()) -> list[pytest.Item]:
    """Choose tests such that each test function gets each value of its parameters, or its share of a shared table.

    Functions of a file that are parametrized by the same table, such as that of all losses, share it: each function
    gets every third entry, and each entry occurs in every third function. So do functions that run in the same brief
    modes and on the same devices after the first. The tests whose ids are `kept` are chosen.

    Among tests that add as many values, the one with the most new pairs of values in its file comes first. So the
    functions of a file share the pairs between them: a loss that is one's only in one mode is another's in the next.
    """
    functions: dict[Function, list[pytest.Item]] = defaultdict(list)
    for item in items:
        functions[item.path, item.nodeid.partition("[")[0]].append(item)
    values = {function: [_values(item) for item in group] for function, group in functions.items()}
    left = _left_to_others({function: _tables(group) for function, group in functions.items()})
    seen: dict[Any, set[Any]] = defaultdict(set)
    chosen: set[str] = set()
    for function, group in functions.items():
        first = [i for i, item in enumerate(group) if item.nodeid in kept]
        found = _cover(values[function], first, left[function], seen[function[0]])
        chosen |= {group[i].nodeid for i in found}
    return [item for item in items if item.nodeid in chosen]


def _left_to_others(tables: Mapping[Function, Collection[tuple[Value, ...]]]) -> dict[Function, set[Value]]:
    """Return the values that each function leaves to others of its file that have the same table."""
    sharing: dict[tuple[Any, ...], list[Function]] = defaultdict(list)
    for function, found in tables.items():
        for table in found:
            sharing[function[0], table].append(function)
    left: dict[Function, set[Value]] = defaultdict(set)
    for (_, table), functions in sharing.items():
        share = min(SHARE, len(functions))
        for start, function in enumerate(functions):
            left[function] |= {value for i, value in enumerate(table) if (i - start) % share}
    return left


def _cover(
    cases: Sequence[frozenset[Value]], first: Sequence[int], left: set[Value], seen: set[tuple[Value, ...]]
) -> list[int]:
    """Choose cases, after the `first`, until each value but those `left` out was chosen; add their pairs to `seen`.

    A case that has nothing left out comes before others; one case is chosen at least.
    """
    missing = set[Value]().union(*cases) - left
    pairs = [frozenset(combinations(sorted(case, key=str), 2)) for case in cases]
    chosen: list[int] = []

    def choose(i: int) -> None:
        nonlocal missing
        chosen.append(i)
        missing -= cases[i]
        seen.update(pairs[i])

    # A case without parameters has no value to add.
    for i in dict.fromkeys([*first, *(i for i, case in enumerate(cases) if not case)]):
        choose(i)
    while missing or not chosen:
        choose(
            max(
                range(len(cases)),
                key=lambda i: (len(cases[i] & missing), -len(cases[i] & left), len(pairs[i] - seen)),
            )
        )
    return chosen


def _tables(group: Sequence[pytest.Item]) -> list[tuple[Value, ...]]:
    """Return in order the values of each `parametrize` of a test function, and those of `backend` that are brief."""
    tables: dict[str, dict[Value, None]] = defaultdict(dict)
    for item in group:
        shared = set(_groups(item).values())
        if getattr(_params(item).get("backend"), "brief", False):
            shared.add("backend")
        for value in _values(item):
            if value[0] in shared:
                tables[value[0]][value] = None
    return [tuple(table) for table in tables.values()]


def _groups(item: pytest.Item) -> dict[str, str]:
    """Return for each parameter of a `parametrize` the names of all that it gives, joined."""
    groups: dict[str, str] = {}
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0]
        names = names.replace(" ", "").split(",") if isinstance(names, str) else names
        groups |= dict.fromkeys(names, ",".join(names))
    return groups


def _values(item: pytest.Item) -> frozenset[Value]:
    """Return the parameters of a test with their values; those of one `parametrize` are one parameter."""
    groups = _groups(item)
    values: dict[str, list[Any]] = defaultdict(list)
    for name, value in _params(item).items():
        # All tests of a function share the objects; only dtypes have a new name in each mode.
        values[groups.get(name, name)].append(value if isinstance(value, str) else id(value))
    return frozenset((name, *parts) for name, parts in values.items())


def _params(item: pytest.Item) -> dict[str, Any]:
    """Return the parameters of a test by their names."""
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params
