"""A sample of the combinations of parameters, for libraries on which a call takes milliseconds."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

Value = tuple[Any, ...]


def covering(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Choose tests such that each test function gets each value of each of its parameters.

    Among tests that add as many values, the one with the most new pairs of values in its file comes first. So the
    functions of a file share the pairs between them: a loss that is one's only in one mode is another's in the next.
    """
    functions: dict[tuple[Any, ...], list[pytest.Item]] = defaultdict(list)
    for item in items:
        functions[item.path, item.nodeid.partition("[")[0]].append(item)
    seen: dict[Any, set[Any]] = defaultdict(set)
    chosen: set[str] = set()
    for (path, _), group in functions.items():
        chosen |= {group[i].nodeid for i in _cover([_values(item) for item in group], seen[path])}
    return [item for item in items if item.nodeid in chosen]


def _cover(cases: Sequence[frozenset[Value]], seen: set[tuple[Value, ...]]) -> list[int]:
    """Choose cases until each value was chosen, and add their pairs to those seen."""
    missing = set[Value]().union(*cases)
    pairs = [frozenset(combinations(sorted(case, key=str), 2)) for case in cases]
    # A case without parameters has no value to add.
    chosen = [i for i, case in enumerate(cases) if not case]
    while missing:
        best = max(range(len(cases)), key=lambda i: (len(cases[i] & missing), len(pairs[i] - seen)))
        chosen.append(best)
        missing -= cases[best]
        seen |= pairs[best]
    return chosen


def _values(item: pytest.Item) -> frozenset[Value]:
    """Return the parameters of a test with their values; those of one `parametrize` are one parameter."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return frozenset()
    names = {name: name for name in callspec.params}
    for mark in item.iter_markers("parametrize"):
        together = mark.args[0]
        together = together.replace(" ", "").split(",") if isinstance(together, str) else together
        names |= dict.fromkeys(together, ",".join(together))
    values: dict[str, list[Any]] = defaultdict(list)
    for name, value in callspec.params.items():
        # All tests of a function share the objects; only dtypes are named anew for each mode.
        values[names[name]].append(value if isinstance(value, str) else id(value))
    return frozenset((name, *parts) for name, parts in values.items())
