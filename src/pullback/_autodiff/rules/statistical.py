"""Reductions and cumulative sums and products."""

from typing import Any

from pullback._autodiff.rules.accurate import sum_axes
from pullback._autodiff.rules.registry import rule
from pullback._autodiff.rules.strong import conj
from pullback._autodiff.shapes import Like, keep_dims, like, normalized_axes
from pullback._autodiff.typing import Array
from pullback._core.memory import is_host_memory, multiply
from pullback._core.stable import largest
from pullback._core.typing import DType, Namespace


@rule
def sum_(xp: Namespace, x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    out = xp.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
    return out, (keep_dims, x.ndim, axis, keepdims)


@rule
def mean(xp: Namespace, x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    out = xp.mean(x, axis=axis, keepdims=keepdims)
    return out, (_mean, like(x), axis, keepdims)


def _mean(xp: Namespace, g: Array, spec: Like, axis: Any, keepdims: bool, /) -> Array:
    axes = normalized_axes(len(spec.shape), axis)
    return keep_dims(xp, g, len(spec.shape), axis, keepdims) / _count(xp, spec, axes)


def _count(xp: Namespace, spec: Like, axes: tuple[int, ...], /) -> Any:
    """Return the number of entries along some axes; a lazy sum of ones where it is unknown. Not 0."""
    total: Any = 1
    for a in axes:
        size = spec.shape[a]
        if type(size) is not int:
            return sum_axes(xp, xp.ones_like(spec.array), axes)
        total *= max(size, 1)
    return total


@rule
def var(xp: Namespace, x: Array, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    out = xp.var(x, axis=axis, correction=correction, keepdims=keepdims)
    return out, (_var, x, axis, correction, keepdims)


def _var(xp: Namespace, g: Array, x: Array, axis: Any, correction: float, keepdims: bool, /) -> Array:
    free = _count(xp, like(x), normalized_axes(x.ndim, axis)) - correction
    return (x - xp.mean(x, axis=axis, keepdims=True)) * keep_dims(xp, g * 2 / free, x.ndim, axis, keepdims)


@rule
def std(xp: Namespace, x: Array, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    out = xp.std(x, axis=axis, correction=correction, keepdims=keepdims)
    return out, (_std, x, out, axis, correction, keepdims)


def _std(xp: Namespace, g: Array, x: Array, out: Array, axis: Any, correction: float, keepdims: bool, /) -> Array:
    # Of constants, 0 divided by 1.
    return _var(xp, g / (2 * xp.where(out == 0, 1, out)), x, axis, correction, keepdims)


@rule
def max_(xp: Namespace, x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    if axis in (-1, x.ndim - 1) and x.ndim > 1 and is_host_memory(x):
        out = largest(xp, x)
        out = out if keepdims else out[..., 0]
    else:
        out = xp.max(x, axis=axis, keepdims=keepdims)
    return out, (_extremum, x, out, axis, keepdims)


@rule
def min_(xp: Namespace, x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    out = xp.min(x, axis=axis, keepdims=keepdims)
    return out, (_extremum, x, out, axis, keepdims)


def _extremum(xp: Namespace, g: Array, x: Array, out: Array, axis: Any, keepdims: bool, /) -> Array:
    """Share a cotangent equally among ties; where the extremum is NaN, among the entries that are."""
    in_memory = is_host_memory(out)
    chosen = x == keep_dims(xp, out, x.ndim, axis, keepdims)
    g = keep_dims(xp, g, x.ndim, axis, keepdims)
    if not in_memory or bool(xp.any(xp.isnan(out))):
        chosen = chosen | xp.isnan(x)
    # Where it can be seen for free that no entries are tied, none of the cotangents is shared.
    if not (in_memory and int(xp.count_nonzero(chosen)) == out.size):
        g = g / sum_axes(xp, xp.astype(chosen, g.dtype), normalized_axes(x.ndim, axis))
    if is_host_memory(g) and bool(xp.all(xp.isfinite(g))):
        return multiply(xp.astype(chosen, g.dtype), g)
    return xp.where(chosen, g, 0)


@rule
def prod(xp: Namespace, x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    out = xp.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)
    return out, (_prod, x, axis, out.dtype, keepdims)


def _prod(xp: Namespace, g: Array, x: Array, axis: Any, dtype: DType, keepdims: bool, /) -> Array:
    """Pull back one axis after the other, from the last product to the first."""
    g = keep_dims(xp, g, x.ndim, axis, keepdims)
    x = xp.astype(x, dtype, copy=False)
    axes = normalized_axes(x.ndim, axis)
    products = [x]
    for a in axes[:-1]:
        products.append(xp.prod(products[-1], axis=a, keepdims=True))
    for a, factors in zip(reversed(axes), reversed(products), strict=False):
        g = g * conj(xp, _product_of_others(xp, factors, a))
    return g


def _product_of_others(xp: Namespace, x: Array, axis: int, /) -> Array:
    """Return the product over an axis of all entries but the one at each place, which may be 0."""
    before = _product_before(xp, x, axis)
    return before * xp.flip(_product_before(xp, xp.flip(x, axis=axis), axis), axis=axis)


def _product_before(xp: Namespace, x: Array, axis: int, /) -> Array:
    lead = (slice(None),) * axis
    return xp.cumulative_prod(x, axis=axis, include_initial=True)[(*lead, slice(0, -1), ...)]


@rule
def cumulative_sum(
    xp: Namespace, x: Array, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    out = xp.cumulative_sum(x, axis=axis, dtype=dtype, include_initial=include_initial)
    return out, (_cumulative_sum, _one_axis(x.ndim, axis), include_initial)


def _cumulative_sum(xp: Namespace, g: Array, axis: int, include_initial: bool, /) -> Array:
    reverse = xp.flip(_without_initial(g, axis, include_initial), axis=axis)
    return xp.flip(xp.cumulative_sum(reverse, axis=axis), axis=axis)


@rule
def cumulative_prod(
    xp: Namespace, x: Array, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    out = xp.cumulative_prod(x, axis=axis, dtype=dtype, include_initial=include_initial)
    return out, (_cumulative_prod, x, _one_axis(x.ndim, axis), out.dtype, include_initial)


def _cumulative_prod(xp: Namespace, g: Array, x: Array, axis: int, dtype: DType, include_initial: bool, /) -> Array:
    """Pull back without a division, which 0 would forbid.

    The cotangent of entry j is its product before times ``S_j = g_j + x_{j+1} S_{j+1}``. This recurrence from the end
    is solved by doubling: ``S_j = b_j + a_j S_{j+d}`` for d = 1, 2, 4, ...
    """
    b = _without_initial(g, axis, include_initial)
    if x.shape[axis] == 0:
        return b
    x = conj(xp, xp.astype(x, dtype, copy=False))
    before = _product_before(xp, x, axis)
    a = _from_later(xp, x, 1, axis)
    step = 1
    while step < x.shape[axis]:
        b = b + a * _from_later(xp, b, step, axis)
        a = a * _from_later(xp, a, step, axis)
        step *= 2
    return before * b


def _from_later(xp: Namespace, x: Array, step: int, axis: int, /) -> Array:
    """Return the entry that lies `step` later along an axis, and 0 after the end."""
    lead = (slice(None),) * axis
    later = x[(*lead, slice(step, None), ...)]
    return xp.concat([later, xp.zeros_like(x[(*lead, slice(0, step), ...)])], axis=axis)


def _without_initial(g: Array, axis: int, include_initial: bool, /) -> Array:
    return g[(*(slice(None),) * axis, slice(1, None), ...)] if include_initial else g


def _one_axis(ndim: int, axis: Any, /) -> int:
    """Return the axis of a cumulative function from 0 on; an array of one axis may leave it out."""
    return 0 if axis is None else axis % ndim
