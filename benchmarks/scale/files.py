"""Files to measure on, and a stopwatch."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Sums = tuple[Floats, Floats]

K, N = 128, 64
ROW_BYTES = 4 * (K + N)


def write_npy(path: Path, rows: int, features: int) -> Path:
    """Write random rows."""
    fill(np.lib.format.open_memmap(path, "w+", np.float32, (rows, features)), _random(features))
    return path


def write_zarr(path: Path, rows: int, features: int) -> None:
    """Write random rows."""
    fill(new_zarr(path, (rows, features), 8 * 2**20 // ROW_BYTES), _random(features))


def new_zarr(path: Path, shape: tuple[int, int], chunk: int) -> Any:
    """Make a Zarr array whose bytes on disk are those of its numbers."""
    return zarr.create_array(path, shape=shape, chunks=(chunk, shape[1]), dtype="f4", compressors=None)


def _random(features: int) -> Floats:
    """Draw some rows."""
    return np.random.default_rng(0).random((10_007, features), dtype=np.float32)


def fill(array: Any, some: Floats) -> None:
    """Fill an array on disk with some rows, over and over."""
    step = len(some) * max(1, 64 * 2**20 // some.nbytes)
    many = np.resize(some, (step, some.shape[1]))
    for start in range(0, array.shape[0], step):
        array[start : start + step] = many[: array.shape[0] - start]


def seconds(call: Callable[[], object]) -> float:
    """Return the time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
