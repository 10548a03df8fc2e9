"""Nested containers of arrays: tuples, lists, dicts, NamedTuples, dataclasses and None."""

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any


def leaves(tree: Any, /) -> list[Any]:
    """Return the leaves of a tree in order; None has none."""
    held = entries(tree)
    return [tree] if held is None else [leaf for _, x in held for leaf in leaves(x)]


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
        # A copy has what a subclass holds besides its items, as the default of a defaultdict.
        new: Any = {} if kind is dict else copy.copy(tree)
        for key, x in tree.items():
            new[key] = rebuild(x, function)
        return new
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


def entries(tree: Any, /) -> list[tuple[str, Any]] | None:
    """Return what a container holds, with field names, keys or indices; None for a leaf."""
    if type(tree) in _LEAVES:
        return None
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [(str(key), x) for key, x in tree.items()]
    if isinstance(tree, tuple | list):
        return [(str(key), x) for key, x in zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True)]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.init]
    return None


def paths(tree: Any, /) -> list[str]:
    """Return the path of each leaf in order: field names, keys and indices, joined by dots."""
    found = []
    for name, x in entries(tree) or []:
        below = [name] if entries(x) is None else [f"{name}.{path}" for path in paths(x)]
        found.extend(below)
    return found
