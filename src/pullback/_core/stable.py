"""What keeps exponentials in range, without a `where` on random signs: for that NumPy takes ten times an addition."""

from pullback._core.typing import Array, Namespace


def decay(xp: Namespace, x: Array, /) -> Array:
    """Return ``exp(-|x|)``: between 0 and 1."""
    out: Array = xp.exp(-xp.abs(x))
    return out


def is_positive(xp: Namespace, x: Array, /) -> Array:
    """Return 1 where `x` is positive, and 0 elsewhere and for NaN."""
    out: Array = xp.astype(x > 0, x.dtype)
    return out


def sigmoid(xp: Namespace, x: Array, /) -> Array:
    """Return ``1 / (1 + exp(-x))``, with a small relative error also where that is small."""
    # What is missing to the nearer of 0 and 1.
    rest = decay(xp, x)
    rest /= rest + 1
    out = is_positive(xp, x)
    out -= rest
    near: Array = xp.abs(out)
    return near


def clipped(xp: Namespace, x: Array, low: float, high: float | None = None, /) -> Array:
    """Return `x` where that is between the two bounds, and else the nearer of them; NaN stays NaN."""
    out: Array
    if all(isinstance(size, int) for size in x.shape):
        out = xp.clip(x, low, high)
    else:  # array-api-compat's clip asks for sizes that are not known
        out = xp.maximum(x, low)
        out = out if high is None else xp.minimum(out, high)
    return out


def largest(xp: Namespace, x: Array, /) -> Array:
    """Return the maximum over the last axis, which is kept."""
    n = x.shape[-1]
    if not (hasattr(x, "chunks") and isinstance(n, int)):
        out: Array = xp.max(x, axis=-1, keepdims=True)
        return out
    # Dask's maximum fails on a block of no rows, as a filter leaves them: fold the axis in half until one is left.
    while n > 1:
        half = (n + 1) // 2
        x, n = xp.maximum(x[..., :half], x[..., n - half :]), half
    return x
