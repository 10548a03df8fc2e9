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
    if tree is None:
        return None
    if isinstance(tree, tuple | list):
        items = [rebuild(x, function) for x in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return type(tree)((key, rebuild(x, function)) for key, x in tree.items())
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {f.name: rebuild(getattr(tree, f.name), function) for f in dataclasses.fields(tree) if f.init}
        return dataclasses.replace(tree, **fields)
    return function(tree)


def fill(tree: Any, values: Iterable[Any], /) -> Any:
    """Return a tree of the same structure whose leaves are `values`, in order."""
    remaining = iter(values)
    return rebuild(tree, lambda _: next(remaining))
