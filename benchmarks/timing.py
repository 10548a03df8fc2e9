"""Ratios of the times of two calls."""

import math
from collections.abc import Callable
from timeit import Timer
from typing import NamedTuple

import numpy as np

# A sample is a loop of calls that takes at least this long, so that the clock and a switch of tasks weigh little.
_SAMPLE_SECONDS = 5e-3


class Ratio(NamedTuple):
    """Quartiles of the ratio of two times, over pairs of samples taken one after the other."""

    low: float
    median: float
    high: float


def ratio(first: Callable[[], object], second: Callable[[], object], bound: float, /, *, quick: bool) -> Ratio:
    """Return the time of `first` divided by the time of `second`.

    The samples alternate, so that whatever else the machine does hits both. They go on until the median is clear of
    `bound`, or the time is used up.
    """
    # Timer keeps the garbage collector off while it measures.
    timers = Timer(first), Timer(second)
    least, seconds = (7, 1.0) if quick else (15, 10.0)
    loops = [math.ceil(_SAMPLE_SECONDS / min(timer.repeat(3, 1))) for timer in timers]
    ratios: list[float] = []
    spent = 0.0
    while True:
        # Whoever comes second may find a warmer cache or a slower clock: take turns.
        order = (0, 1) if len(ratios) % 2 else (1, 0)
        times = {i: timers[i].timeit(loops[i]) for i in order}
        spent += sum(times.values())
        ratios.append(times[0] / loops[0] / (times[1] / loops[1]))
        if len(ratios) < least:
            continue
        low, median, high = (float(x) for x in np.quantile(ratios, (0.25, 0.5, 0.75)))
        # The notch of a box plot (McGill, Tukey and Larsen 1978): a 95 % interval for the median.
        if abs(median - bound) > 1.57 * (high - low) / math.sqrt(len(ratios)) or spent > seconds:
            return Ratio(low, median, high)
