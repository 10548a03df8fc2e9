"""The files that the command reads: NumPy's and Zarr's, opened block by block."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NpyFile:
    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        start, stop, _ = key[0].indices(self.shape[0])
        from math import prod

        return np.asarray(
            np.memmap(
                self.path,
                self.dtype,
                "r",
                self.offset + start * self.dtype.itemsize * prod(self.shape[1:]),
                (stop - start, *self.shape[1:]),
            )
        )


def open_npy(path: Path, /) -> NpyFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return NpyFile(path, array.shape, array.dtype, array.offset)
