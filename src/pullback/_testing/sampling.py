"""The numbers of small arrays of any library: read into Python, summed exactly, and drawn in Python.

Only `check_pair` reads values, and only here.
"""

import cmath
import math
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from array_api_compat import array_namespace

from pullback._core.dtypes import is_dtype
from pullback._core.memory import place
from pullback._core.typing import Array

Numbers: TypeAlias = list[complex]
"""The entries of one array or of several, in order; those of real arrays have no imaginary part."""

LARGEST = 1e150
"""Bound on the numbers of a check: the sum of the products of two does not overflow."""


def read_numbers(*arrays: Array) -> Numbers:
    """Return the entries of arrays, which are computed if they are lazy."""
    numbers: Numbers = []
    for x in arrays:
        compute = getattr(x, "compute", None)
        done = x if compute is None else compute()
        flat = array_namespace(done).reshape(done, (-1,))
        # The standard has indexing alone, which is slow; many libraries also have tolist.
        entries = flat.tolist() if hasattr(flat, "tolist") else [flat[i] for i in range(flat.shape[0])]
        numbers += map(complex, entries)
    return numbers


def inner(x: Numbers, y: Numbers, /) -> float:
    """Return ``Re Σ conj(x) y``, rounded once; NaN if a term is not finite or the sum overflows."""
    try:
        return math.fsum(part for a, b in zip(x, y, strict=True) for part in (a.real * b.real, a.imag * b.imag))
    except (OverflowError, ValueError):
        return math.nan


def norm(x: Numbers, y: Numbers, /) -> float:
    """Return ``√Σ|x y|²``, the size of independent relative errors of 1 in the terms of the inner product."""
    return math.hypot(*(abs(a) * abs(b) for a, b in zip(x, y, strict=True)))


def draw_upstream(random: Random, like: Array, /) -> Array:
    """Draw standard normal numbers in the shape, dtype and device of an array.

    If an axis has an unknown size, numbers r and s are drawn for the other axes, and ``r x + s`` is returned, whose
    rows differ as those of the array do.
    """
    shape, known = _shape(like)
    normal = [_number(like, random.gauss(0.0, 1.0), random.gauss(0.0, 1.0)) for _ in range(math.prod(shape))]
    drawn = _put(normal, like, shape)
    return drawn if known else like * _put(_parts(random, like, len(normal)), like, shape) + drawn


def draw_tangent(random: Random, x: Array, numbers: Numbers, /) -> Array:
    """Draw a tangent in which each number is 1/4 to 3/4 of the array's own, in any direction.

    So a step of 1 does not cross zero, where many functions have a kink or the end of their domain. A number that is
    zero moves like one of the root mean square, if all sizes are known.
    """
    shape, known = _shape(x)
    if not known:
        return x * _put(_parts(random, x, math.prod(shape)), x, shape)
    typical = math.sqrt(inner(numbers, numbers) / max(len(numbers), 1)) or 1.0
    parts = _parts(random, x, len(numbers))
    return _put([part * (abs(number) or typical) for part, number in zip(parts, numbers, strict=True)], x, shape)


def _shape(x: Array, /) -> tuple[tuple[int, ...], bool]:
    """Return the shape of an array, with 1 for an unknown size; and whether all sizes are known."""
    shape = tuple(size if isinstance(size, int) else 1 for size in x.shape)
    return shape, all(isinstance(size, int) for size in x.shape)


def _parts(random: Random, like: Array, count: int, /) -> list[Any]:
    """Draw factors of absolute value 1/4 to 3/4, of either sign or, for a complex array, of any argument."""
    polar = [(random.uniform(0.25, 0.75), random.uniform(-math.pi, math.pi)) for _ in range(count)]
    if _is_complex(like):
        return [cmath.rect(size, angle) for size, angle in polar]
    return [math.copysign(size, angle) for size, angle in polar]


def _number(like: Array, real: float, imaginary: float, /) -> Any:  # noqa: ANN401 - a float or complex number
    return complex(real, imaginary) if _is_complex(like) else real


def _put(numbers: list[Any], like: Array, shape: tuple[int, ...], /) -> Array:
    """Return numbers as an array of the namespace, dtype and device of another."""
    xp = array_namespace(like)
    return xp.reshape(xp.asarray(numbers, dtype=like.dtype, **place(like)), shape)


def _is_complex(x: Array, /) -> bool:
    return is_dtype(array_namespace(x), x.dtype, "complex floating")


def best_step(measure: Callable[[float], tuple[float, float]], got: float, least: float, /) -> tuple[float, float]:
    """Return the central difference with the least error bound, and that bound.

    The error is that of rounding and that of the step. A step of 1 is exact for a map that is affine or quadratic in
    the input. Elsewhere, an error that falls with h² is a third of the change in the last halving. That change must
    have fallen as h² itself, since two differences can agree by chance. The bound is infinity if no step gives finite
    numbers.
    """
    h, change = 1.0, math.inf
    last, rounding = measure(h)
    if abs(last - got) <= rounding < math.inf:
        return last, rounding
    best = last, math.inf
    while h > least and not rounding >= best[1]:
        h /= 2
        value, rounding = measure(h)
        before, change = change, abs(value - last)
        if math.isnan(change):  # one of the two steps leaves the domain
            change = math.inf
        error = rounding + max(change, before / 4)
        if error < best[1]:
            best = value, error
        last = value
    return best
