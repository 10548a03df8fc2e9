"""Nested containers of arrays: tuples, lists, dicts, NamedTuples, dataclasses and None."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any


def leaves(tree: Any, /) -> list[Any]:
    """Return the leaves of a tree in order; None has none."""
    found: list[Any] = []
    rebuild(tree, found.append)
    return found


def rebuild(tree: Any, function: Callable[[Any], Any], /) -> Any:
    """Return a tree of the same structure, with `function` applied to each leaf."""
    kind = type(tree)
    if kind in _LEAVES:
        return function(tree)
    if tree is None:
        return None
    if isinstance(tree, tuple | list):
        items = [rebuild(x, function) for x in tree]
        return kind(*items) if hasattr(tree, "_fields") else kind(items)
    if isinstance(tree, dict):
        return kind((key, rebuild(x, function)) for key, x in tree.items())
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {f.name: rebuild(getattr(tree, f.name), function) for f in dataclasses.fields(tree) if f.init}
        return dataclasses.replace(tree, **fields)
    _LEAVES.add(kind)
    return function(tree)


# Types that are no containers: a check takes as long as a small product.
_LEAVES: set[type] = set()


def fill(tree: Any, values: Iterable[Any], /) -> Any:
    """Return a tree of the same structure whose leaves are `values`, in order."""
    remaining = iter(values)
    return rebuild(tree, lambda _: next(remaining))
