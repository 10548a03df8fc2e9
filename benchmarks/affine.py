"""How fast the affine pair is: beside its peers, and beside what the machine can do at all."""

import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from statistics import geometric_mean
from typing import Any

import numpy as np

from benchmarks.peers import OURS, PLAIN, Calls, Floats, apart, backward, forward, inputs, load, makers
from benchmarks.report import Row, Section, duration, sizes
from benchmarks.timing import Bound, Call, Ratio, Times, interleave
from pullback import affine_backward, affine_forward

Shape = tuple[int, int, int]
# The ratios of each peer, with their shapes.
Ratios = dict[str, list[tuple[Shape, Ratio]]]

SMALL = (8, 8, 8)
SHAPES: tuple[Shape, ...] = (
    SMALL,
    (1000, 16, 16),
    (256, 64, 64),
    (400, 64, 64),
    (512, 64, 64),
    (1024, 64, 64),
    (1500, 64, 64),
    (4096, 64, 64),
    (10_000, 64, 64),
    (1024, 256, 256),
    (4096, 256, 256),
    (8192, 128, 128),
    (8192, 512, 512),
    (8192, 1024, 1024),
    (65_536, 512, 512),
    (1_000_000, 64, 64),
    (1_000_000, 16, 16),
    (2_000_000, 4, 2),
    (10_000_000, 16, 16),
)
# In float64 the largest take a quarter of an hour, and are the BLAS's affair alone.
DOUBLE = tuple(shape for shape in SHAPES[::2] if math.prod(shape) < 2**33)
# The time of the plain expressions is to be at least so many times ours.
USUAL = 0.95
FASTER = {
    (np.float32, "forward", (1_000_000, 64, 64)): 1.2,
    (np.float32, "backward", (1_000_000, 16, 16)): 1.5,
    (np.float32, "backward", (2_000_000, 4, 2)): 2.5,
}
# The time of a peer, by the geometric mean over all shapes, dtypes and directions.
MEANS = {PLAIN: 1.2, "PyTorch": 1.2}
# The time of a peer where every matrix is 8 × 8, forward and backward.
SMALL_BOUNDS = {PLAIN: 1 / 3, "PyTorch": 3.0, "HIPS autograd": 8.0, "advect": 8.0}
# What the machine has to do at least: the bare products, and to move the bytes.
LIMITS = ("products", "copy")
# Our time is to be at most so many times the greater limit's, from so many multiplications on.
NEAR, LARGE = 1.15, 2**30
# Where the upper quartile is more times the lower one, a library's threads waited for a core: no mean counts that.
STEADY = 4.0
BATCH, K, N = (64, 512), 256, 256
MOST = 1.1


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield the tables of speed."""
    ratios: Ratios = {}
    names = list(makers(peers))[1:]
    for dtype, known in ((np.float32, SHAPES), (np.float64, DOUBLE)):
        shapes = tuple(shape for shape in known if not quick or shape[0] <= 10**6)
        yield Section(
            name=f"affine {dtype.__name__}",
            title=f"{dtype.__name__}: our time, our time / the limit's, and the time of each peer / ours, by medians "
            "of interleaved runs (and quartiles; = where they do not tell which is less)",
            columns=("(m, k, n)", "", "ours", "limit", *names, "bounds"),
            rows=_rows(peers, dtype, shapes, ratios, quick=quick),
            length=3 * len(shapes),
        )
    yield Section(
        name="means",
        title="Geometric mean over all shapes, dtypes and directions: time of a peer / ours; without ratios whose "
        f"quartiles differ by more than {STEADY:g} times, which are not counted",
        columns=("peer", "mean", f"without {SMALL[0]} × {SMALL[0]}", "least", "most", "not counted", "bound"),
        rows=_means(ratios, {} if apart(peers) else MEANS),
        length=len(names),
    )
    columns = ("lower quartile", "median", "upper quartile", "bound")
    yield Section(
        name="small",
        title=f"Matrices of {SMALL[0]} × {SMALL[0]}, float32, forward and backward: time of a peer / ours",
        columns=("peer", *columns),
        rows=_small(peers, quick=quick),
        length=len(names),
    )
    if not apart(peers):
        yield Section(
            name="batches",
            title=f"N-d batch {(*BATCH, K)} · {(K, N)}, float32: our time / the flattened product's",
            columns=("", "flattened", *columns),
            rows=_nd_rows(quick=quick),
            length=4,
        )


def _rows(
    peers: Collection[str], dtype: type[np.floating[Any]], shapes: tuple[Shape, ...], ratios: Ratios, *, quick: bool
) -> Iterator[Row]:
    """Compare 2-d batches with each peer, and with the limits."""
    for shape in shapes:
        m, k, n = shape
        da, z, w, b = inputs((m,), k, n, dtype)
        called = load(peers, da, z, w, b)
        _check(called, dtype)
        for direction in Calls._fields:
            calls = {name: getattr(call, direction) for name, call in called.items()}
            usual = Bound(PLAIN, OURS, FASTER.get((dtype, direction, shape), USUAL))
            bounds = [] if shape == SMALL else [usual]
            times = interleave(calls | _limits(direction, da, z, w), bounds, quick=quick)
            yield _row(shape, direction, times, bounds, ratios)


def _row(shape: Shape, direction: str, times: Times, bounds: list[Bound], ratios: Ratios) -> Row:
    """Write a line, and note its ratios for the means."""
    beside = {name: times.ratio(name, OURS) for name in times if name != OURS and name not in LIMITS}
    for name, ratio in beside.items():
        ratios.setdefault(name, []).append((shape, ratio))
    limit = max(LIMITS, key=times.median)
    far = times.ratio(OURS, limit)
    kept = [times.ratio(bound.above, bound.below).median >= bound.value for bound in bounds]
    written = [f"{bound.above} ≥ {bound.value}" for bound in bounds]
    m, k, n = shape
    if m * k * n >= LARGE or m >= 10**6:
        kept.append(far.median <= NEAR)
        written.append(f"limit ≤ {NEAR}")
    cells = (sizes(*shape), direction, duration(times.median(OURS)), f"{far.median:.2f} ({limit})")
    return Row((*cells, *map(str, beside.values()), "; ".join(written) or "none"), holds=all(kept) if kept else None)


def _limits(direction: str, da: Floats, z: Floats, w: Floats) -> dict[str, Call]:
    """Return what takes each of the limits."""
    products: list[Call] = []
    moved = []
    if direction != "backward":
        products.append(lambda: z @ w)
        moved += [z, da]
    if direction != "forward":
        products += [lambda: da @ w.T, lambda: z.T @ da]
        moved += [da, z, z]
    # A copy reads as much as it writes.
    some = np.ones(sum(x.size for x in moved) // 2, z.dtype)
    return dict(zip(LIMITS, (lambda: [product() for product in products], some.copy), strict=True))


def _means(ratios: Ratios, bounds: dict[str, float]) -> Iterator[Row]:
    """Average what the tables above have shown."""
    for name, found in ratios.items():
        steady = [(shape, ratio.median) for shape, ratio in found if ratio.high <= STEADY * ratio.low]
        medians = [median for _, median in steady]
        larger = [median for shape, median in steady if shape != SMALL]
        mean = geometric_mean(medians)
        bound = bounds.get(name)
        numbers = (mean, geometric_mean(larger), min(medians), max(medians))
        left = f"{len(found) - len(steady)} of {len(found)}"
        cells = (name, *(f"{x:.2f}" for x in numbers), left, f"≥ {bound}" if bound else "none")
        yield Row(cells, holds=None if bound is None else mean >= bound)


def _small(peers: Collection[str], *, quick: bool) -> Iterator[Row]:
    """Compare a forward and a backward on tiny matrices, where what surrounds the arithmetic shows."""
    m, k, n = SMALL
    calls = {name: call.both for name, call in load(peers, *inputs((m,), k, n)).items()}
    bounds = [Bound(name, OURS, SMALL_BOUNDS[name]) for name in calls if name in SMALL_BOUNDS]
    times = interleave(calls, bounds, quick=quick)
    for name in calls:
        if name == OURS:
            continue
        ratio, bound = times.ratio(name, OURS), SMALL_BOUNDS.get(name)
        cells = (name, *(f"{x:.2f}" for x in ratio), f"≥ {bound:.2f}" if bound else "none")
        yield Row(cells, holds=None if bound is None else ratio.median >= bound)


def _nd_rows(*, quick: bool) -> Iterator[Row]:
    """Compare an N-d batch with the same rows as a matrix."""
    da, z, w, b = inputs(BATCH, K, N)
    flat_da, flat_z = da.reshape(-1, N), z.reshape(-1, K)
    directions: dict[str, dict[str, Call]] = {
        "forward": {
            OURS: partial(affine_forward, z, w, b),
            "by NumPy": partial(forward, flat_z, w, b),
            "by ours": partial(affine_forward, flat_z, w, b),
        },
        "backward": {
            OURS: partial(affine_backward, da, z, w),
            "by NumPy": partial(backward, flat_da, flat_z, w),
            "by ours": partial(affine_backward, flat_da, flat_z, w),
        },
    }
    for direction, calls in directions.items():
        flattened = [name for name in calls if name != OURS]
        times = interleave(calls, [Bound(OURS, name, MOST) for name in flattened], quick=quick)
        for name in flattened:
            ratio = times.ratio(OURS, name)
            yield Row((direction, name, *(f"{x:.2f}" for x in ratio), f"≤ {MOST}"), holds=ratio.median <= MOST)


def _check(called: Mapping[str, Calls], dtype: type[np.floating[Any]]) -> None:
    """Refuse to time calls that do not compute the same."""
    # Sums of float32 over long batches are wrong in the third digit, if they are added up naively.
    exact = 1e4 * np.finfo(dtype).eps
    tolerances = exact, exact, *((2e-2, 2e-2) if dtype == np.float32 else (exact, exact))
    expected = called[OURS].both()
    most = [tolerance * np.max(np.abs(x)) for tolerance, x in zip(tolerances, expected, strict=True)]
    for name, call in called.items():
        for results in (call.both(), (call.forward(), *call.backward())):
            for x, right, bound in zip(results, expected, most, strict=True):
                # numpy.testing would take longer than all that is timed.
                if not np.max(np.abs(np.asarray(x) - right)) <= bound:
                    msg = f"{name} does not compute what {OURS} does"
                    raise AssertionError(msg)
