"""Views: arrays that share memory in the library share their changes here, too.

A traced array is changed in place by giving it a new value and a new node. Where the library returns a view, as for
``x[1:]`` or ``permute_dims``, the view and its parent are linked: a change of one is carried over to the other.
"""

import weakref
from collections.abc import Callable
from typing import Any

from pullback._autodiff.traced import Traced, innermost
from pullback._core.typing import Namespace

_PLACES = frozenset({int, slice, type(None), type(Ellipsis)})


class Family:
    """The parent of an array, if it is a view, and its own views."""

    __slots__ = ("children", "parent", "read", "write")

    def __init__(self) -> None:
        self.parent: Traced | None = None
        self.read: Callable[[Traced], Traced] | None = None
        self.write: Callable[[Traced, Traced], Traced] | None = None
        self.children: list[weakref.ref[Traced]] = []


def _family(x: Traced, /) -> Family:
    """Return the family of an array, which gets one when it is first linked."""
    found = getattr(x, "_family", None)
    if found is None:
        found = x._family = Family()
    return found


def changes(raw: Namespace, /) -> tuple[bool, bool]:
    """Whether a library's arrays take ``x[key] = value``, and whether a slice shares the memory of its array."""
    x = raw.zeros((2,))
    part = x[:1]
    try:
        part[0] = 1.0
    except (TypeError, ValueError, NotImplementedError):
        return False, False
    return True, not hasattr(x, "chunks") and bool(x[0] == 1.0)


def is_basic(key: Any, /) -> bool:
    """Whether an index consists of integers, slices, None and an ellipsis, so that it makes a view."""
    return all(type(k) in _PLACES for k in (key if isinstance(key, tuple) else (key,)))


def link(
    parent: Traced, view: Traced, read: Callable[[Traced], Traced], write: Callable[[Traced, Traced], Traced], /
) -> Traced:
    """Link a view: ``read(parent)`` makes it again, and ``write(parent, view)`` returns its changed parent."""
    if view is parent or type(innermost(view)) is not type(innermost(parent)):  # an entry of NumPy's is no array
        return view
    family = _family(view)
    family.parent, family.read, family.write = parent, read, write
    children = _family(parent).children
    if len(children) & (len(children) + 1) == 0:  # now and then, forget those that are gone
        children[:] = [child for child in children if child() is not None]
    children.append(weakref.ref(view))
    return view


def changed(x: Traced, /) -> None:
    """Carry a change of an array over to its parents and their views."""
    source = None
    while True:
        _refresh(x, source)
        family = getattr(x, "_family", None)
        if family is None or family.parent is None:
            return
        parent = family.parent
        parent._become(family.write(parent, x))
        x, source = parent, x


def _refresh(x: Traced, source: Traced | None, /) -> None:
    """Read the views of an array again, except for the one that the change comes from."""
    family = getattr(x, "_family", None)
    for child in () if family is None else [ref() for ref in family.children]:
        if child is not None and child is not source:
            child._become(child._family.read(x))
            _refresh(child, None)
