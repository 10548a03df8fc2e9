"""The files that `pullback gradient` reads: arrays of NumPy and Zarr, some rows at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import dask.array as da
import numpy as np
import zarr
from numpy.lib import format as npy

from pullback._core.typing import Array, DaskArray, DType, ZarrArray
from pullback.dask._task import DeferredRows


@dataclass(frozen=True)
class File(ABC):
    """An array in a file. It holds no data, so that it travels to the workers of a cluster."""

    path: Path
    shape: tuple[int, ...]
    dtype: DType
    """In the byte order of this machine, which the file need not have."""

    @property
    def ndim(self) -> int:
        """Return the number of axes, which Dask asks for."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all of it in memory."""
        size: int = prod(self.shape) * self.dtype.itemsize
        return size

    @property
    def chunk_rows(self) -> int:
        """Return the rows that can only be read together."""
        return 1

    def gaps(self) -> str:
        """Say how much of the array is not stored; nothing where all is."""
        return ""

    def lazy(self, rows: int, /) -> DaskArray:
        """Return the array as one of Dask's, in blocks of so many rows, which may be `DeferredRows`."""
        return da.from_array(
            self,
            chunks=(rows, *(-1,) * (self.ndim - 1)),
            # Without a name, Dask would hash what it reads.
            name=f"{self.path.name}-{uuid4().hex}",
            # On a cluster each task has the path, and does not wait for another that holds it.
            inline_array=True,
            meta=np.empty((0,) * self.ndim, self.dtype),
        )

    @abstractmethod
    def __getitem__(self, key: tuple[slice, ...], /) -> Array | DeferredRows:
        """Return some rows, whole, as Dask asks for them."""

    def unreadable(self, start: int, stop: int, error: Exception, /) -> OSError:
        """Say which rows of which file: the libraries say what was wrong with some bytes, and never where these are."""
        return OSError(f"{self.path}: rows [{start}:{stop}] cannot be read: {str(error) or type(error).__name__}")


@dataclass(frozen=True)
class NpyFile(File):
    """An array in NumPy's format.

    It is read, not mapped into memory: a mapped file that becomes shorter kills the process, without an exception.
    """

    stored: DType
    offset: int
    columns_first: bool
    """In Fortran order, as the transposed array would be without."""

    def __getitem__(self, key: tuple[slice, ...], /) -> DeferredRows:
        """Return some rows, to be read in strips."""
        start, stop, _ = key[0].indices(self.shape[0])
        return DeferredRows((stop - start, *self.shape[1:]), self.dtype, partial(self.opened, start, stop))

    @contextmanager
    def opened(self, first: int, last: int, /) -> Iterator[Callable[..., Any]]:
        """Open the file, and give a function that reads some of these rows; as often as a task has strips."""
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise self.unreadable(first, last, error) from error
        with file:
            yield partial(self.read, file, first)

    def read(self, file: FileIO, first: int, start: int, stop: int, memory: Any, /) -> Any:  # noqa: ANN401 - NumPy's
        """Read the rows from `start` to `stop` after the `first`, into a flat array of as many numbers or more."""
        rows, columns, start = stop - start, prod(self.shape[1:]), first + start
        # They lie in one piece, or in one for each column where columns come first.
        out = memory[: rows * columns].reshape((columns, rows) if self.columns_first else (1, rows * columns))
        try:
            for i, piece in enumerate(out):
                place = i * self.shape[0] + start if self.columns_first else start * columns
                file.seek(self.offset + place * self.dtype.itemsize)
                _fill(file, memoryview(piece).cast("B"))
        except Exception as error:
            raise self.unreadable(start, first + stop, error) from error
        if self.stored != self.dtype:
            out.byteswap(inplace=True)
        array = out.reshape(*self.shape[:0:-1], rows).T if self.columns_first else out
        return array.reshape(rows, *self.shape[1:])


def _fill(file: FileIO, piece: memoryview, /) -> None:
    """Read until a piece is full; the system may give less than it was asked for."""
    while piece.nbytes:
        count = file.readinto(piece)
        if not count:
            msg = "the file ends before them"
            raise EOFError(msg)
        piece = piece[count:]


@dataclass(frozen=True)
class ZarrFile(File):
    """A Zarr array in a folder."""

    array: ZarrArray

    @property
    def chunk_rows(self) -> int:
        """Return the rows of a chunk."""
        rows: int = self.array.chunks[0]
        return rows

    def gaps(self) -> str:
        """Say how many chunks are not stored."""
        missing = self.array.nchunks - self.array.nchunks_initialized
        if not missing:
            return ""
        count = f"{missing:,} of {self.array.nchunks:,} chunks of {self.path}"
        return f"{count} are not stored and count as {self.array.fill_value}"

    def __getitem__(self, key: tuple[slice, ...], /) -> Array:
        """Read some rows."""
        start, stop, _ = key[0].indices(self.shape[0])
        try:
            rows: Array = np.asarray(self.array[start:stop], dtype=self.dtype)
        except Exception as error:
            raise self.unreadable(start, stop, error) from error
        return rows


def open_file(path: Path, /) -> File:
    """Open a `.npy` file or the folder of a Zarr array, and check that it holds rows of floating numbers."""
    path = path.absolute()
    if not path.exists():
        msg = f"{path} does not exist"
        raise FileNotFoundError(msg)
    file = _open_zarr(path) if path.is_dir() else _open_npy(path)
    if file.dtype.kind not in "fc":
        source = f"from_zarr('{path}')" if path.is_dir() else f"from_array(np.load('{path}', mmap_mode='r'))"
        cast = f"da.{source}.astype('float32').to_zarr('{path.with_suffix('')}-float32.zarr')"
        msg = (
            f"{path} must hold floating numbers; got {file.dtype}. "
            f'Cast them first: python -c "import dask.array as da, numpy as np; {cast}"'
        )
        raise TypeError(msg)
    if file.ndim < 2:
        msg = f"{path} must hold rows, an array with 2 or more axes; got shape {file.shape}"
        raise ValueError(msg)
    return file


def _open_npy(path: Path, /) -> NpyFile:
    """Read the header, and check that all that it promises is there."""
    try:
        with path.open("rb") as file:
            read: Callable[[BinaryIO], tuple[tuple[int, ...], bool, DType]] = npy.read_array_header_1_0
            if npy.read_magic(file) != (1, 0):
                read = npy.read_array_header_2_0
            shape, columns_first, stored = read(file)
            offset = file.tell()
    except ValueError as error:
        msg = f"{path} is neither an .npy file nor the folder of a Zarr array: {error}"
        raise ValueError(msg) from error
    if stored.hasobject:
        msg = (
            f"{path} holds pickled Python objects, which can run any program and are not read; save an array of numbers"
        )
        raise TypeError(msg)
    needed, size = offset + prod(shape) * stored.itemsize, path.stat().st_size
    if size < needed:
        msg = f"{path} is cut off: its header promises {needed:,} bytes, and there are {size:,}; copy or save it again"
        raise ValueError(msg)
    return NpyFile(path, shape, stored.newbyteorder("="), stored, offset, columns_first)


def _open_zarr(path: Path, /) -> ZarrFile:
    """Open the array in a folder."""
    try:
        array: ZarrArray = zarr.open(path, mode="r")
    except Exception as error:
        msg = f"{path} is a folder, but not that of a Zarr array: {error}"
        raise ValueError(msg) from error
    if isinstance(array, zarr.Group):
        names = ", ".join(sorted(array.array_keys())) or "there is none"
        msg = f"{path} is a group of Zarr arrays; give the folder of one of them: {names}"
        raise ValueError(msg)  # noqa: TRY004 - a wrong path, not a wrong type
    return ZarrFile(path, array.shape, array.dtype.newbyteorder("="), array)
