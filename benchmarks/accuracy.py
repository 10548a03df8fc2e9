"""How far the float32 gradients of w and b are from float64, at every length of the batch, and how far the peers'."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Floats, Maker, inputs, makers
from benchmarks.report import Row, Section

# Each call returns dw and db.
Gradients = dict[str, Callable[[Floats, Floats, Floats, Floats], Any]]

SHAPES = ((64, 64), (64, 32), (32, 32), (16, 16), (64, 2), (4, 2), (64, 1), (1, 1))
# The powers of ten, and the lengths at which a sum changes its blocks: just before, at and just after.
LENGTHS = (
    *(1, 2, 10, 100, 255, 256, 257, 448, 511, 512, 513, 1000, 1023, 1024, 1025, 1536, 1537, 2047, 2048, 2049),
    *(4095, 8192, 8193, 10_000, 16_383, 16_384, 16_385, 100_000, 250_001, 1_000_000, 3_000_001, 10_000_000),
)
BOUND, LONG_BOUND, LONG = 1e-6, 3e-7, 100_000
# From here on no peer is to be nearer. Within a unit in the last place, the last rounding decides, which is luck.
AHEAD, UNIT = 10_000, 2.0**-23
# These compute the same as those beside them.
SAME = "PyTorch, no tape", "advect, staged"
_CHUNK = 2**16
# The largest error of one draw is luck: of short batches, so many rows in all are drawn.
_DRAWN = 20_000
_MOST_DRAWS = 8


def sections(peers: Collection[str], *, quick: bool) -> Iterator[Section]:
    """Yield one table for each (k, n)."""
    lengths = [m for m in LENGTHS if not quick or m <= 10**6]
    calls = _gradients(peers)
    for k, n in SHAPES:
        yield Section(
            name=f"accuracy {k} x {n}",
            title=f"float32, k = {k}, n = {n}: max |x − ref| / max |ref|, ref in float64, of dw and of db",
            columns=("m", *(f"{x}, {name}" for x in ("dw", "db") for name in calls), "bounds"),
            rows=_rows(calls, k, n, lengths),
            length=len(lengths),
        )


def _rows(calls: Gradients, k: int, n: int, lengths: list[int]) -> Iterator[Row]:
    """Measure batches cut from one long batch: the worst of several where they are short."""
    all_da, all_z, w, b = inputs((max(lengths),), k, n)
    for m in lengths:
        draws = range(min(max(_DRAWN // m, 1), _MOST_DRAWS))
        measured = [_errors(calls, all_da[i * m : (i + 1) * m], all_z[i * m : (i + 1) * m], w, b) for i in draws]
        errors = np.max(measured, axis=0)
        bound = LONG_BOUND if m >= LONG else BOUND
        kept = [*(errors[:, 0] <= bound)]
        written = f"≤ {bound:.0e}"
        if m >= AHEAD:
            kept += [ours <= max(min(others), UNIT) for ours, *others in errors]
            written += f"; ≤ each peer's or {UNIT:.1e}"
        yield Row((f"{m:,}", *(f"{error:.1e}" for error in errors.ravel()), written), holds=all(kept))


def _gradients(libraries: Collection[str]) -> Gradients:
    """Return what computes dw and db, ours first."""
    found: Gradients = {name: partial(_called, make) for name, make in makers(libraries).items() if name not in SAME}
    return found | {"Dask": _dask} if "dask" in libraries else found


def _called(make: Maker, *arrays: Floats) -> Any:
    """Call the backward."""
    return make(*arrays).backward()[1:]


def _dask(da: Floats, z: Floats, _w: Floats, _b: Floats) -> Any:
    """Compute plain Dask expressions."""
    import dask.array  # noqa: PLC0415 - a peer is loaded where it is asked for

    y, x = (dask.array.from_array(array, chunks=(_CHUNK, -1)) for array in (da, z))
    return dask.compute(x.T @ y, y.sum(axis=0))


def _errors(calls: Gradients, da: Floats, z: Floats, w: Floats, b: Floats) -> NDArray[np.float64]:
    """Return the errors of dw, ours and each peer's, and those of db."""
    references = reference(da, z)
    # One after the other: all their copies of a long batch would not fit into memory at once.
    errors = [[error(x, ref) for x, ref in zip(call(da, z, w, b), references, strict=True)] for call in calls.values()]
    return np.asarray(errors).T


def reference(da: Floats, z: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum in float64, chunk by chunk: a long batch in float64 would not fit in memory."""
    dw, db = np.zeros((z.shape[1], da.shape[1])), np.zeros(da.shape[1])
    for start in range(0, len(da), _CHUNK):
        da_chunk, z_chunk = (x[start : start + _CHUNK].astype(np.float64) for x in (da, z))
        dw += z_chunk.T @ da_chunk
        db += da_chunk.sum(axis=0)
    return dw, db


def error(x: object, ref: NDArray[np.float64]) -> float:
    """Return ``max |x − ref| / max |ref|``."""
    return float(np.max(np.abs(np.asarray(x) - ref)) / np.max(np.abs(ref)))
