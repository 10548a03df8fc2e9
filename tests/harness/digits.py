"""Relative errors in units of eps, against the same code on numbers of 50 digits.

The package `mparray` is the array API on mpmath: a function of this package runs on its arrays as on any others, so
each value has an oracle that differs from it in nothing but rounding. Formulas are other tests' concern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mparray
import mpmath
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.backend import Backend  # which the benchmarks do without

DIGITS = 50


@dataclass(frozen=True)
class Errors:
    """Values, the exact ones beside them, and their relative errors in units of the dtype's eps."""

    got: Any
    exact: Any
    eps: Any

    def worst(self) -> float:
        """Return the largest error."""
        return float(np.max(self.eps, initial=0.0))


def exact(function: Callable[..., Any], /, *arrays: Any) -> Any:
    """Call a function on 50-digit arrays; returns mpmath numbers in NumPy arrays of objects."""
    with mpmath.workdps(DIGITS):
        return _objects(function(*(mparray.asarray(np.asarray(x, "float64")) for x in arrays)))


def errors(backend: Backend, dtype: str, function: Callable[..., Any], /, *arrays: Any) -> Errors:
    """Return the errors of a function's first output on a backend; the arrays are rounded to `dtype` before."""
    held = [backend.asarray(x, dtype) for x in arrays]
    got = backend.numpy(_first(backend.call(function, *held)))
    return compared(got, exact(function, *map(backend.numpy, held)), dtype)


def compared(got: Any, right: Any, dtype: str) -> Errors:
    """Return the errors of a NumPy array where the exact value is a normal number, and 0 elsewhere."""
    info = np.finfo(dtype)
    got = np.asarray(got, "float64")
    with mpmath.workdps(DIGITS):
        eps = [
            float(abs(mpmath.mpf(x) - y) / abs(y) / float(info.eps)) if float(info.tiny) <= abs(y) <= info.max else 0.0
            for x, y in zip(got.ravel().tolist(), right.ravel(), strict=True)
        ]
    return Errors(got, right, np.reshape(eps, got.shape))


def grid(dtype: str, *, most: float, count: int = 200) -> Any:
    """Return numbers of both signs from nearly the smallest normal one to `most`, dense about 1, and 0."""
    sizes = np.concatenate(
        [
            np.geomspace(4 * float(np.finfo(dtype).tiny), 1e-3, count // 4),
            np.linspace(1e-3, 8, count // 2),
            np.linspace(8, most, count // 4),
        ]
    )
    return np.concatenate([-sizes[::-1], [0.0], sizes]).astype(dtype)


def _first(x: Any) -> Any:
    return x[0] if isinstance(x, tuple) else x


def _objects(x: Any) -> Any:
    return np.asarray(_first(x)._data, dtype=object)  # noqa: SLF001 - NumPy's conversion would round to float64
