"""What `pullback.dask` does inside a task: a step on the strips of a block of rows, and sums in the widest dtype."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, to_device
from dask._task_spec import _execute_subgraph

from pullback._core.typing import Array, DType, Step, ZarrArray
from pullback.dask._inputs import Result, entries, sum_dtype

_ADDING = Lock()


@dataclass(frozen=True)
class DeferredRows:
    """Rows of a file that a task reads a strip at a time, into the same memory: fresh memory costs as much again."""

    shape: tuple[int, ...]
    dtype: DType
    opened: Callable[[], AbstractContextManager[Callable[[int, int, Array], Array]]]
    """Opens the file for one task, and gives a function of the first row, the one after the last, and a flat array with
    room for what is between them."""

    # No arithmetic. NumPy's way to say so also tells Dask to leave this as it is, and not to make it an array.
    __array_ufunc__ = None

    def memory(self, rows: int, /) -> Array:
        """Return room for so many rows."""
        room: Array = np.empty(rows * math.prod(self.shape[1:]), self.dtype)
        return room

    def __array__(self, dtype: DType = None, copy: object = None) -> Array:
        """Read all of it, for `numpy.asarray`."""
        with self.opened() as read:
            return np.asarray(read(0, self.shape[0], self.memory(self.shape[0])), dtype)


class Part(NamedTuple):
    """What a block comes to; None stands for an entry that is of the other kind, or that the step does not give."""

    rows: tuple[Array | None, ...]
    sums: tuple[Array | None, ...]


class Run(NamedTuple):
    """A step, and how to run it on a block."""

    step: Step
    results: tuple[Result | None, ...]
    batch: int
    """The number of arrays in a batch; those after them are shared."""
    strip: int
    """The rows to run the step on at a time: what it allocates on the way stays as small as that."""
    targets: tuple[tuple[int, ZarrArray], ...] = ()
    """Where to write entries that keep rows, by index; they are not returned then."""

    def block(self, where: str, first: int, before: Part | None, *arrays: Array) -> Part:
        """Run the step on a block of rows of each array of the batch, and add its sums to those that came before.

        `where` says in an error which rows these are, and `first` is the number of the first where that is known.
        """
        rows = arrays[0].shape[0]
        shared = [_laid_out(x) for x in arrays[self.batch :]]
        kept: list[Array | None] = [None] * len(self.results)
        sums: list[Array | None] = list(before.sums) if before else [None] * len(self.results)
        for start, stop, strip in _strips(arrays[: self.batch], self.strip):
            try:
                out = entries(self.step(*strip, *shared))
                self._check(out, stop - start)
            except Exception as error:
                error.add_note(f"accumulate: while the step ran on {where}")
                raise
            # A large sum comes from another task: with it, ours and what the step gave there are three arrays of its
            # size until we are done, and so one thread at a time does this.
            with _ADDING if before and start == 0 else nullcontext():
                for i, (result, x) in enumerate(zip(self.results, out, strict=True)):
                    if result is None or x is None:
                        continue
                    if not result.keeps_rows:
                        # Only a sum that began here may be added to in place: the one before belongs to another task.
                        sums[i] = _add(sums[i], x, ours=start > 0)
                    elif stop - start == rows:
                        kept[i] = x
                    else:
                        kept[i] = _put(kept[i], x, start, rows)
                out, x = (), None
        for i, target in self.targets:
            if rows:
                target[first : first + rows] = to_device(kept[i], "cpu")
            kept[i] = None
        return Part(tuple(kept), tuple(sums))

    def _check(self, out: Sequence[Array | None], rows: int, /) -> None:
        """Check that a step returned on some rows what it returned on none."""
        if len(out) != len(self.results):
            msg = f"accumulate: step returned {len(out)} results, and {len(self.results)} on zero rows"
            raise ValueError(msg)
        for result, x in zip(self.results, out, strict=True):
            if result is None or x is None:
                if not (result is None and x is None):
                    msg = "accumulate: step must return None in the same places for any number of rows"
                    raise ValueError(msg)
                continue
            shape = (rows, *result.shape[1:]) if result.keeps_rows else result.shape
            if x.shape != shape or x.dtype != result.dtype:
                msg = (
                    f"accumulate: step must return {result.name} of shape {shape} and dtype {result.dtype}, "
                    f"after what it returned on zero rows; got {tuple(x.shape)} and {x.dtype}"
                )
                raise ValueError(msg)


def join(*chunks: Array) -> Array:
    """Return the rows of some chunks as one array: a step on many small ones would take longer than their copy."""
    out: Array = array_namespace(chunks[0]).concat(chunks)
    return out


def run_fused(*args: object) -> Part:
    """Run a block and the tasks that only it needs."""
    # Dask's optimisation takes a task of its own kind for a chain, and merges the slices in it.
    part: Part = _execute_subgraph(*args)
    return part


def add(parts: Iterable[Part], /) -> Part:
    """Add up the sums of blocks."""
    first, *others = parts
    sums = list(first.sums)
    for n, part in enumerate(others):
        sums = [None if y is None else _add(x, y, ours=n > 0) for x, y in zip(sums, part.sums, strict=True)]
    return Part((), tuple(sums))


def rows_of(part: Part, i: int, /) -> Array | None:
    """Return the rows of entry `i`."""
    return part.rows[i]


def sums_of(part: Part, /) -> Part:
    """Return the sums alone, so that no rows travel with them."""
    return Part((), part.sums)


def is_done(_: Part, /) -> Array:
    """Stand for a part that nobody wants to see."""
    done: Array = np.ones(1, dtype=bool)
    return done


def sum_of(part: Part, i: int, dtype: DType, /) -> Array | None:
    """Return the sum of entry `i`."""
    total = part.sums[i]
    out: Array = array_namespace(total).astype(total, dtype, copy=False)
    return out


def _strips(arrays: Sequence[Any], size: int, /) -> Iterator[tuple[int, int, list[Array]]]:
    """Yield strips of so many rows of each array, with their first row and the one after their last."""
    rows = arrays[0].shape[0]
    with ExitStack() as files:
        readers = [_reader(x, min(size, rows), files) for x in arrays]
        for start in range(0, max(rows, 1), size):
            stop = min(start + size, rows)
            yield start, stop, [_laid_out(read(start, stop)) for read in readers]


def _reader(x: Array | DeferredRows, rows: int, files: ExitStack, /) -> Callable[[int, int], Array]:
    """Return what gives the rows from one to another, as many as said or fewer."""
    if not isinstance(x, DeferredRows):
        return lambda start, stop: x[start:stop, ...]
    read, memory = files.enter_context(x.opened()), x.memory(rows)
    return lambda start, stop: read(start, stop, memory)


def _laid_out(x: Array, /) -> Array:
    """Return a NumPy array row by row and aligned, as not all are that have travelled: products round by the layout."""
    return np.require(x, requirements=("C", "A")) if isinstance(x, np.ndarray) else x


def _add(total: Array | None, x: Array, /, *, ours: bool) -> Array:
    """Return ``total + x`` in the dtype of sums, in place where the total is ours."""
    xp = array_namespace(x)
    if total is None:
        new: Array = xp.astype(x, sum_dtype(xp, x), copy=True)
        return new
    if xp.isdtype(x.dtype, "bool"):
        x = xp.astype(x, total.dtype)
    if ours:
        total += x
        return total
    return total + x


def _put(out: Array | None, x: Array, start: int, rows: int, /) -> Array:
    """Put the rows of a strip into the array of the block's."""
    if out is None:
        whole: Array = array_namespace(x).empty((rows, *x.shape[1:]), dtype=x.dtype, device=device(x))
        return _put(whole, x, start, rows)
    out[start : start + x.shape[0], ...] = x
    return out
