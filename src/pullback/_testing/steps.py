"""The step of a central difference, found and not chosen."""

import math
from collections.abc import Callable


def best_step(measure: Callable[[float], tuple[float, float]], got: float, least: float, /) -> tuple[float, float]:
    """Return the central difference whose error, of rounding and of the step, is least; and that error.

    A step of 1 is exact for what is affine or quadratic in the input. Elsewhere, an error that falls with h² is three
    times smaller than the change from the step before. That change must have fallen as h² itself: two differences can
    agree by chance.
    """
    h, change = 1.0, math.inf
    last, rounding = measure(h)
    if abs(last - got) <= rounding:
        return last, rounding
    best = last, math.inf
    while h > least and not rounding >= best[1]:
        h /= 2
        value, rounding = measure(h)
        before, change = change, abs(value - last)
        error = rounding + max(change, before / 4)
        if error < best[1]:
            best = value, error
        last = value
    return best
