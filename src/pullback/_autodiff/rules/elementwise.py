"""Functions of each entry by itself."""

import functools
from typing import Any

from array_api_compat import device

from pullback._autodiff.rules.arithmetic import identity
from pullback._autodiff.rules.registry import WITHOUT_DERIVATIVE, rule, unary
from pullback._autodiff.rules.strong import (
    conj,
    strong_divide,
    strong_log,
    strong_multiply,
    strong_power,
    strong_product,
)
from pullback._autodiff.typing import Array
from pullback._core.dtypes import is_complex
from pullback._core.stable import sigmoid
from pullback._core.typing import DType, Namespace

WITHOUT_DERIVATIVE |= {
    *("bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor"),
    *("ceil", "equal", "floor", "floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less"),
    *("less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "nextafter", "not_equal", "round"),
    *("signbit", "trunc", "operator.floordiv"),
}


# Exponentials and logarithms.


@unary
def exp(xp: Namespace, g: Array, out: Array, /) -> Array:
    return strong_multiply(xp, g, out)


@unary
def expm1(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_multiply(xp, g, xp.exp(x))


@unary
def log(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, x)


@unary
def log1p(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, 1 + x)


@unary
def log2(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, x) / _log(xp, 2.0, g)


@unary
def log10(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, x) / _log(xp, 10.0, g)


def _log(xp: Namespace, number: float, g: Array, /) -> Array:
    """Return the logarithm of a number, with the library's digits."""
    return xp.log(xp.asarray(number, dtype=g.dtype, device=device(g)))


@rule
def logaddexp(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return xp.logaddexp(x1, x2), (_logaddexp, x1, x2), (_logaddexp, x2, x1)


def _logaddexp(xp: Namespace, g: Array, x: Any, other: Any, /) -> Array:
    # Equal infinities have a difference of 0 here, instead of NaN.
    x, other = as_array(xp, x, g), as_array(xp, other, g)
    same = (x == other) & xp.isinf(x)
    return g * sigmoid(xp, xp.where(same, 0, x) - xp.where(same, 0, other))


# Trigonometric and hyperbolic functions.


@unary
def sin(xp: Namespace, g: Array, x: Array, /) -> Array:
    return g * xp.cos(x)


@unary
def cos(xp: Namespace, g: Array, x: Array, /) -> Array:
    return -(g * xp.sin(x))


@unary
def tan(_: Namespace, g: Array, out: Array, /) -> Array:
    return g * (1.0 + out * out)


@unary
def asin(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, _cofunction(xp, g, x))


@unary
def acos(xp: Namespace, g: Array, x: Array, /) -> Array:
    return -strong_divide(xp, g, _cofunction(xp, g, x))


def _cofunction(xp: Namespace, g: Array, x: Array, /) -> Array:
    """Return ``√(1 - x²)``, in factors that are accurate near 1."""
    return xp.sqrt(1 - x) * xp.sqrt(1 + x)


@unary
def atan(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, 1 + x * x)


@rule
def atan2(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return xp.atan2(x1, x2), (_atan2_x1, x1, x2), (_atan2_x2, x1, x2)


def _atan2_x1(xp: Namespace, g: Array, x1: Any, x2: Any, /) -> Array:
    return g * _over_square(xp, g, x2, x1)


def _atan2_x2(xp: Namespace, g: Array, x1: Any, x2: Any, /) -> Array:
    return -(g * _over_square(xp, g, x1, x2))


def _over_square(xp: Namespace, g: Array, x: Any, y: Any, /) -> Array:
    """Return ``x / (x² + y²)``, and 0 at 0 and at infinity."""
    x = as_array(xp, x, g)
    length = _not_zero(xp, xp.hypot(x, as_array(xp, y, g)))
    return xp.where(xp.isinf(length), 0, x) / length / length


@unary
def sinh(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_multiply(xp, g, xp.cosh(x))


@unary
def cosh(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_multiply(xp, g, xp.sinh(x))


@unary
def tanh(_: Namespace, g: Array, out: Array, /) -> Array:
    return g * (1.0 - out * out)


@unary
def asinh(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, xp.sqrt(x * x + 1))


@unary
def acosh(xp: Namespace, g: Array, x: Array, /) -> Array:
    # √(x² - 1) would be on the wrong branch where the real part of `x` is negative.
    return strong_divide(xp, g, xp.sqrt(x - 1) * xp.sqrt(x + 1))


@unary
def atanh(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, (1 - x) * (1 + x))


# Powers.


@unary
def square(_: Namespace, g: Array, x: Array, /) -> Array:
    return g * (2.0 * x)


@unary
def sqrt(xp: Namespace, g: Array, out: Array, /) -> Array:
    return strong_divide(xp, 0.5 * g, out)


@unary
def reciprocal(xp: Namespace, g: Array, x: Array, /) -> Array:
    return -strong_divide(xp, strong_divide(xp, g, x), x)


@rule
def pow_(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return _power(x1, x2, xp.pow(x1, x2))


@functools.partial(rule, name="operator.pow")
def operator_pow(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return _power(x1, x2, x1**x2)


def _power(x1: Any, x2: Any, out: Array, /) -> Any:
    if type(x2) is int and x2 == 2:
        return out, (_square, x1)
    return out, (_pow_x1, x1, x2), (_pow_x2, x1, x2, out)


def _square(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_multiply(xp, g, 2 * conj(xp, x))


def _pow_x1(xp: Namespace, g: Array, x1: Array, x2: Any, /) -> Array:
    # Where x2 is 0, so is the strong factor, and the derivative at 0**0.
    return strong_power(xp, strong_product(xp, g, conj(xp, x2)), conj(xp, x1), conj(xp, x2) - 1)


def _pow_x2(xp: Namespace, g: Array, x1: Any, x2: Array, out: Array, /) -> Array:
    x1 = as_array(xp, x1, g)
    x1 = xp.where((x1 == 0) & (x2 == 0), 1, x1)
    return strong_log(xp, strong_product(xp, g, conj(xp, out)), conj(xp, x1))


@rule
def hypot(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    out = xp.hypot(x1, x2)
    return out, (_hypot, x1, x2, out), (_hypot, x2, x1, out)


def _hypot(xp: Namespace, g: Array, x: Any, y: Any, out: Array, /) -> Array:
    # At infinity the direction counts alone: that of an infinite entry, or of the diagonal between two.
    far = xp.isinf(out)
    x, y = (xp.where(far, _at_infinity(xp, part), part) for part in (as_array(xp, x, out), as_array(xp, y, out)))
    return strong_multiply(xp, g, x / _not_zero(xp, xp.where(far, xp.hypot(x, y), out)))


def _at_infinity(xp: Namespace, x: Array, /) -> Array:
    """Return the sign of what is infinite, and 0 for what is finite."""
    return xp.where(xp.isinf(x), xp.sign(x), 0)


# Signs and parts.


@unary
def negative(_: Namespace, g: Array, /) -> Array:
    return -g


@unary
def positive(_: Namespace, g: Array, /) -> Array:
    return g


def _complex_abs(xp: Namespace, g: Array, x: Array, /) -> Array:
    return g * xp.sign(x)


@functools.partial(unary, complex_pull=_complex_abs)
def abs_(xp: Namespace, g: Array, x: Array, /) -> Array:
    return g * xp.sign(x)


@rule
def sign(xp: Namespace, x: Array, /) -> Any:
    out = xp.sign(x)
    return out, (_complex_sign, x, out) if is_complex(xp, x.dtype) else None


def _complex_sign(xp: Namespace, g: Array, x: Array, out: Array, /) -> Array:
    """Pull back to the part of the cotangent across the direction of `x`; to 0 at 0."""
    size = xp.abs(x)
    across = g - out * xp.astype(xp.real(conj(xp, out) * g), g.dtype)
    return xp.where(size == 0, 0, across) / xp.astype(_not_zero(xp, size), g.dtype)


@rule
def copysign(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return xp.copysign(x1, x2), (_copysign, x1, x2)


def _copysign(xp: Namespace, g: Array, x1: Array, x2: Any, /) -> Array:
    direction = xp.sign(x1)
    return g * (direction * xp.copysign(direction, x2))


@rule
def conj_(xp: Namespace, x: Array, /) -> Any:
    return xp.conj(x), (_conj,)


def _conj(xp: Namespace, g: Array, /) -> Array:
    return conj(xp, g)


@rule
def real(xp: Namespace, x: Array, /) -> Any:
    return xp.real(x), (identity,)


@rule
def imag(xp: Namespace, x: Array, /) -> Any:
    return xp.imag(x), (_imag, x.dtype) if is_complex(xp, x.dtype) else None


def _imag(xp: Namespace, g: Array, dtype: DType, /) -> Array:
    return xp.astype(g, dtype) * 1j


# Choices and remainders.


@rule
def maximum(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return xp.maximum(x1, x2), (_larger, x1, x2), (_larger, x2, x1)


@rule
def minimum(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return xp.minimum(x1, x2), (_larger, x2, x1), (_larger, x1, x2)


def _larger(xp: Namespace, g: Array, x: Any, y: Any, /) -> Array:
    """Return the cotangent where ``x > y``, and half of it where they are equal; all of it where one is NaN."""
    return xp.where(x < y, 0, xp.where(x == y, 0.5 * g, g))


@rule
def clip(xp: Namespace, x: Array, /, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    return xp.clip(x, min, max), (_inside, x, min, max), (_below, x, min, max), (_above, x, min, max)


def _inside(xp: Namespace, g: Array, x: Array, low: Any, high: Any, /) -> Array:
    g = g if low is None else xp.where(x >= low, g, 0)
    return g if high is None else xp.where(x <= high, g, 0)


def _below(xp: Namespace, g: Array, x: Array, low: Array, high: Any, /) -> Array:
    g = xp.where(x < low, g, 0)
    return g if high is None else xp.where(low < high, g, 0)


def _above(xp: Namespace, g: Array, x: Array, low: Any, high: Array, /) -> Array:
    outside = x > high
    return xp.where(outside if low is None else outside | (low > high), g, 0)


@rule
def remainder(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return xp.remainder(x1, x2), (identity,), (_quotient, x1, x2)


@functools.partial(rule, name="operator.mod")
def operator_mod(xp: Namespace, x1: Any, x2: Any, /) -> Any:
    return x1 % x2, (identity,), (_quotient, x1, x2)


def _quotient(xp: Namespace, g: Array, x1: Any, x2: Array, /) -> Array:
    return -strong_multiply(xp, g, xp.floor_divide(as_array(xp, x1, g), x2))


def as_array(xp: Namespace, x: Any, g: Array, /) -> Array:
    """Return an argument in the dtype of the cotangent; a number as an array."""
    if isinstance(x, int | float | complex):
        return xp.full_like(g, x)
    return x if x.dtype == g.dtype else xp.astype(x, g.dtype)


def _not_zero(xp: Namespace, x: Array, /) -> Array:
    """Return 1 where `x` is 0: a denominator for what is 0, too."""
    return xp.where(x == 0, 1, x)
