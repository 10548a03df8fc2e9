"""How fast the pair is on NumPy, beside the plain expressions."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from benchmarks import plain
from benchmarks.report import Row, Section
from benchmarks.timing import ratio
from pullback import affine_backward, affine_forward

Call = Callable[[], object]
Bounds = dict[tuple[int, int, int], float]

# Bounds for the plain time divided by ours, where they are not the usual one.
USUAL = 0.95
FORWARD: Bounds = {(1_000_000, 64, 64): 1.2}
BACKWARD: Bounds = {(1_000_000, 16, 16): 1.5, (2_000_000, 4, 2): 2.5}
SHAPES = (
    (256, 64, 64),
    (512, 64, 64),
    (1024, 64, 64),
    (4096, 64, 64),
    (1024, 256, 256),
    (4096, 256, 256),
    (8192, 128, 128),
    (8192, 512, 512),
    (8192, 1024, 1024),
    (1_000_000, 64, 64),
    (1_000_000, 16, 16),
    (2_000_000, 4, 2),
)
BATCH, K, N = (64, 512), 256, 256
MOST = 1.1
SMALL = 8
MOST_SMALL = 3.0


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield the tables of speed."""
    columns = ("", "lower quartile", "median", "upper quartile", "bound")
    yield Section(
        name="speed",
        title="Speed on NumPy, float32: time of the plain expressions / ours, medians of interleaved runs",
        columns=("(m, k, n)", *columns),
        rows=_rows(quick=quick),
        length=2 * len(SHAPES),
    )
    yield Section(
        name="batches",
        title=f"N-d batch {(*BATCH, K)} · {(K, N)}, float32: our time / the flattened product's",
        columns=("", "flattened", *columns[1:]),
        rows=_nd_rows(quick=quick),
        length=4,
    )
    yield Section(
        name="small",
        title=f"Small call, {SMALL} × {SMALL}, float32: our time / time of the plain expressions",
        columns=columns,
        rows=_small_rows(quick=quick),
        length=1,
    )


def _rows(*, quick: bool) -> Iterator[Row]:
    """Compare 2-d batches with the plain expressions."""
    for m, k, n in SHAPES:
        da, z, w, b = plain.inputs((m,), k, n)
        _check(affine_forward(z, w, b), plain.forward(z, w, b))
        _check_all(affine_backward(da, z, w), plain.backward(da, z, w))
        calls: dict[str, tuple[Call, Call, Bounds]] = {
            "forward": (partial(plain.forward, z, w, b), partial(affine_forward, z, w, b), FORWARD),
            "backward": (partial(plain.backward, da, z, w), partial(affine_backward, da, z, w), BACKWARD),
        }
        for name, (theirs, ours, bounds) in calls.items():
            bound = bounds.get((m, k, n), USUAL)
            times = ratio(theirs, ours, bound, quick=quick)
            cells = (f"({m:,}, {k}, {n})", name, *(f"{x:.2f}" for x in times), f"≥ {bound}")
            yield Row(cells, holds=times.median >= bound)


def _nd_rows(*, quick: bool) -> Iterator[Row]:
    """Compare an N-d batch with the same rows as a matrix."""
    da, z, w, b = plain.inputs(BATCH, K, N)
    flat_da, flat_z = da.reshape(-1, N), z.reshape(-1, K)
    _check(affine_forward(z, w, b), plain.forward(flat_z, w, b))
    _check_all(affine_backward(da, z, w), plain.backward(flat_da, flat_z, w))
    pairs: dict[tuple[str, str], tuple[Call, Call]] = {
        ("forward", "plain"): (partial(affine_forward, z, w, b), partial(plain.forward, flat_z, w, b)),
        ("forward", "ours"): (partial(affine_forward, z, w, b), partial(affine_forward, flat_z, w, b)),
        ("backward", "plain"): (partial(affine_backward, da, z, w), partial(plain.backward, flat_da, flat_z, w)),
        ("backward", "ours"): (partial(affine_backward, da, z, w), partial(affine_backward, flat_da, flat_z, w)),
    }
    for names, (ours, theirs) in pairs.items():
        times = ratio(ours, theirs, MOST, quick=quick)
        yield Row((*names, *(f"{x:.2f}" for x in times), f"≤ {MOST}"), holds=times.median <= MOST)


def _small_rows(*, quick: bool) -> Iterator[Row]:
    """Compare a forward and a backward on tiny matrices, where the checks of the arguments show."""
    da, z, w, b = plain.inputs((SMALL,), SMALL, SMALL)

    def theirs() -> None:
        plain.forward(z, w, b)
        plain.backward(da, z, w)

    def ours() -> None:
        affine_forward(z, w, b)
        affine_backward(da, z, w)

    times = ratio(ours, theirs, MOST_SMALL, quick=quick)
    cells = ("forward + backward", *(f"{x:.2f}" for x in times), f"≤ {MOST_SMALL}")
    yield Row(cells, holds=times.median <= MOST_SMALL)


def _check_all(ours: Iterable[object], theirs: Iterable[plain.Floats]) -> None:
    """Check each array of two results."""
    for x, y in zip(ours, theirs, strict=True):
        _check(x, y)


def _check(ours: object, theirs: plain.Floats) -> None:
    """Refuse to time two calls that do not compute the same."""
    # The plain sums are the inaccurate side: on long batches they are wrong in the third digit.
    np.testing.assert_allclose(np.reshape(np.asarray(ours), theirs.shape), theirs, rtol=2e-2)
