"""The files that `pullback gradient` reads: arrays of NumPy and Zarr, some rows at a time."""

import os
import re
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import FileIO
from itertools import islice, product
from math import ceil, prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self
from uuid import uuid4

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from pullback._cli.console import CommandError, python_command
from pullback._cli.gradient.npy import read_header
from pullback._core.typing import Array, DaskArray, DType, ZarrArray
from pullback.dask._task import DeferredRows

_REAL = "float16", "float32", "float64"
_INTEGERS = "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_METADATA = "zarr.json", ".zarray"
# The stamp of a file that does not exist; no other file has it.
_MISSING = 0
# The chunks that Zarr reads at a time, in one call.
_READ_AT_ONCE: int = zarr.config.get("async.concurrency")
_IN_PIECES = "zlib", "gzip", "bz2", "lzma"
_UNCHECKED = np.empty(0, np.int64)


class Kind(NamedTuple):
    """The arrays that an option takes."""

    axes: int
    """The fewest axes."""
    numbers: str
    dtypes: tuple[str, ...]

    def least(self, axes: int, /) -> "Kind":
        """Return the same kind of arrays, with another number of axes."""
        return self._replace(axes=axes)


FLOATING = Kind(2, "floating numbers", (*_REAL, "complex64", "complex128"))
REAL = Kind(2, "real floating numbers", _REAL)
NUMBERS = Kind(1, "real numbers", (*_REAL, *_INTEGERS))
LABELS = Kind(1, "real numbers or booleans", (*_REAL, *_INTEGERS, "bool"))


@dataclass(frozen=True)
class File(ABC):
    """An array in one file or several. It holds no data, so that it travels to the workers of a cluster."""

    path: Path
    shape: tuple[int, ...]
    dtype: DType
    """In the byte order of this machine, which the file need not have."""
    stamps: NDArray[np.int64] = field(compare=False, repr=False)
    """The identity of each of `parts` when the file was opened, to find a later change; empty to skip that."""

    @property
    def ndim(self) -> int:
        """Return the number of axes, which Dask asks for."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all of it in memory."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_rows(self) -> int:
        """Return the rows that can only be read together."""
        return 1

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row in memory."""
        size: int = prod(self.shape[1:]) * self.dtype.itemsize
        return size

    @abstractmethod
    def held_bytes(self, rows: int, strip: int, /) -> int:
        """Return the memory of a block with this number of rows, of which a task handles a strip at a time."""

    def reading_bytes(self, rows: int, /) -> int:  # noqa: ARG002 - for arrays that are decoded
        """Return the memory that reading this number of rows takes on top of the block itself."""
        return 0

    @property
    def decoded_bytes(self) -> int:
        """Return the bytes of the array that one decoding gives; 0 where nothing is decoded."""
        return 0

    def parts(self) -> Iterator[str]:
        """Yield the path of each file that the array consists of."""
        yield str(self.path)

    def check_unchanged(self) -> None:
        """Check that no file of the array has been replaced or written to since it was opened."""
        for part, stamp in zip(self.parts(), self.stamps, strict=True):
            if _stamp(part) != stamp:
                raise changed(part)

    def check_whole(self, *, fill_missing: bool) -> str:  # noqa: ARG002 - for arrays of several files
        """Check that all of the array is stored; return a line about what is not and may be, or nothing."""
        return ""

    def unchecked(self) -> Self:
        """Return the file without its stamps: another machine may number the same files differently."""
        return replace(self, stamps=_UNCHECKED)

    def lazy(self, rows: int, /) -> DaskArray:
        """Return the array as one of Dask's, in blocks of this number of rows, which may be `DeferredRows`."""
        return da.from_array(
            self,
            chunks=(rows, *(-1,) * (self.ndim - 1))[: self.ndim],
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


def changed(path: str, /) -> CommandError:
    """Return the error for an input that another program writes to during the run."""
    msg = f"{path} was replaced or written to while the command ran, so that the result may mix old rows with new ones"
    return CommandError(msg, advice="wait until nothing writes to the inputs", status=1)


def _stamp(path: str, /) -> int:
    """Return a number that changes when a file is replaced or written to, and `_MISSING` where there is none."""
    return _look(path)[0]


def _look(path: str, /) -> tuple[int, int]:
    """Return the stamp of a file, and its bytes."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a store may have a million of these, and a Path each takes longer
    except FileNotFoundError:
        return _MISSING, 0
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise CommandError(msg) from error
    if not stat.S_ISREG(status.st_mode):
        # Zarr takes such a chunk for one that is not stored.
        msg = f"{path} must be a regular file; it is {_kind(status.st_mode)}"
        raise CommandError(msg, advice="copy the store again")
    return _stamp_of(status), status.st_size


def _stamp_of(status: os.stat_result, /) -> int:
    """Return the stamp of a file from its status."""
    return hash((status.st_ino, status.st_size, status.st_mtime_ns)) or 1


@dataclass(frozen=True)
class NpyFile(File):
    """An array in NumPy's format.

    It is read, not mapped into memory: a mapped file that becomes shorter kills the process, without an exception.
    """

    stored: DType
    offset: int
    columns_first: bool
    reads_strips: ClassVar[bool] = True

    def held_bytes(self, rows: int, strip: int, /) -> int:  # noqa: ARG002 - of the strip alone
        """Return the memory of a strip, and of its copy row by row where columns come first."""
        return (1 + self.columns_first) * strip * self.row_bytes

    def __getitem__(self, key: tuple[slice, ...], /) -> DeferredRows:
        """Return rows that each task reads for itself; an array without axes is one row."""
        start, stop, _ = key[0].indices(self.shape[0]) if key else (0, 1, 1)
        return DeferredRows((stop - start, *self.shape[1:]), self.dtype, partial(self.opened, start, stop))

    @contextmanager
    def opened(self, first: int, last: int, /) -> Iterator[Callable[..., Any]]:
        """Open the file, and yield a function that reads some of these rows, for as many strips as a task has."""
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise self.unreadable(first, last, error) from error
        with file:
            if self.stamps.size and _stamp_of(os.fstat(file.fileno())) != self.stamps[0]:
                raise changed(str(self.path))
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
    stored_bytes: int
    """The size of the largest stored file."""

    def held_bytes(self, rows: int, strip: int, /) -> int:  # noqa: ARG002 - chunks are decoded whole
        """Return the memory of a block."""
        return rows * self.row_bytes

    def reading_bytes(self, rows: int, /) -> int:
        """Return the memory of the chunks that Zarr reads and decodes at a time, each once for each codec at work."""
        chunks = self._at_once(rows, self.array.chunks)
        files = self._at_once(rows, self.array.shards or self.array.chunks)
        return files * self.stored_bytes + chunks * _decoded_copies(self.array) * self.decoded_bytes

    @property
    def decoded_bytes(self) -> int:
        """Return the bytes of a chunk."""
        size: int = prod(self.array.chunks) * self.dtype.itemsize
        return size

    def _at_once(self, rows: int, unit: tuple[int, ...], /) -> int:
        """Return how many chunks or shards of this shape are read at a time, of a block with this number of rows."""
        across = prod(ceil(size / part) for size, part in zip(self.shape[1:], unit[1:], strict=True))
        return min(ceil(rows / unit[0]) * across, _READ_AT_ONCE)

    @property
    def chunk_rows(self) -> int:
        """Return the rows of a chunk."""
        return self.array.chunks[0]

    @property
    def grid(self) -> tuple[int, ...]:
        """Return the number of stored files along each axis: of shards, or of chunks where there are none."""
        units = self.array.shards or self.array.chunks
        return tuple(ceil(size / unit) for size, unit in zip(self.shape, units, strict=True))

    def parts(self) -> Iterator[str]:
        """Yield the paths of the metadata and of each stored file, in the order of the grid."""
        for name in _METADATA:
            yield f"{self.path}/{name}"
        yield from self._stored(range((*self.grid, 1)[0]))

    def _stored(self, along_rows: range, /) -> Iterator[str]:
        """Yield the paths of the stored files at some places along the rows."""
        for place in product(along_rows, *map(range, self.grid[1:])):
            # An array without axes is one file, at no place.
            yield f"{self.path}/{self.array.metadata.encode_chunk_key(place[: self.ndim])}"

    def check_whole(self, *, fill_missing: bool) -> str:
        """Check that every chunk is stored, as after a complete copy, or count those that are filled."""
        stored = self.stamps[len(_METADATA) :]
        gaps = np.flatnonzero(stored == _MISSING)
        missing, kind = len(gaps), "shards" if self.array.shards else "chunks"
        if not missing:
            return ""
        first = next(islice(self.parts(), len(_METADATA) + gaps[0], None))
        count = f"{missing:,} of {len(stored):,} {kind} of {self.path} are not stored"
        if fill_missing:
            return f"{count} and count as {self.array.fill_value}"
        msg = f"{count}, the first of them {first}, as after a copy that was interrupted"
        only = f"holds {self.array.fill_value} only"
        advice = f"copy the store again, or give --fill-missing if its writer left out what {only}"
        raise CommandError(msg, advice=advice)

    def __getitem__(self, key: tuple[slice, ...], /) -> Array:
        """Read some rows; an array without axes is one row."""
        start, stop, _ = key[0].indices(self.shape[0]) if key else (0, 1, 1)
        try:
            rows: Array = np.asarray(self.array[start:stop] if key else self.array[()], dtype=self.dtype)
        except Exception as error:
            raise self.unreadable(start, stop, error) from error
        self._check_rows_unchanged(start, stop)
        return rows

    def _check_rows_unchanged(self, start: int, stop: int, /) -> None:
        """Check that no stored file of some rows has changed since the array was opened."""
        if not self.stamps.size:
            return
        unit, each = (*(self.array.shards or self.array.chunks), 1)[0], prod(self.grid[1:])
        places = range(start // unit, ceil(stop / unit))
        stamps = self.stamps[len(_METADATA) :][places.start * each : places.stop * each]
        for part, stamp in zip(self._stored(places), stamps, strict=True):
            if _stamp(part) != stamp:
                raise changed(part)


def _decoded_copies(array: ZarrArray, /) -> int:
    """Return the most copies of a decoded chunk in memory, without the array that it is read into."""
    if not (array.compressors or array.filters or array.shards):
        return 0
    # A filter needs its input and its output; Python's decompressors join pieces.
    in_pieces = any(type(codec).__name__.lower().startswith(_IN_PIECES) for codec in array.compressors)
    return 2 if array.filters or in_pieces else 1


def open_file(path: Path, kind: Kind = FLOATING, /) -> File:
    """Open a `.npy` file or the folder of a Zarr array, and check that it holds an array of a kind."""
    check_local(path)
    path = path.absolute()
    with _readable(path):
        mode = path.stat().st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        msg = f"{path} must be an .npy file or the folder of a Zarr array; it is {_kind(mode)}"
        raise CommandError(msg, advice="save the array to a file: its parts are read in any order")
    file = _open_zarr(path) if stat.S_ISDIR(mode) else _open_npy(path)
    if file.dtype.name not in kind.dtypes:
        msg = f"{path} must hold {kind.numbers}, {', '.join(kind.dtypes)}; got {file.dtype}"
        raise CommandError(msg, advice=cast(file, "float64" if file.dtype.kind == "f" else "float32"))
    if file.ndim < kind.axes:
        msg = f"{path} must hold rows, an array with {kind.axes} or more axes; got shape {file.shape}"
        raise CommandError(msg)
    return file


@contextmanager
def _readable(path: Path, /) -> Iterator[None]:
    """Report an error of the system for a path."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{path} does not exist"
        raise CommandError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise CommandError(msg) from error


def check_local(path: Path, /) -> None:
    """Check that a path is none of another machine's."""
    if _URL.match(str(path)):
        msg = f"{path} is a URL, and only paths of this machine are read and written"
        raise CommandError(msg, advice="copy the array here, or mount its storage")


def _kind(mode: int, /) -> str:
    """Say what a path leads to that is no regular file."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def cast(file: File, target: str, /) -> str:
    """Return the command that casts an array to another dtype."""
    if file.dtype.kind not in "biuf":
        return "save an array of one of these dtypes"
    path, new = str(file.path), f"{file.path.with_suffix('')}-{target}.zarr"
    source = f"da.from_zarr({path!r})"
    if isinstance(file, NpyFile):
        source = f"da.from_array(np.load({path!r}, mmap_mode='r'))"
    code = f"import dask.array as da, numpy as np; {source}.astype('{target}').to_zarr({new!r})"
    return f"cast them first: {python_command(code)}"


def _open_npy(path: Path, /) -> NpyFile:
    """Open an `.npy` file."""
    with _readable(path):
        file = path.open("rb")
    with file:
        stamps = np.asarray([_stamp_of(os.fstat(file.fileno()))])
        header = read_header(path, file)
    dtype = header.dtype.newbyteorder("=")
    return NpyFile(path, header.shape, dtype, stamps, header.dtype, header.offset, header.columns_first)


def _open_zarr(path: Path, /) -> ZarrFile:
    """Open the array in a folder."""
    try:
        with warnings.catch_warnings():
            # What Zarr warns of, such as dtypes that other libraries may not read, is no concern of a reader here.
            warnings.simplefilter("ignore")
            array: ZarrArray = zarr.open(path, mode="r")
            inner = "" if isinstance(array, zarr.Array) else ", ".join(_arrays_in(array)) or "there is none"
    except Exception as error:
        msg = f"{path} is a folder, but not that of a Zarr array: {error}"
        raise CommandError(msg) from error
    if inner:
        msg = f"{path} is a group of Zarr arrays; give the folder of one of them: {inner}"
        raise CommandError(msg)
    dtype = array.dtype.newbyteorder("=") if array.dtype.kind in "biufc" else array.dtype
    file = ZarrFile(path, array.shape, dtype, _UNCHECKED, array, 0)
    looks = np.asarray([_look(part) for part in file.parts()], np.int64)
    return replace(file, stamps=looks[:, 0], stored_bytes=int(looks[len(_METADATA) :, 1].max(initial=0)))


def _arrays_in(group: zarr.Group, /) -> list[str]:
    """Return the paths of all arrays in a group and in the groups in it."""
    return sorted(name for name, member in group.members(max_depth=None) if isinstance(member, zarr.Array))
