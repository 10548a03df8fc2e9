"""Functions that move entries: shapes, axes, order, dtypes and devices."""

import functools
import math
from collections.abc import Callable
from typing import Any, NoReturn

import array_api_compat

from pullback._autodiff.rules.accurate import sum_axes
from pullback._autodiff.rules.registry import rule
from pullback._autodiff.rules.scatter import add_at
from pullback._autodiff.shapes import Like, keep_dims, like, normalized_axes
from pullback._autodiff.typing import Array
from pullback._core.dtypes import is_dtype
from pullback._core.typing import Namespace


def same(_: Namespace, g: Array, /) -> Array:
    """Hand the cotangent on: what was broadcast or cast is undone for all rules in one place."""
    return g


# Axes.


@rule
def T(_: Namespace, x: Array, /) -> Any:  # noqa: N802 - the attribute's name
    return x.T, (_transpose,)


def _transpose(_: Namespace, g: Array, /) -> Array:
    return g.T


@rule
def matrix_transpose(xp: Namespace, x: Array, /) -> Any:
    return xp.matrix_transpose(x), (_matrix_transpose,)


def _matrix_transpose(xp: Namespace, g: Array, /) -> Array:
    return xp.matrix_transpose(g)


@rule
def permute_dims(xp: Namespace, x: Array, /, axes: tuple[int, ...]) -> Any:
    return xp.permute_dims(x, axes), (_unpermuted, tuple(axes))


def _unpermuted(xp: Namespace, x: Array, axes: tuple[int, ...]) -> Array:
    """Undo a permutation of axes."""
    return xp.permute_dims(x, _inverse(tuple(axes)))


@functools.cache
def _inverse(axes: tuple[int, ...], /) -> tuple[int, ...]:
    """Return the axes that undo a permutation."""
    places = normalized_axes(len(axes), axes)
    return tuple(sorted(range(len(axes)), key=places.__getitem__))


@rule
def moveaxis(xp: Namespace, x: Array, source: Any, destination: Any, /) -> Any:
    return xp.moveaxis(x, source, destination), (_moveaxis, destination, source)


def _moveaxis(xp: Namespace, g: Array, source: Any, destination: Any, /) -> Array:
    return xp.moveaxis(g, source, destination)


@rule
def expand_dims(xp: Namespace, x: Array, /, axis: Any = 0) -> Any:
    return xp.expand_dims(x, axis=axis), (_squeeze, axis)


def _squeeze(xp: Namespace, g: Array, axis: Any, /) -> Array:
    return xp.squeeze(g, axis=axis)


@rule
def squeeze(xp: Namespace, x: Array, /, axis: Any) -> Any:
    return xp.squeeze(x, axis=axis), (keep_dims, x.ndim, axis, False)


@rule
def reshape(xp: Namespace, x: Array, /, shape: Any, *, copy: Any = None) -> Any:
    return xp.reshape(x, shape, copy=copy), (_reshape, like(x))


def _reshape(xp: Namespace, g: Array, spec: Like, /) -> Array:
    return xp.reshape(g, spec.shape)


# Broadcasts.


@rule
def broadcast_to(xp: Namespace, x: Array, /, shape: Any) -> Any:
    return xp.broadcast_to(x, shape), (same,)


@rule
def broadcast_arrays(xp: Namespace, *arrays: Array) -> Any:
    return xp.broadcast_arrays(*arrays), *((_own, i) for i in range(len(arrays)))


def _own(_: Namespace, gs: tuple[Array, ...], i: int, /) -> Array:
    """Return the cotangent of the output that belongs to an argument."""
    return gs[i]


@rule
def meshgrid(xp: Namespace, *arrays: Array, indexing: str = "xy") -> Any:
    n = len(arrays)
    axes = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    pulls = ((_meshgrid, i, tuple(a for a in range(n) if a != axes[i]), like(x)) for i, x in enumerate(arrays))
    return xp.meshgrid(*arrays, indexing=indexing), *pulls


def _meshgrid(xp: Namespace, gs: tuple[Array, ...], i: int, others: tuple[int, ...], spec: Like, /) -> Array:
    g = gs[i]
    return xp.reshape(sum_axes(xp, g, others) if others else g, spec.shape)


# Several arrays.


@rule
def concat(xp: Namespace, arrays: Any, /, *, axis: Any = 0) -> Any:
    arrays = list(arrays)
    out = xp.concat(arrays, axis=axis)
    a = 0 if axis is None else axis % out.ndim
    pulls, stop = [], 0
    for x in arrays:
        start, stop = stop, stop + (math.prod(x.shape) if axis is None else x.shape[a])
        pulls.append((_part, a, start, stop, like(x)))
    return out, *pulls


def _part(xp: Namespace, g: Array, axis: int, start: int, stop: int, spec: Like, /) -> Array:
    part = g[(*(slice(None),) * axis, slice(start, stop), ...)]
    return part if part.ndim == len(spec.shape) else xp.reshape(part, spec.shape)


@rule
def stack(xp: Namespace, arrays: Any, /, *, axis: int = 0) -> Any:
    arrays = list(arrays)
    out = xp.stack(arrays, axis=axis)
    return out, *((_layer, axis % out.ndim, i) for i in range(len(arrays)))


def _layer(_: Namespace, g: Array, axis: int, i: int, /) -> Array:
    return g[(*(slice(None),) * axis, i, ...)]


@rule
def unstack(xp: Namespace, x: Array, /, *, axis: int = 0) -> Any:
    return tuple(xp.unstack(x, axis=axis)), (_restack, axis)


def _restack(xp: Namespace, gs: tuple[Array, ...], axis: int, /) -> Array:
    return xp.stack(list(gs), axis=axis)


@rule
def diff(xp: Namespace, x: Array, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    ends = {name: end for name, end in (("prepend", prepend), ("append", append)) if end is not None}
    out = xp.diff(x, axis=axis, n=n, **ends)
    if n == 0:  # the array itself, to which nothing is joined
        return out, (same,)
    a, stop, pulls = axis % x.ndim, 0, []
    for part in (prepend, x, append):
        start, stop = stop, stop + (0 if part is None else part.shape[a])
        pulls.append((_diff, a, n, start, stop))
    before, own, after = pulls
    return out, own, None, None, before, after


def _diff(xp: Namespace, g: Array, axis: int, n: int, start: int, stop: int, /) -> Array:
    """Pull back through differences of joined arrays, of which one reaches from `start` to `stop`."""
    lead = (slice(None),) * axis
    for _ in range(n):
        zero = xp.zeros_like(xp.sum(g, axis=axis, keepdims=True))
        g = -xp.diff(xp.concat([zero, g, zero], axis=axis), axis=axis)
    return g[(*lead, slice(start, stop), ...)]


# Order.


@rule
def flip(xp: Namespace, x: Array, /, *, axis: Any = None) -> Any:
    return xp.flip(x, axis=axis), (_flip, axis)


def _flip(xp: Namespace, g: Array, axis: Any, /) -> Array:
    return xp.flip(g, axis=axis)


@rule
def roll(xp: Namespace, x: Array, /, shift: Any, *, axis: Any = None) -> Any:
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return xp.roll(x, shift, axis=axis), (_roll, back, axis)


def _roll(xp: Namespace, g: Array, shift: Any, axis: Any, /) -> Array:
    return xp.roll(g, shift, axis=axis)


@rule
def tril(xp: Namespace, x: Array, /, *, k: int = 0) -> Any:
    return xp.tril(x, k=k), (_tril, k)


def _tril(xp: Namespace, g: Array, k: int, /) -> Array:
    return xp.tril(g, k=k)


@rule
def triu(xp: Namespace, x: Array, /, *, k: int = 0) -> Any:
    return xp.triu(x, k=k), (_triu, k)


def _triu(xp: Namespace, g: Array, k: int, /) -> Array:
    return xp.triu(g, k=k)


# Copies.


@rule
def repeat(xp: Namespace, x: Array, repeats: Any, /, *, axis: Any = None) -> Any:
    out = xp.repeat(x, repeats, axis=axis)
    if isinstance(repeats, int):
        return out, (_repeat, repeats, axis, like(x))
    return out, (_repeat_each, repeats, axis, like(x))


def _repeat(xp: Namespace, g: Array, repeats: int, axis: Any, spec: Like, /) -> Array:
    a, shape = _along(axis, spec)
    split = xp.reshape(g, (*shape[: a + 1], repeats, *shape[a + 1 :]))
    return xp.reshape(sum_axes(xp, split, (a + 1,)), spec.shape)


def _repeat_each(xp: Namespace, g: Array, repeats: Array, axis: Any, spec: Like, /) -> Array:
    a, shape = _along(axis, spec)
    n = shape[a]
    places = xp.repeat(xp.arange(n, device=array_api_compat.device(g)), repeats)
    return xp.reshape(add_at(xp, g, places, a, n), spec.shape)


def _along(axis: Any, spec: Like, /) -> tuple[int, tuple[int, ...]]:
    """Return the axis and the shape of an array that is flattened where the axis is None."""
    if axis is None:
        return 0, (math.prod(spec.shape),)
    return axis % len(spec.shape), spec.shape


@rule
def tile(xp: Namespace, x: Array, repetitions: tuple[int, ...], /) -> Any:
    return xp.tile(x, repetitions), (_tile, tuple(repetitions), like(x))


def _tile(xp: Namespace, g: Array, repetitions: tuple[int, ...], spec: Like, /) -> Array:
    ndim = g.ndim
    sizes = (*(1,) * (ndim - len(spec.shape)), *spec.shape)
    times = (*(1,) * (ndim - len(repetitions)), *repetitions)
    split = xp.reshape(g, tuple(n for pair in zip(times, sizes, strict=True) for n in pair))
    return xp.reshape(sum_axes(xp, split, tuple(range(0, 2 * ndim, 2))), spec.shape)


# Dtypes and devices.


@rule
def astype(xp: Namespace, x: Array, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    floating = is_dtype(xp, dtype, "real floating", "complex floating")
    if device is None:
        return xp.astype(x, dtype, copy=copy), (same,) if floating else None
    out = xp.astype(x, dtype, copy=copy, device=device)
    return out, (to_its_device, array_api_compat.device(x)) if floating else None


@rule
def to_device(_: Namespace, x: Array, device: Any, /, *, stream: Any = None) -> Any:
    out = array_api_compat.to_device(x, device, stream=stream)
    return out, (to_its_device, array_api_compat.device(x))


def to_its_device(_: Namespace, g: Array, device: Any, /) -> Array:
    """Move a cotangent to the device of its primal; None leaves it where it is."""
    return g if device is None else array_api_compat.to_device(g, device)


def _unsqueezed(xp: Namespace, x: Array, axis: int | tuple[int, ...]) -> Array:
    """Undo the removal of axes of size 1."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    ndim = x.ndim + len(axes)
    for a in sorted(a % ndim for a in axes):
        x = xp.expand_dims(x, axis=a)
    return x


def _in_own_shape(xp: Namespace, view: Array, parent: Array, *_: Any, **__: Any) -> Array:
    return xp.reshape(view, parent.shape)


def _broadcast_back(xp: Namespace, view: Array, parent: Array, *_: Any, **__: Any) -> Array:
    """Return a view that was broadcast to the shape that its array has; any other one is read-only in NumPy, too."""
    return view if view.shape == parent.shape else _raise_read_only(xp)


def _raise_read_only(_: Namespace, *__: Any, **___: Any) -> NoReturn:
    msg = (
        "a result of broadcast_to, broadcast_arrays, real, imag or diagonal shares the memory of its array and cannot "
        "be written into where it is differentiated. Copy it first, with xp.asarray(view, copy=True)"
    )
    raise ValueError(msg)


VIEWS: dict[str, Callable[..., Array]] = {
    "T": lambda xp, view, _: xp.transposed(view),
    "broadcast_to": _broadcast_back,
    "expand_dims": lambda xp, view, _, axis=0: xp.squeeze(view, axis=axis),
    "flip": lambda xp, view, _, axis=None: xp.flip(view, axis=axis),
    "imag": _raise_read_only,
    "linalg.diagonal": _raise_read_only,
    "matrix_transpose": lambda xp, view, _: xp.matrix_transpose(view),
    "moveaxis": lambda xp, view, _, source, destination: xp.moveaxis(view, destination, source),
    "permute_dims": lambda xp, view, _, axes: _unpermuted(xp, view, axes),
    "real": _raise_read_only,
    "reshape": _in_own_shape,
    "squeeze": lambda xp, view, _, axis: _unsqueezed(xp, view, axis),
}
"""Functions whose result may be a view: ``(xp, view, array, *options)`` returns the array of a changed view."""
