"""Strong zeros: a cotangent that is exactly 0 contributes 0, whatever the derivative.

So ``where(x > 0, log(x), 0)`` has the gradient 0 at x = 0, though the derivative of the logarithm is infinite there.
"""

from typing import Any

from pullback._autodiff.typing import Array
from pullback._core.typing import DType, Namespace


def strong_multiply(xp: Namespace, g: Array, d: Array, /) -> Array:
    """Return ``g d``, and 0 where `g` is 0. It is linear in `g`, also where that is 0."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_multiply, g, d)
    return g * xp.where(g == 0, xp.zeros_like(d), d)


def strong_divide(xp: Namespace, g: Array, d: Array, /) -> Array:
    """Return ``g / d``, and 0 where `g` is 0. It is linear in `g`, also where that is 0."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_divide, g, d)
    return g / xp.where(g == 0, xp.ones_like(d), d)


def _multiply(xp: Namespace, g: Array, d: Array, /) -> Any:
    return strong_multiply(xp, g, d), (_times, d), (_times, g)


def _times(xp: Namespace, h: Array, d: Array, /) -> Array:
    return strong_multiply(xp, h, conj(xp, d))


def _divide(xp: Namespace, g: Array, d: Array, /) -> Any:
    out = strong_divide(xp, g, d)
    return out, (_over, d), (_denominator, d, out)


def _over(xp: Namespace, h: Array, d: Array, /) -> Array:
    return strong_divide(xp, h, conj(xp, d))


def _denominator(xp: Namespace, h: Array, d: Array, out: Array, /) -> Array:
    return -strong_divide(xp, h * conj(xp, out), conj(xp, d))


def conj(xp: Namespace, x: Array, /) -> Array:
    """Return the complex conjugate; `x` itself where that is real."""
    return xp.conj(x) if is_complex(xp, x.dtype) else x


# By the type of the dtype, too: those of array-api-strict warn when they are compared with NumPy's.
_complex: dict[tuple[type, DType], bool] = {}


def is_complex(xp: Namespace, dtype: DType, /) -> bool:
    """Whether a dtype is complex. Asking for the kind of a dtype takes as long as a small product: it is cached."""
    key = (type(dtype), dtype)
    found = _complex.get(key)
    if found is None:
        found = _complex[key] = bool(xp.isdtype(dtype, "complex floating"))
    return found
