"""The work of a task of `pullback.dask`: run a step on the strips of a block of rows, and accumulate its sums."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import accumulate as running
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, is_writeable_array, to_device

from pullback._core import trees
from pullback._core.dtypes import is_dtype
from pullback._core.typing import Array, DType, Sizes, Step
from pullback.dask._inputs import Outputs, Result, check_structure, entries, native, sum_dtype, widen

_ADDING = Lock()
# NumPy's dtypes that can be added to a sum as they are: to ask the library takes as long as the addition.
_ADDABLE = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


@dataclass(frozen=True)
class DeferredRows:
    """Rows of a file that a task reads a strip at a time, into the same memory: fresh memory costs as much again.

    A source that gives these says so by an attribute `reads_strips`: the memory of a task does not grow with its rows.
    """

    shape: tuple[int, ...]
    dtype: DType
    opened: Callable[[], AbstractContextManager[Callable[[int, int, Array], Array]]]
    """Opens the file for one task, and gives a function of the first row, the one after the last, and a flat array
    that has space for the rows between them."""

    # No arithmetic. NumPy's way to say so also tells Dask to leave this as it is, and not to make it an array.
    __array_ufunc__ = None

    def memory(self, rows: int, /) -> Array:
        """Return memory for a number of rows."""
        return np.empty(rows * math.prod(self.shape[1:]), self.dtype)

    def __array__(self, dtype: DType = None, copy: object = None) -> Array:
        """Read all of it, for `numpy.asarray`."""
        with self.opened() as read:
            return np.asarray(read(0, self.shape[0], self.memory(self.shape[0])), dtype)


class Part(NamedTuple):
    """The results of a block; None stands for an array of the other kind."""

    rows: tuple[Array | None, ...]
    sums: tuple[Array | None, ...]


class Place(NamedTuple):
    """Where a block lies in the batch."""

    chunk: int
    """The index of its first chunk."""
    row: float
    """The index of its first row; NaN where it is not known."""
    sizes: Sizes
    """The rows of each of its chunks; NaN where they are not known, and then there is one chunk."""

    def __str__(self) -> str:
        """Return the rows, or where they are not known the chunk."""
        end = self.row + sum(self.sizes)
        return f"chunk {self.chunk}" if math.isnan(end) else f"rows [{self.row}:{end}]"

    def check(self, batch: Sequence[Sequence[Any]], /) -> Sizes:
        """Check that all arrays have the same, expected rows; return the rows that can be cut without a copy."""
        found = [tuple(x.shape[0] for x in chunks) for chunks in batch]
        rows = sum(self.sizes)
        sizes = found[0] if math.isnan(rows) else self.sizes
        # Chunks that follow one another in a source were read at once.
        if any(counts not in (sizes, (rows,)) for counts in found):
            raise ValueError(self._unequal(found))
        return sizes if any(len(counts) > 1 for counts in found) else (sum(sizes),)

    def _unequal(self, found: Sequence[Sizes], /) -> str:
        """Return the message of an error, with the first chunk that differs and its rows in each array."""
        by_chunk = [self.sizes if len(counts) != len(self.sizes) else counts for counts in found]
        differ = [i for i, size in enumerate(self.sizes) if any(counts[i] != size for counts in by_chunk)]
        chunk, expected, counts = self.chunk, sum(self.sizes), [sum(counts) for counts in found]
        if differ:
            chunk, expected, counts = chunk + differ[0], self.sizes[differ[0]], [x[differ[0]] for x in by_chunk]
        got = " and ".join(f"{count:,} in array {i}" for i, count in enumerate(counts))
        where = f"chunk {chunk}" + ("" if math.isnan(expected) else f", where Dask expects {expected:,}")
        return (
            "accumulate: each chunk must have the same number of rows in all arrays of the batch, and the one that "
            f"Dask expects; got {got} in {where}. Filter all arrays alike; if Dask expects a wrong number, call "
            "compute_chunk_sizes() on the array"
        )


class Run(NamedTuple):
    """A step, and how to run it on a block."""

    step: Step
    results: tuple[Result, ...]
    names: list[str]
    """Where the step returns the results: another structure on a block is an error."""
    batch: int
    """The number of arrays in a batch; those after them are lazy shared arrays."""
    shared: tuple[Any, ...]
    """The arguments after those of the batch; an empty array stands for a lazy one."""
    lazy: tuple[int, ...]
    """The lazy arrays among the leaves of `shared`."""
    strip: int
    """The most rows to run the step on at a time, so that what it allocates stays small."""
    least: int
    """The fewest rows to run the step on where chunks are smaller: they are joined to as many."""
    narrow: tuple[int, ...]
    """The arrays of a batch to widen."""
    targets: tuple[tuple[int, Any], ...] = ()
    """Arrays of NumPy or Zarr to write results that keep rows to, by index; they are not returned then."""

    def block(self, place: Place, before: Part | None, *arrays: Any) -> Part:  # noqa: ANN401 - also lists of chunks
        """Run the step on a block of rows of each array of the batch, and add its sums to those that came before."""
        batch = [x if isinstance(x, list) else [x] for x in arrays[: self.batch]]
        shared = self._shared(arrays[self.batch :])
        sizes = place.check(batch)
        targets = dict(self.targets)
        kept = [
            self._rows(targets.get(i), place.row, sum(sizes)) if result.keeps_rows else None
            for i, result in enumerate(self.results)
        ]
        sums: list[Array | None] = list(before.sums) if before else [None] * len(self.results)
        with ExitStack() as files:
            readers = [_reader(chunks, sizes, self.strip, files) for chunks in batch]
            for start, stop in _strips(sizes, self.strip, self.least):
                strip = [read(start, stop) for read in readers]
                for i in self.narrow:
                    strip[i] = widen(strip[i])
                try:
                    out = self._check(self.step(*map(native, strip), *shared), stop - start)
                except Exception as error:
                    error.add_note(f"accumulate: while the step ran on {place}")
                    raise
                # A large sum comes from another task: with it, this one and the step's result are three arrays of its
                # size until the addition is done, and so one thread at a time does this.
                with _ADDING if before and start == 0 else nullcontext():
                    for i, (rows, result) in enumerate(zip(kept, self.results, strict=True)):
                        if rows is None:
                            # Only a sum that began here may be changed: the one before belongs to another task.
                            sums[i] = _add(sums[i], out[i], ours=start > 0)
                        else:
                            rows.put(out[i], start, result.meta.dtype)
                    del out
        wholes = [None if rows is None else rows.whole() for rows in kept]
        for i, target in self.targets:
            if sum(sizes) and not isinstance(target, np.ndarray):
                target[place.row : place.row + sum(sizes)] = to_device(wholes[i], "cpu")
            wholes[i] = None
        return Part(tuple(wholes), tuple(sums))

    @staticmethod
    def _rows(target: Any, first: Any, count: int) -> "Rows":  # noqa: ANN401 - an array of NumPy or Zarr, or None
        """Return what takes the rows of a result of a block: a part of a target in memory, or memory of its own."""
        if isinstance(target, np.ndarray):
            return Rows(count, into=target[first : first + count])
        return Rows(count, borrow=target is not None)

    def _shared(self, lazy: Sequence[Any], /) -> tuple[Any, ...]:
        """Return the shared arguments, with the lazy arrays among them computed."""
        if not self.lazy:
            return self.shared
        leaves = trees.leaves(self.shared)
        for i, x in zip(self.lazy, lazy, strict=True):
            leaves[i] = native(x)
        return tuple(trees.fill(self.shared, leaves))

    def _check(self, out: Any, rows: int, /) -> Outputs:  # noqa: ANN401 - a container of any kind
        """Check that a step returned on some rows what it returned on none; return the arrays."""
        arrays = entries(out)
        check_structure(self.names, out)
        for result, x in zip(self.results, arrays, strict=True):
            shape = (rows, *result.shape[1:]) if result.keeps_rows else result.shape
            if x.shape != shape or x.dtype != result.dtype:
                msg = (
                    f"accumulate: step must return {result.name} of shape {shape} and dtype {result.dtype}, "
                    f"after what it returned on zero rows; got {tuple(x.shape)} and {x.dtype}"
                )
                raise ValueError(msg)
        return arrays


class Rows:
    """The rows of one result of a block, put together strip by strip."""

    def __init__(self, count: int, *, borrow: bool = False, into: Any = None) -> None:  # noqa: ANN401 - NumPy's
        self._count = count
        self._borrow = borrow
        """Whether a single strip need not be copied, for it is read before the step runs again."""
        self._buffer = into
        self._pieces: list[Array] = []
        """The strips of a library whose arrays cannot be written."""

    def put(self, x: Array, start: int, dtype: DType) -> None:
        """Put the rows of a strip, which may lie in memory that the step uses again, in the dtype of the result."""
        xp = array_namespace(x)
        whole = x.shape[0] == self._count
        if self._buffer is None and not self._pieces and not (whole and self._borrow):
            self._buffer = xp.empty((self._count, *x.shape[1:]), dtype=dtype, device=device(x))
        if self._buffer is not None and is_writeable_array(self._buffer):
            # A narrow result that overflows is infinity, and no warning: the reader sees it.
            with np.errstate(over="ignore"):
                self._buffer[start : start + x.shape[0], ...] = x
        else:
            self._buffer = None
            self._pieces.append(xp.astype(x, dtype, copy=False))

    def whole(self) -> Array:
        """Return all rows."""
        out: Array = self._pieces[0] if self._buffer is None else self._buffer
        return out if len(self._pieces) <= 1 else array_namespace(out).concat(self._pieces)


def add(parts: Iterable[Part], /) -> Part:
    """Add the sums of blocks."""
    first, *others = parts
    sums = list(first.sums)
    for n, part in enumerate(others):
        sums = [None if y is None else _add(x, y, ours=n > 0) for x, y in zip(sums, part.sums, strict=True)]
    return Part((), tuple(sums))


def rows_of(part: Part, i: int, /) -> Array | None:
    """Return the rows of result `i`."""
    return part.rows[i]


def sums_of(part: Part, /) -> Part:
    """Return the sums alone, so that no rows travel with them."""
    return Part((), part.sums)


def is_done(_: Part, /) -> Array:
    """Stand for a part that nobody wants to see."""
    return np.ones(1, dtype=bool)


def sum_of(part: Part, i: int, dtype: DType, /) -> Array | None:
    """Return the sum of result `i`."""
    total = part.sums[i]
    # A sum that overflows is infinity, and no warning: the reader sees it.
    with np.errstate(over="ignore"):
        out: Array = array_namespace(total).astype(total, dtype, copy=False)
    return out


def _strips(sizes: Sizes, most: int, least: int, /) -> Iterator[tuple[int, int]]:
    """Yield the first row of each strip and the one after its last.

    A strip ends with a chunk, where that gives it the fewest rows or more, and at the most rows.
    """
    start = stop = 0
    for size in sizes:
        stop += size
        while stop - start > most:
            yield start, start + most
            start += most
        if stop - start >= least:
            yield start, stop
            start = stop
    if start < stop or stop == 0:
        yield start, stop


def _reader(chunks: Sequence[Any], sizes: Sizes, rows: int, files: ExitStack, /) -> Callable[[int, int], Array]:
    """Return a function that gives the rows from one to another of all chunks, at most as many as said."""
    if len(chunks) == 1:
        return _reader_of_one(chunks[0], rows, files)
    readers = [_reader_of_one(x, rows, files) for x in chunks]
    edges = list(running(sizes, initial=0))

    def read(start: int, stop: int) -> Array:
        first = bisect_right(edges, start, hi=len(sizes)) - 1
        pieces: list[Array] = []
        for i in range(first, len(sizes)):
            low, high = edges[i], edges[i + 1]
            if pieces and low >= stop:
                break
            pieces.append(readers[i](max(start, low) - low, min(stop, high) - low))
        return pieces[0] if len(pieces) == 1 else array_namespace(pieces[0]).concat(pieces)

    return read


def _reader_of_one(x: Array | DeferredRows, rows: int, files: ExitStack, /) -> Callable[[int, int], Array]:
    """Return a function that gives the rows from one to another of a chunk."""
    if not isinstance(x, DeferredRows):
        return lambda start, stop: x[start:stop, ...]
    read, memory = files.enter_context(x.opened()), x.memory(min(rows, x.shape[0]))
    return lambda start, stop: read(start, stop, memory)


def _add(total: Array | None, x: Array, /, *, ours: bool) -> Array:
    """Return ``total + x`` in the accumulation dtype, in place where the total is ours."""
    if total is None:
        xp = array_namespace(x)
        return xp.astype(x, sum_dtype(xp, x), copy=True)
    if not (isinstance(x, np.ndarray | np.generic) and x.dtype in _ADDABLE):
        xp = array_namespace(x)
        if is_dtype(xp, x.dtype, "bool"):
            x = xp.astype(x, total.dtype)
    if ours:
        total += x
        return total
    return total + x
