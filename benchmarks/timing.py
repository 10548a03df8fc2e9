"""Times of calls that take turns, and what may be said of two of them."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from timeit import Timer
from typing import NamedTuple

import numpy as np

Call = Callable[[], object]

# A sample is a loop of calls that takes at least this long, so that the clock and a switch of tasks weigh little.
_SAMPLE_SECONDS = 5e-3
# The threads of a library wait for more work before they sleep, and would slow the next one's sample.
_PAUSE_SECONDS = 0.03


class Ratio(NamedTuple):
    """Quartiles of the ratio of two times, over samples taken in the same round."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """Write the median and the quartiles; with a mark where these do not tell which of the two is less."""
        equal = "= " if self.low <= 1 <= self.high else ""
        return f"{equal}{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Bound(NamedTuple):
    """What the time of one call divided by the time of another is to be compared with."""

    above: str
    below: str
    value: float


class Times(dict[str, list[float]]):
    """Seconds that each call took in each round."""

    def median(self, name: str) -> float:
        """Return the median of a call."""
        return float(np.median(self[name]))

    def ratio(self, above: str, below: str) -> Ratio:
        """Return the time of a call divided by that of another."""
        return Ratio(*map(float, np.quantile(np.divide(self[above], self[below]), (0.25, 0.5, 0.75))))

    def clear(self, bound: Bound) -> bool:
        """Whether the median of a ratio is clear of a bound, by a 95 % interval."""
        low, median, high = self.ratio(bound.above, bound.below)
        # The notch of a box plot (McGill, Tukey and Larsen 1978).
        return abs(median - bound.value) > 1.57 * (high - low) / math.sqrt(len(self[bound.above]))


def interleave(
    calls: Mapping[str, Call], bounds: Collection[Bound] = (), *, quick: bool = False, pause: float = _PAUSE_SECONDS
) -> Times:
    """Time calls in rounds of one sample each, so that whatever else the machine does hits all of them.

    The rounds go on until the medians are clear of the bounds, or the time is used up; a few there are in any case.
    Calls of one library need no `pause`.
    """
    # Timer keeps the garbage collector off while it measures.
    timers = {name: Timer(call) for name, call in calls.items()}
    # A first call imports, or compiles, and says nothing of the next.
    once = {name: timer.repeat(2, 1)[1] for name, timer in timers.items()}
    loops = {
        name: 1 if seconds > 10 * _SAMPLE_SECONDS else math.ceil(_SAMPLE_SECONDS / min(timers[name].repeat(3, 1)))
        for name, seconds in once.items()
    }
    times = Times({name: [] for name in calls})
    fewest, usual, budget = (3, 7, 1.0) if quick else (5, 9, 10.0)
    names, rng, start = list(calls), np.random.default_rng(0), time.perf_counter()
    while True:
        # Whoever comes after another may find a warmer cache, a slower clock or less memory: no two are neighbours in
        # each round, and what a first call has to wait for, as for memory that the system took back, is not counted.
        rng.shuffle(names)
        for name in names:
            time.sleep(pause)
            timers[name].timeit(-(-loops[name] // 4))
            times[name].append(timers[name].timeit(loops[name]) / loops[name])
        rounds, spent = len(times[names[0]]), time.perf_counter() - start
        if rounds >= fewest and (spent > budget or (rounds >= usual and all(map(times.clear, bounds)))):
            return times
