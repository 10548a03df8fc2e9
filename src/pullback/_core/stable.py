"""Exponentials that stay in range, whose derivatives are right under any autodiff.

The stable forms split at 0, where each function is smooth although |x| is not: both sides of the split must be
differentiated as if 0 were negative. No `where` on random signs: NumPy takes ten times as long for it as for a sum.
"""

import math
import sys

from pullback._core.memory import add, divide, is_host_memory, is_plain_memory, multiply, subtract
from pullback._core.reductions import sum_last
from pullback._core.typing import Array, ArrayT, Namespace

_FLOAT32_MAX = 2.0**128 - 2.0**104


def is_positive(xp: Namespace, x: Array, /) -> Array:
    """Return 1 where `x` is positive, and 0 elsewhere and for NaN; a constant to autodiff."""
    return xp.astype(x > 0, x.dtype)


def step(xp: Namespace, x: Array, /) -> Array:
    """Return 1 where `x` is positive and 0 elsewhere; NaN stays NaN; a constant to autodiff."""
    out = is_positive(xp, x)
    if x.ndim > 0 and is_plain_memory(x):
        out[xp.isnan(x)] = math.nan
        return out
    # Bounded first: zero times infinity is NaN.
    return out + clipped(xp, x, 0.0, 1.0) * 0


def decay(xp: Namespace, x: Array, rate: float = 1.0, /) -> Array:
    """Return ``exp(-rate |x|)``, between 0 and 1, whose derivative at 0 is that of ``exp(rate x)``."""
    plain = is_plain_memory(x)
    return xp.exp(multiply(xp.abs(x), -rate) if plain else x * (is_positive(xp, x) * (-2 * rate) + rate))


def positive_part(xp: Namespace, x: Array, /) -> Array:
    """Return ``max(x, 0)``, whose derivative at 0 is 0; NaN stays NaN."""
    out = clipped(xp, x, 0.0)
    # Libraries differ in the derivative of a maximum at a tie.
    return out if is_plain_memory(x) else out * is_positive(xp, x)


def softplus(xp: Namespace, x: Array, /) -> Array:
    """Return ``log(1 + exp(x))``, with a small relative error for every `x`."""
    return add(xp.log1p(decay(xp, x)), positive_part(xp, x))


def sigmoid(xp: Namespace, x: Array, /) -> Array:
    """Return ``1 / (1 + exp(-x))``, with a small relative error for every `x`."""
    # The distance from the nearer of 0 and 1.
    rest = decay(xp, x)
    rest = divide(rest, rest + 1)
    return xp.abs(subtract(is_positive(xp, x), rest))


def sigmoid_roots(xp: Namespace, x: Array, /) -> tuple[Array, Array, Array]:
    """Return p, r and t with ``sigmoid(x) = root_where(p, r)² / t`` and ``1 - sigmoid(x) = root_where(1 - p, r)² / t``.

    A number times one root and the other does not underflow before the number times the sigmoid does.
    """
    root = decay(xp, x, 0.5)
    return is_positive(xp, x), root, root * root + 1


def root_where(xp: Namespace, one: Array, root: Array, /) -> Array:
    """Return 1 where `one` is 1, and `root`, which is at most 1, where it is 0."""
    if is_plain_memory(root):
        return xp.maximum(one, root)
    return one + root * (1 - one)


def softmax(xp: Namespace, x: Array, /) -> Array:
    """Return ``exp(x) / Σ_j exp(x_j)`` over the last axis, with a small relative error for every logit."""
    out, _ = scaled_exponentials(xp, *logits_and_largest(xp, x))
    return divide(out, sum_last(xp, out))


def log_softmax(xp: Namespace, x: Array, /) -> Array:
    """Return ``x - log Σ_j exp(x_j)`` over the last axis, with a small relative error for every logit."""
    x, top = logits_and_largest(xp, x)
    exp_x, exp_top = scaled_exponentials(xp, x, top)
    x = x - top
    # NumPy compares with one number in a third of the time that one for each row takes.
    others: Array = xp.astype(xp.not_equal(x, 0), x.dtype)
    single: Array = xp.astype(xp.equal(sum_last(xp, others), x.shape[-1] - 1), x.dtype)
    # The sum less the largest exponential, if it is the only one of its size: it may be more than all others by far.
    rest = sum_last(xp, exp_x) * (1 - single)
    rest = rest + sum_last(xp, multiply(others, exp_x)) * single
    return subtract(x, xp.log1p(rest / exp_top + (single - 1)))


def logits_and_largest(xp: Namespace, x: Array, valid: Array | None = None, /) -> tuple[Array, Array]:
    """Return logits and the largest of them over the last axis, which is kept, whose difference is a number.

    Logits of infinity count as the largest number of the dtype. Where `valid` is false, the largest is NaN. What is
    independent of a shift by it has the right derivative, whichever the library gives to a maximum.
    """
    top = largest(xp, x)
    if may_be_infinite(xp, top):
        # Infinity less infinity is NaN.
        most = sys.float_info.max if x.dtype == xp.float64 else _FLOAT32_MAX
        x, top = clipped(xp, x, None, most), clipped(xp, top, None, most)
    return x, top if valid is None else xp.where(valid, top, math.nan)


def scaled_exponentials(xp: Namespace, x: Array, top: Array, /) -> tuple[Array, Array]:
    """Return ``exp(x)`` and ``exp(top)`` times a number for each row, which keeps them in range.

    They have a small relative error where the quotient of the two is a normal number.
    """
    exponent, largest, error = exact_exponents(xp, x, top)
    return corrected(xp.exp(exponent), error), xp.exp(largest)


def exact_exponents(xp: Namespace, x: Array, top: Array, /) -> tuple[Array, Array, Array | None]:
    """Return ``x`` and ``top`` less a number for each row, and what the first is to be corrected by, if anything.

    The difference from the largest logit, `top`, is rounded, and far from 0 an exponential is wrong by many times more.
    What is independent of the number has the right derivative.
    """
    if is_plain_memory(x):
        # The difference from an integer between 0 and the logit is exact. This one is so close to `top` that sums of
        # exponentials and their reciprocals are finite, and that logits below it are negligible or close to it.
        n = x.shape[-1]
        reach = (707.0 if x.dtype == xp.float64 else 86.0) - math.log(n)
        shift = xp.trunc(top - clipped(xp, top, 0.0, reach))
        # Mostly there is nothing to subtract.
        shifted = x if is_host_memory(shift) and not xp.count_nonzero(shift) else x - shift
        return shifted, top - shift, None
    # Exponentials of at most 1, for other autodiff squares a divisor. The error of the difference is Knuth's, exact in
    # any order of sizes, and its derivative is 0.
    below = x - top
    # Of a difference that is not finite, there is no error, and infinity less infinity may warn.
    x = xp.where(xp.isfinite(below), x, top)
    finite = x - top
    negative = finite - x
    error = (x - (finite - negative)) - (top + negative)
    return below, xp.zeros_like(top), error


def corrected(exponential: Array, error: Array | None, /) -> Array:
    """Return the exponential of an exponent with a small error, of that without."""
    return exponential if error is None else exponential * (error + 1)


def clipped(xp: Namespace, x: Array, low: float | None, high: float | None = None, /) -> Array:
    """Return `x` between the two bounds, of which one may be None; NaN stays NaN."""
    # NumPy's clip takes as long to call as 10,000 entries, and array-api-compat's needs every size; PyTorch cannot
    # compile a maximum with a number. Of chunked arrays some have no clip by one bound.
    if not (is_plain_memory(x) or hasattr(x, "chunks")) and all(isinstance(size, int) for size in x.shape):
        return xp.clip(x, low, high)
    x = x if low is None else xp.maximum(x, low)
    return x if high is None else xp.minimum(x, high)


# NumPy starts a loop for each row of a maximum over the last axis. Over a short one, it is faster column by column;
# else to search for the place of the maximum, for which it has a loop that is twice as fast.
_FEW_COLUMNS = range(1, 17)
_MANY_ROWS = 100


def largest(xp: Namespace, x: Array, /) -> Array:
    """Return the maximum over the last axis, which is kept."""
    n = x.shape[-1]
    if is_host_memory(x) and math.prod(x.shape) >= _MANY_ROWS * n > 0:
        if n not in _FEW_COLUMNS:
            return xp.take_along_axis(x, xp.argmax(x, axis=-1, keepdims=True), axis=-1)
        column = x[..., :1]
        for j in range(1, n):
            column = xp.maximum(column, x[..., j : j + 1])
        return column
    if not (hasattr(x, "chunks") and isinstance(n, int)):
        return xp.max(x, axis=-1, keepdims=True)
    # Dask's maximum fails on a block of no rows, as a filter leaves them: fold the axis in half until one is left.
    while n > 1:
        half = (n + 1) // 2
        x, n = xp.maximum(x[..., :half], x[..., n - half :]), half
    return x


def may_be_infinite(xp: Namespace, x: Array, /) -> bool:
    """Whether `x` may hold an infinity. Only an array in host memory is asked, which neither waits nor computes."""
    # NumPy counts in a fifth of the time of `any`.
    return not is_host_memory(x) or bool(xp.count_nonzero(xp.isinf(x)))


def without_infinities(xp: Namespace, x: ArrayT, drop: Array, /) -> ArrayT:
    """Return `x` with 0 in place of the infinities where `drop` is true: where 0 times infinity is 0."""
    return xp.where(xp.logical_and(xp.isinf(x), drop), 0.0, x)
