"""Exact sums, drawn arrays, and the step of a central difference: its error bound holds, and is least."""

import math
from random import Random

import numpy as np

from pullback._testing.sampling import best_step, draw_tangent, draw_upstream, inner, norm, read_numbers
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS


def test_inner_product_is_exact_or_nan() -> None:
    assert inner([1e16, 1.0, -1e16], [1.0, 1.0, 1.0]) == 1.0
    assert inner([1j, 2.0], [1j, 1j]) == 1.0
    assert norm([3j, 2.0], [1.0, -2.0]) == 5.0
    assert math.isnan(inner([math.inf, math.inf], [1.0, -1.0]))
    assert math.isnan(inner([1e308, 1e308], [1.0, 1.0]))


def test_drawn_arrays(backend: Backend, dtype: str) -> None:
    """A tangent moves a number by a part of it; by a part of the usual size where it is 0, if the sizes are known."""
    x = np.where(np.arange(15) % 4 == 0, 0.0, np.arange(15)).reshape(5, 3)
    held = backend.rows(x, dtype)
    random = Random(3)  # noqa: S311 - not for secrets
    upstream, tangent = draw_upstream(random, held), draw_tangent(random, held, read_numbers(held))
    for drawn in (upstream, tangent):
        assert drawn.dtype == held.dtype
        assert backend.numpy(drawn).shape == x.shape
    assert len(np.unique(np.abs(backend.numpy(upstream)))) == x.size - (backend.mode == "unknown rows")
    usual = 0.0 if backend.mode == "unknown rows" else math.sqrt(np.mean(x**2))
    size, unit = np.abs(backend.numpy(tangent)), np.where(x == 0, usual, x)
    assert np.all((size >= 0.25 * unit * (1 - EPS[dtype])) & (size <= 0.75 * unit * (1 + EPS[dtype])))


def test_step_is_halved_until_its_error_is_that_of_rounding() -> None:
    """The error of a step of h is h²: with rounding of 1e-12/h, the least sum is of some (1e-12)^(2/3) = 1e-8."""
    value, tolerance = best_step(lambda h: (1 + h * h, 1e-12 / h), 1.0, 1e-16)
    assert abs(value - 1) <= tolerance / 3 <= 1e-8


def test_step_of_one_will_do_for_what_is_linear() -> None:
    assert best_step(lambda h: (2.0, 1e-12 / h), 2.0, 1e-16) == (2.0, 1e-12)
    value, tolerance = best_step(lambda h: (2.0, 1e-12 / h), 1.0, 1e-16)
    assert (value, tolerance) == (2.0, 4e-12)


def test_steps_that_agree_by_chance() -> None:
    """Two differences of 5, and then what tends to 3 with h²."""
    value, tolerance = best_step(lambda h: (5.0 if h in (0.5, 0.25) else 3 + h * h, 1e-12 / h), 3.0, 1e-16)
    assert abs(value - 3) <= tolerance <= 1e-7


def test_step_beyond_the_domain() -> None:
    """Where nothing near is a number, no tolerance is."""
    value, tolerance = best_step(lambda h: (math.nan, 1e-12 / h), 3.0, 1e-4)
    assert math.isnan(value)
    assert tolerance == math.inf
