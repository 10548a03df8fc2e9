"""A guard against regressions: the pair beside NumPy's plain expressions, and what the committed run shows for that."""

import math
from collections.abc import Collection, Iterator

import numpy as np

from benchmarks import saved
from benchmarks.affine import DOUBLE, SHAPES
from benchmarks.peers import OURS, PLAIN, Calls, inputs, load
from benchmarks.report import Row, Section, sizes
from benchmarks.timing import Bound, interleave

# Machines differ, and this one may have other work to do: half of what was is still no regression.
PART = 0.5
# The largest batches take longer than all others together, and have no code of their own.
MOST = 2**30


def sections(_peers: Collection[str], *, quick: bool) -> Iterator[Section]:  # noqa: ARG001 - it is always quick
    """Yield a table for each dtype."""
    for dtype, known in ((np.float32, SHAPES), (np.float64, DOUBLE)):
        shown = {
            (row["(m, k, n)"], row[""]): float(row[PLAIN].removeprefix("= ").split()[0])
            for row in saved.rows("affine", f"affine {dtype.__name__}")
        }
        shapes = [shape for shape in known if math.prod(shape) <= MOST]
        yield Section(
            name=f"guard {dtype.__name__}",
            title=f"{dtype.__name__}: time of the plain expressions / ours, now and in the committed run",
            columns=("(m, k, n)", "", "now", "committed", "bound"),
            rows=_rows(shapes, dtype, shown),
            length=len(shapes) * len(Calls._fields),
        )


def _rows(
    shapes: list[tuple[int, int, int]], dtype: type[np.floating], shown: dict[tuple[str, str], float]
) -> Iterator[Row]:
    """Measure the smaller shapes."""
    for m, k, n in shapes:
        called = load((), *inputs((m,), k, n, dtype))
        name = sizes(m, k, n)
        for direction in Calls._fields:
            before = shown[name, direction]
            bound = Bound(PLAIN, OURS, PART * before)
            calls = {x: getattr(call, direction) for x, call in called.items()}
            times = interleave(calls, [bound], quick=True, pause=0.0)  # both call NumPy's BLAS
            now = times.ratio(PLAIN, OURS)
            cells = (name, direction, str(now), f"{before:.2f}", f"≥ {bound.value:.2f}")
            # On a machine with other work to do the median may be anywhere; a regression moves the quartiles, too.
            yield Row(cells, holds=now.high >= bound.value)
