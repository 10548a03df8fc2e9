"""Indexing: ``x[key]``, ``x[key] = v``, `take` and `take_along_axis`."""

from typing import Any

from pullback._autodiff.rules.registry import rule
from pullback._autodiff.shapes import Like, like, zeros
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace


@rule
def getitem(xp: Namespace, x: Array, key: Any, /) -> Any:
    del xp
    return x[key], (_scatter, like(x), key)


def _scatter(xp: Namespace, g: Array, spec: Like, key: Any, /) -> Array:
    """Return zeros with `g` at `key`."""
    return put(xp, zeros(xp, spec._replace(dtype=g.dtype), g), key, g)


def put(xp: Namespace, x: Array, key: Any, value: Array, /) -> Array:
    """Return `x`, which nothing else holds, with `value` at `key`."""
    at = getattr(x, "at", None)
    if at is not None:  # arrays that do not change in place, as JAX's
        return at[key].set(value)
    x[key] = value
    return x


@rule
def setitem(xp: Namespace, x: Array, value: Any, key: Any, /) -> Any:
    out = put(xp, xp.asarray(x, copy=True), key, value)
    return out, (_without, key), (_gather, key)


def _without(xp: Namespace, g: Array, key: Any, /) -> Array:
    """Return `g` with zeros at `key`."""
    out = xp.asarray(g, copy=True)
    return put(xp, out, key, xp.zeros_like(out[key]))


def _gather(xp: Namespace, g: Array, key: Any, /) -> Array:
    del xp
    return g[key]
