"""Functions of each entry by itself."""

from pullback._autodiff.rules.registry import WITHOUT_DERIVATIVE, unary
from pullback._autodiff.rules.strong import strong_divide
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace

WITHOUT_DERIVATIVE |= {
    *("bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor"),
    *("ceil", "equal", "floor", "floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less"),
    *("less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "nextafter", "not_equal", "round"),
    *("sign", "signbit", "trunc"),
}


@unary
def exp(_: Namespace, g: Array, out: Array, /) -> Array:
    return g * out


@unary
def tanh(_: Namespace, g: Array, out: Array, /) -> Array:
    return g * (1.0 - out * out)


@unary
def log(xp: Namespace, g: Array, x: Array, /) -> Array:
    return strong_divide(xp, g, x)


@unary
def sqrt(xp: Namespace, g: Array, out: Array, /) -> Array:
    return strong_divide(xp, 0.5 * g, out)


@unary
def sin(xp: Namespace, g: Array, x: Array, /) -> Array:
    return g * xp.cos(x)


@unary
def cos(xp: Namespace, g: Array, x: Array, /) -> Array:
    return -(g * xp.sin(x))


@unary
def square(_: Namespace, g: Array, x: Array, /) -> Array:
    return g * (2.0 * x)


@unary
def negative(_: Namespace, g: Array, x: Array, /) -> Array:
    del x
    return -g
