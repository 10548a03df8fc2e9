"""The operators: addition, subtraction, multiplication and division."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from pullback._autodiff.rules.strong import strong_divide, strong_product
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace

Saves = Callable[[Any, Any, Any], tuple[Any, ...]]


class Arithmetic(NamedTuple):
    """An operator of two arrays: what pulls its cotangent back to each, and what each pull saves of (x, y, out)."""

    op: Callable[[Any, Any], Any]
    pull_x: Callable[..., Any]
    saves_x: Saves
    pull_y: Callable[..., Any]
    saves_y: Saves
    scalar_x: Callable[..., Any]  # as pull_x, where y is a Python number
    scalar_y: Callable[..., Any]  # as pull_y, where x is a Python number
    # Pulls back to a single array that is both operands, with what `pull_x` saves.
    pull_same: Callable[..., Any] | None = None


def identity(_: Namespace, g: Array, /) -> Array:
    """Hand the cotangent on."""
    return g


def negate(_: Namespace, g: Array, /) -> Array:
    """Pull back through a change of sign."""
    return -g


def times(_: Namespace, g: Array, y: Array, /) -> Array:
    """Pull back through a product."""
    return g * y


def times_twice(_: Namespace, g: Array, y: Array, /) -> Array:
    """Pull back through a square."""
    out = g * y
    # In place: another array takes as long again.
    out += out
    return out


def over(xp: Namespace, g: Array, y: Array, /) -> Array:
    """Pull back to a numerator."""
    return strong_divide(xp, g, y)


def over_number(_: Namespace, g: Array, y: Any, /) -> Array:
    """Pull back to the numerator of a division by a Python number."""
    return g / y


def denominator(xp: Namespace, g: Array, y: Array, out: Array, /) -> Array:
    """Pull back to a denominator."""
    return -strong_divide(xp, strong_product(xp, g, out), y)


def _nothing(x: Any, y: Any, out: Any, /) -> tuple[Any, ...]:
    del x, y, out
    return ()


def _x(x: Any, y: Any, out: Any, /) -> tuple[Any, ...]:
    del y, out
    return (x,)


def _y(x: Any, y: Any, out: Any, /) -> tuple[Any, ...]:
    del x, out
    return (y,)


def _y_out(x: Any, y: Any, out: Any, /) -> tuple[Any, ...]:
    del x
    return (y, out)


OPERATORS = {
    "add": Arithmetic(operator.add, identity, _nothing, identity, _nothing, identity, identity),
    "sub": Arithmetic(operator.sub, identity, _nothing, negate, _nothing, identity, negate),
    "mul": Arithmetic(operator.mul, times, _y, times, _x, times, times, times_twice),
    "truediv": Arithmetic(operator.truediv, over, _y, denominator, _y_out, over_number, denominator),
}
