"""What the pair allocates besides its results, and what its peers do."""

import gc
import tracemalloc
from collections.abc import Callable, Collection, Iterator
from functools import partial

from benchmarks import resident
from benchmarks.peers import OURS, Call, Floats, apart, forward, inputs, makers
from benchmarks.report import Row, Section
from pullback import affine_backward, affine_forward

BATCHES = (((100_000,), 64, 64), ((64, 512), 256, 256))
MOST = 1.1
ROWS, K, N = 1_000_000, 64, 64


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:  # noqa: ARG001 - memory is exact at once
    """Yield the tables of memory."""
    if not apart(peers):
        yield Section(
            name="memory",
            title="Memory on NumPy, float32: peak of what a call allocates / size of its results",
            columns=("z · w", "", "results, MiB", "ours", "plain", "bound"),
            rows=_rows(),
            length=2 * len(BATCHES),
        )
    yield Section(
        name="resident",
        title=f"Peak resident memory of forward and backward in a process of its own, {(ROWS, K, N)}, float32 / size "
        "of the results",
        columns=("library", "peak, MiB", "peak / results", "bound"),
        rows=_resident(peers),
        length=len(makers(peers)),
    )


def _rows() -> Iterator[Row]:
    """Measure forward and backward, to the byte."""
    for batch, k, n in BATCHES:
        da, z, w, b = inputs(batch, k, n)
        calls: dict[str, tuple[Call, Call]] = {
            "forward": (partial(affine_forward, z, w, b), partial(forward, z, w, b)),
            "backward": (partial(affine_backward, da, z, w), partial(_plain_backward, da, z, w)),
        }
        for name, (ours, theirs) in calls.items():
            size, peak = peak_of(ours)
            plain_size, plain_peak = peak_of(theirs)
            # For an N-d batch a (batch, k, n) temporary is half the size of the results: the bound shows that none is.
            ratios = f"{peak / size:.2f}", f"{plain_peak / plain_size:.2f}"
            cells = (f"{(*batch, k)} · {(k, n)}", name, f"{size / 2**20:.1f}", *ratios, f"≤ {MOST}")
            yield Row(cells, holds=peak <= MOST * size)


def _resident(peers: Collection[str]) -> Iterator[Row]:
    """Measure each library in a process of its own, for not all of them can be asked what they allocate."""
    size = 4 * (ROWS * (K + N) + K * N + N)
    for name in makers(peers):
        peak = resident.peak(_both, peers, name)
        bound, holds = (f"≤ {MOST}", peak <= MOST * size) if name == OURS else ("none", None)
        yield Row((name, f"{peak / 2**20:.0f}", f"{peak / size:.2f}", bound), holds=holds)


def _both(peers: Collection[str], name: str) -> Call:
    """Return forward and backward of a library that has been called before, on little: some keep what they have had."""
    make = makers(peers)[name]
    make(*inputs((1,), K, N)).both()
    call: Call = make(*inputs((ROWS,), K, N)).both
    gc.collect()
    return call


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
