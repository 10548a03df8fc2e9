"""Strong zeros: a cotangent that is exactly 0 contributes 0, whatever the derivative.

So ``where(x > 0, log(x), 0)`` has the gradient 0 at x = 0, though the derivative of the logarithm is infinite there.
Each function is linear in its first argument, also where that is 0, and so are its derivatives of all orders.
"""

from typing import Any

from pullback._autodiff.typing import Array
from pullback._core.dtypes import is_complex
from pullback._core.memory import is_host_memory
from pullback._core.typing import Namespace


def strong_multiply(xp: Namespace, g: Array, d: Array, /) -> Array:
    """Return ``g d``, and 0 where `g` is 0."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_multiply, g, d)
    return g * _where_zero(xp, g, 0, d)


def strong_divide(xp: Namespace, g: Array, d: Array, /) -> Array:
    """Return ``g / d``, and 0 where `g` is 0."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_divide, g, d)
    return g / _where_zero(xp, g, 1, d)


def strong_power(xp: Namespace, g: Array, x: Array, exponent: Any, /) -> Array:
    """Return ``g x^exponent``, and 0 where `g` is 0."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_power, g, x, exponent)
    return g * _where_zero(xp, g, 1, x) ** exponent


def strong_log(xp: Namespace, g: Array, x: Array, /) -> Array:
    """Return ``g log(x)``, and 0 where `g` is 0."""
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_log, g, x)
    return g * xp.log(_where_zero(xp, g, 1, x))


def strong_product(xp: Namespace, g: Array, h: Any, /) -> Array:
    """Return ``g h`` for an array or a number `h`, and 0 where either is 0: where both may stem from cotangents."""
    if type(h) in (bool, int, float, complex):  # numbers of NumPy, which are floats too, count as arrays
        return g * h
    record = getattr(xp, "call_internal", None)
    if record is not None:
        return record(_product, g, h)
    return _where_zero(xp, h, 0, g) * _where_zero(xp, g, 0, h)


def _where_zero(xp: Namespace, g: Array, number: int, d: Any, /) -> Any:
    """Return a number where `g` is 0, else `d`; `d` itself where it can be seen for free that `g` has no zeros."""
    # The method takes NumPy half as long as the function, which takes as long as the choice.
    if is_host_memory(g) and g.all():
        return d
    return xp.where(g == 0, number, d)


def _product(xp: Namespace, g: Array, h: Array, /) -> Any:
    return strong_product(xp, g, h), (_other, h), (_other, g)


def _other(xp: Namespace, k: Array, h: Array, /) -> Array:
    return strong_product(xp, k, conj(xp, h))


def _multiply(xp: Namespace, g: Array, d: Array, /) -> Any:
    return strong_multiply(xp, g, d), (_times, d), (_other, g)


def _times(xp: Namespace, h: Array, d: Array, /) -> Array:
    return strong_multiply(xp, h, conj(xp, d))


def _divide(xp: Namespace, g: Array, d: Array, /) -> Any:
    out = strong_divide(xp, g, d)
    return out, (_over, d), (_denominator, d, out)


def _over(xp: Namespace, h: Array, d: Array, /) -> Array:
    return strong_divide(xp, h, conj(xp, d))


def _denominator(xp: Namespace, h: Array, d: Array, out: Array, /) -> Array:
    return -strong_divide(xp, strong_product(xp, h, conj(xp, out)), conj(xp, d))


def _power(xp: Namespace, g: Array, x: Array, exponent: Any, /) -> Any:
    out = strong_power(xp, g, x, exponent)
    return out, (_factor, x, exponent), (_base, g, x, exponent), (_exponent, x, out)


def _factor(xp: Namespace, h: Array, x: Array, exponent: Any, /) -> Array:
    return strong_power(xp, h, conj(xp, x), conj(xp, exponent))


def _base(xp: Namespace, h: Array, g: Array, x: Array, exponent: Any, /) -> Array:
    return strong_power(xp, strong_product(xp, h, conj(xp, g * exponent)), conj(xp, x), conj(xp, exponent) - 1)


def _exponent(xp: Namespace, h: Array, x: Array, out: Array, /) -> Array:
    return strong_log(xp, strong_product(xp, h, conj(xp, out)), conj(xp, x))


def _log(xp: Namespace, g: Array, x: Array, /) -> Any:
    return strong_log(xp, g, x), (_log_factor, x), (_log_argument, g, x)


def _log_factor(xp: Namespace, h: Array, x: Array, /) -> Array:
    return strong_log(xp, h, conj(xp, x))


def _log_argument(xp: Namespace, h: Array, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, strong_product(xp, h, conj(xp, g)), conj(xp, x))


def conj(xp: Namespace, x: Any, /) -> Any:
    """Return the complex conjugate of an array or a number; `x` itself where that is real."""
    if isinstance(x, int | float | complex):
        return x.conjugate()
    return xp.conj(x) if is_complex(xp, x.dtype) else x
