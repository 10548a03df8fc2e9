"""What the pair allocates besides its results."""

import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import plain
from benchmarks.plain import Floats
from benchmarks.report import Row, Section
from pullback import affine_backward, affine_forward

BATCHES = (((100_000,), 64, 64), ((64, 512), 256, 256))
MOST = 1.1


def sections(*, quick: bool) -> Iterator[Section]:  # noqa: ARG001 - memory is exact at once
    """Yield the table of memory."""
    yield Section(
        name="memory",
        title="Memory on NumPy, float32: peak of what a call allocates / size of its results",
        columns=("z · w", "", "results, MiB", "ours", "plain", "bound"),
        rows=_rows(),
        length=2 * len(BATCHES),
    )


def _rows() -> Iterator[Row]:
    """Measure forward and backward."""
    for batch, k, n in BATCHES:
        da, z, w, b = plain.inputs(batch, k, n)
        calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "forward": (partial(affine_forward, z, w, b), partial(plain.forward, z, w, b)),
            "backward": (partial(affine_backward, da, z, w), partial(_plain_backward, da, z, w)),
        }
        for name, (ours, theirs) in calls.items():
            size, peak = peak_of(ours)
            plain_size, plain_peak = peak_of(theirs)
            # For an N-d batch a (batch, k, n) temporary is half the size of the results: the bound shows that none is.
            ratios = f"{peak / size:.2f}", f"{plain_peak / plain_size:.2f}"
            cells = (f"{(*batch, k)} · {(k, n)}", name, f"{size / 2**20:.1f}", *ratios, f"≤ {MOST}")
            yield Row(cells, holds=peak <= MOST * size)


def _plain_backward(da: Floats, z: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the gradients for any batch as they are often written: products of each batch entry, added up."""
    axes = tuple(range(z.ndim - 2))
    return da @ w.T, (z.mT @ da).sum(axis=axes), da.sum(axis=(*axes, z.ndim - 2))


def peak_of(call: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes of the results of `call`, and the most that it held at any time, the results among them."""
    # What a first call imports or keeps is not the cost of a call.
    call()
    tracemalloc.start()
    try:
        results = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = results if isinstance(results, tuple) else (results,)
    return sum(x.nbytes for x in arrays), peak
