"""The step of a central difference: its tolerance holds, and is least."""

import math

from pullback._testing.sampling import best_step


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
