"""Views: arrays that share memory in the library share their changes here, too.

A traced array is changed in place by giving it a new value and a new node. Where the library returns a view, as for
``x[1:]`` or ``permute_dims``, the view and its parent are linked: a change of one is carried over to the other.
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any

from pullback._autodiff.traced import Traced, innermost
from pullback._core.typing import Namespace

_PLACES = frozenset({int, slice, type(None), type(Ellipsis)})


class Family:
    """The parent of an array, if it is a view, and its own views."""

    __slots__ = ("children", "parent", "read", "write")

    def __init__(self, parent: Any = None, read: Any = None, write: Any = None, /) -> None:
        self.parent: Traced | None = parent
        self.read: Callable[[Traced], Traced] = read
        self.write: Callable[[Traced, Traced], Traced] = write
        self.children: list[weakref.ref[Traced]] = []


def changes(raw: Namespace, /) -> tuple[bool, bool, bool]:
    """Whether a library's arrays take ``x[key] = value``, and whether a slice and an entry share their memory."""
    x = raw.zeros((2,))
    part, entry = x[:1], x[0]
    try:
        x[0] = 1.0
    except (TypeError, ValueError, NotImplementedError):
        return False, False, False
    views = not hasattr(x, "chunks")
    return True, views and bool(part[0] == 1.0), views and bool(entry == 1.0)


# Functions whose results are views in every library that has views.
_ALWAYS = frozenset({"T", "expand_dims", "matrix_transpose", "moveaxis", "permute_dims", "squeeze"})
# What makes a view, if the library makes one, of a matrix of complex zeros.
_TRIALS: dict[str, Callable[[Namespace, Any], Any]] = {
    "broadcast_to": lambda raw, x: raw.broadcast_to(x, (3, 2, 2)),
    "flip": lambda raw, x: raw.flip(x),
    "imag": lambda raw, x: raw.imag(x),
    "linalg.diagonal": lambda raw, x: raw.linalg.diagonal(x),
    "real": lambda raw, x: raw.real(x),
}


def is_view(ns: Any, name: str, x: Traced, out: Traced, /) -> bool:
    """Whether the result of a function of `rules.manipulation.VIEWS` shares the memory of its array."""
    if name in _ALWAYS:
        return True
    if name == "reshape":
        return _reshapes_in_place(ns.raw, innermost(x), innermost(out))
    return _makes_view(ns.raw, name)


@functools.cache
def _makes_view(raw: Namespace, name: str, /) -> bool:
    """Whether a function returns a view in a library: whether a change of its array shows in it."""
    x = raw.zeros((2, 2), dtype=raw.complex64)
    out = _TRIALS[name](raw, x)
    x[...] = 1 + 1j
    return bool(raw.any(out != 0))


def _reshapes_in_place(raw: Namespace, x: Any, out: Any, /) -> bool:
    """Whether `out`, with the entries of `x` in another shape, shares its memory, which depends on the strides."""
    if hasattr(x, "base"):  # NumPy's and CuPy's arrays name the one whose memory they use
        return out.base is x or (x.base is not None and out.base is x.base)
    try:
        # PyTorch's `view` never copies. It does not take the standard's `copy`.
        x.view(out.shape) if hasattr(x, "view") else raw.reshape(x, out.shape, copy=False)
    except (AttributeError, RuntimeError, ValueError):  # the second is of PyTorch, the first of array-api-strict
        return False
    return True


def is_basic(key: Any, /) -> bool:
    """Whether an index consists of integers, slices, None and an ellipsis, so that it makes a view."""
    return all(type(k) in _PLACES for k in (key if isinstance(key, tuple) else (key,)))


def link(
    parent: Traced, view: Traced, read: Callable[[Traced], Traced], write: Callable[[Traced, Traced], Traced], /
) -> Traced:
    """Link a new view: ``read(parent)`` makes it again, and ``write(parent, view)`` returns its changed parent."""
    of_view, of_parent = view._value, parent._value
    if type(of_view) is Traced:
        of_view, of_parent = innermost(of_view), innermost(of_parent)
    if view is parent or type(of_view) is not type(of_parent):  # an entry of NumPy's is no array
        return view
    view._family = Family(parent, read, write)
    family = getattr(parent, "_family", None)
    if family is None:
        family = parent._family = Family()
    children = family.children
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
