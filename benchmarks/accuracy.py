"""How far the float32 gradients of w and b are from float64, at every length of the batch."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import plain
from benchmarks.plain import Floats
from benchmarks.report import Row, Section
from pullback import affine_backward

SHAPES = ((64, 64), (32, 32), (16, 16), (64, 2), (4, 2), (64, 1), (1, 1))
# The powers of ten, and the lengths at which a sum changes its blocks: just before, at and just after.
LENGTHS = (
    *(1, 2, 10, 100, 255, 256, 257, 448, 511, 512, 513, 1000, 1023, 1024, 1025, 2047, 2048, 2049),
    *(4095, 10_000, 16_383, 16_384, 16_385, 100_000, 250_001, 1_000_000, 3_000_001, 10_000_000),
)
BOUND, LONG_BOUND, LONG = 1e-6, 3e-7, 100_000
_CHUNK = 2**16
# The largest error of one draw is luck: of short batches, so many rows in all are drawn.
_DRAWN = 20_000
_MOST_DRAWS = 8


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield one table for each (k, n)."""
    lengths = [m for m in LENGTHS if not quick or m <= 10**6]
    for k, n in SHAPES:
        yield Section(
            name=f"accuracy {k} x {n}",
            title=f"Accuracy, float32, k = {k}, n = {n}: max |x − ref| / max |ref|, ref in float64",
            columns=("m", "dw", "NumPy", "PyTorch", "db", "NumPy", "PyTorch", "bound"),
            rows=_rows(k, n, lengths),
            length=len(lengths),
        )


def _rows(k: int, n: int, lengths: list[int]) -> Iterator[Row]:
    """Measure batches cut from one long batch: the worst of several where they are short."""
    all_da, all_z, w, _ = plain.inputs((max(lengths),), k, n)
    for m in lengths:
        draws = range(min(max(_DRAWN // m, 1), _MOST_DRAWS))
        errors = np.max([_errors(all_da[i * m : (i + 1) * m], all_z[i * m : (i + 1) * m], w) for i in draws], axis=0)
        bound = LONG_BOUND if m >= LONG else BOUND
        cells = (f"{m:,}", *(f"{error:.1e}" for error in errors), f"≤ {bound:.0e}")
        yield Row(cells, holds=bool(max(errors[0], errors[3]) <= bound))


def _errors(da: Floats, z: Floats, w: Floats) -> list[float]:
    """Return the errors of dw (ours, NumPy's and PyTorch's) and of db."""
    _, dw, db = affine_backward(da, z, w, wrt=("w", "b"))
    torch_da, torch_z = torch.from_numpy(da), torch.from_numpy(z)
    dw_ref, db_ref = _reference(da, z)
    dw_errors = [_error(x, dw_ref) for x in (dw, z.T @ da, torch_z.T @ torch_da)]
    return dw_errors + [_error(x, db_ref) for x in (db, da.sum(axis=0), torch_da.sum(0))]


def _reference(da: Floats, z: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum in float64, chunk by chunk: a long batch in float64 would not fit in memory."""
    dw, db = np.zeros((z.shape[1], da.shape[1])), np.zeros(da.shape[1])
    for start in range(0, len(da), _CHUNK):
        da_chunk, z_chunk = (x[start : start + _CHUNK].astype(np.float64) for x in (da, z))
        dw += z_chunk.T @ da_chunk
        db += da_chunk.sum(axis=0)
    return dw, db


def _error(x: object, ref: NDArray[np.float64]) -> float:
    """Return ``max |x − ref| / max |ref|``."""
    return float(np.max(np.abs(np.asarray(x) - ref)) / np.max(np.abs(ref)))
