"""Shapes and dtypes of arrays that pulls do not save, and conversion of cotangents to them."""

import math
from typing import Any, NamedTuple

from array_api_compat import device

from pullback._autodiff.rules.accurate import sum_axes
from pullback._autodiff.typing import Array
from pullback._core.dtypes import real_like
from pullback._core.reductions import sum_all, sum_rows
from pullback._core.typing import DType, Namespace


class Like(NamedTuple):
    """Shape and dtype of an array, and the array itself where only it knows its shape."""

    shape: tuple[Any, ...]
    dtype: DType
    array: Any


# The constructor of a NamedTuple takes three times as long, and an operation makes two of these.
_new = tuple.__new__


def like(x: Array, /) -> Like:
    """Describe an array without keeping its memory; one whose sizes may be unknown is kept."""
    shape = tuple(x.shape)
    return _new(Like, (shape, x.dtype, x if None in shape or hasattr(x, "chunks") else None))


def like_in_memory(x: Array, /) -> Like:
    """Describe an array whose sizes are known."""
    return _new(Like, (x.shape, x.dtype, None))


def full(xp: Namespace, g: Array, spec: Like, /) -> Array:
    """Broadcast a cotangent to the shape of its primal."""
    if tuple(g.shape) == spec.shape:
        return g
    if spec.array is not None and not all(type(size) is int for size in spec.shape):
        return g + xp.zeros_like(spec.array, dtype=g.dtype)
    return xp.broadcast_to(g, spec.shape)


def zeros(xp: Namespace, spec: Like, g: Array, /) -> Array:
    """Return zeros of a shape and dtype, on the device of `g`."""
    if spec.array is not None:
        return xp.zeros_like(spec.array, dtype=spec.dtype)
    return xp.zeros(spec.shape, dtype=spec.dtype, device=device(g))


def fit(xp: Namespace, g: Array, spec: Like, /) -> Array:
    """Undo a broadcast and a promotion: sum `g` to the shape of its primal, and cast it to the primal's dtype."""
    if tuple(g.shape) != spec.shape:
        g = unbroadcast(xp, g, spec)
    return g if g.dtype == spec.dtype else cast(xp, g, spec.dtype)


def fit_small(xp: Namespace, g: Array, out: Like, spec: Like, /) -> Array:
    """Undo a broadcast for a cotangent that broadcasts to the shape of the result, `out`, without broadcasting it."""
    ndim = len(out.shape)
    sizes = (1,) * (ndim - g.ndim) + tuple(g.shape)
    primal = (1,) * (ndim - len(spec.shape)) + spec.shape
    equal = math.prod(n for n, have, size in zip(out.shape, sizes, primal, strict=True) if have == size == 1)
    g = fit(xp, g, spec)
    return g if equal == 1 else g * equal


def cast(xp: Namespace, g: Array, dtype: DType, /) -> Array:
    """Cast a cotangent to the dtype of its primal: to the real part where that is real."""
    if g.dtype == dtype:
        return g
    return xp.astype(real_like(xp, g, dtype), dtype, copy=False)


def unbroadcast(xp: Namespace, g: Array, spec: Like, /) -> Array:
    """Sum over the axes along which an array of the shape of `spec` was broadcast."""
    shape = spec.shape
    lead = g.ndim - len(shape)
    if lead < 0:  # a cotangent of fewer axes than its primal broadcasts to it
        return g
    if lead and len(shape) == 1 and shape[0] == g.shape[-1] != 1 and spec.array is None:
        return sum_rows(xp, g)
    axes = tuple(range(lead)) + tuple(lead + i for i, size in enumerate(shape) if size == 1 and g.shape[lead + i] != 1)
    if not axes:
        return g
    if len(axes) == g.ndim:
        total = sum_all(xp, g)
        return total if not shape else xp.reshape(total, shape)
    if axes == tuple(range(g.ndim - 1)) and all(type(size) is int for size in g.shape):
        total = sum_rows(xp, g)
        return total if len(shape) == 1 else xp.reshape(total, shape)
    total = sum_axes(xp, g, axes)
    return total if lead == 0 else xp.squeeze(total, axis=tuple(range(lead)))


def normalized_axes(ndim: int, axis: Any, /) -> tuple[int, ...]:
    """Return axes as a tuple of numbers from 0 on; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(a + ndim if a < 0 else a for a in axes)


def keep_dims(xp: Namespace, g: Array, ndim: int, axis: Any, keepdims: bool, /) -> Array:  # noqa: ARG001, FBT001 - a pull
    """Give the result of a reduction its axes back, of size 1."""
    if keepdims or ndim == 0 or (axis is None and g.ndim == 0):
        return g
    for a in sorted(normalized_axes(ndim, axis)):
        g = g[(*(slice(None),) * a, None, ...)]
    return g
