"""Where `pullback.dask` writes rows: Zarr arrays, of which no chunk is ever written by two tasks."""

import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate as running
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import dask.array as da
import numpy as np
from array_api_compat import to_device
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pullback._core.typing import Array, DaskArray, ZarrArray
from pullback.dask import _graph
from pullback.dask._atomic import whole
from pullback.dask._compat import empty_block
from pullback.dask._plan import Plan

Pair = tuple[DaskArray, ZarrArray]

Probe = Callable[..., Mapping[str, Any]]
"""Calls a function with arguments in each process that writes; returns what it returned, by the process's name."""


@contextmanager
def targets(store: Sequence[tuple[DaskArray, Any]], /, *, probe: Probe | None) -> Iterator[list[Pair]]:
    """Check the targets, and make an array of each that is a path; it appears there when all is written.

    Where other processes write, `probe` reaches them.
    """
    import zarr  # noqa: PLC0415 - takes long to import, and few store

    _check_pairs(store)
    with ExitStack() as stack:
        pairs = []
        # Chunks of nothing but the fill value are stored too, so that a lost chunk can be told from them.
        with zarr.config.set({"array.write_empty_chunks": True} if probe else {}):
            for lazy, target in store:
                if isinstance(target, str | os.PathLike):
                    chunks = tuple(max(*sizes, 1) for sizes in lazy.chunks)
                    path = stack.enter_context(whole(target)).folder
                    array = zarr.create_array(path, shape=lazy.shape, dtype=lazy.dtype, chunks=chunks)
                else:
                    array = _reopen(target) if probe or _folder(target) else target
                pairs.append((lazy, array))
        if probe:
            for _, array in pairs:
                _check_shared(array, probe)
        yield pairs
        if probe:
            for _, array in pairs:
                _check_complete(array)


def _check_pairs(store: Sequence[tuple[DaskArray, Any]], /) -> None:
    """Check the targets before anything is made."""
    import zarr  # noqa: PLC0415 - as above

    places: Counter[str] = Counter()
    for lazy, target in store:
        if lazy.ndim == 0:
            msg = "compute: what is stored must have an axis of rows; got an array of shape ()"
            raise ValueError(msg)
        if isnan(sum(lazy.shape)):
            msg = "compute: what is stored must have a known number of rows; call compute_chunk_sizes() on it first"
            raise ValueError(msg)
        if isinstance(target, str | os.PathLike):
            places[str(Path(target).resolve())] += 1
            continue
        if not isinstance(target, zarr.Array):
            msg = f"compute: a target must be a path or an open Zarr array; got {type(target).__name__}"
            raise TypeError(msg)
        if target.shape != lazy.shape or target.dtype != lazy.dtype:
            msg = (
                "compute: a target must have the shape and dtype of what it stores; "
                f"got {target.shape}, {target.dtype} for {lazy.shape}, {lazy.dtype}"
            )
            raise ValueError(msg)
        if target.read_only:
            msg = f"compute: a target must be open for writing; got {_place(target)}: open it with mode='r+'"
            raise ValueError(msg)
        places[_place(target)] += 1
    for place, count in places.items():
        if count > 1:
            msg = f"compute: each target must be named once in store; got {place} {count} times"
            raise ValueError(msg)


def _folder(array: ZarrArray, /) -> Path | None:
    """Return the folder of an array, or None if it lies elsewhere."""
    from zarr.storage import LocalStore  # noqa: PLC0415 - as above

    store = array.store_path.store
    return store.root.absolute() / array.path if isinstance(store, LocalStore) else None


def _place(array: ZarrArray, /) -> str:
    """Return the resolved path of an array, or the URL that its store gives it."""
    folder = _folder(array)
    return str(folder.resolve() if folder else array.store_path)


def _reopen(array: ZarrArray, /) -> ZarrArray:
    """Open an array once more: by its absolute path, and with the present configuration."""
    import zarr  # noqa: PLC0415 - as above

    return zarr.open_array(_folder(array) or array.store_path, mode="r+")


def leave_mark(array: ZarrArray) -> tuple[str, str]:
    """Write a small file next to the chunks of an array; return its name, and what kept it from being written."""
    from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415 - as above
    from zarr.core.sync import sync  # noqa: PLC0415 - as above

    name = f".{uuid4().hex}.mark"
    try:
        # An array that is not there must not be made.
        path = _reopen(array).store_path / name
        sync(path.set(default_buffer_prototype().buffer.from_bytes(b"pullback")))
    except Exception as error:  # noqa: BLE001 - whatever a store raises
        return name, f"{type(error).__name__}: {error}"
    return name, ""


def _check_shared(array: ZarrArray, probe: Probe, /) -> None:
    """Check that other processes write where this one reads."""
    from zarr.core.sync import sync  # noqa: PLC0415 - as above

    try:
        pickle.dumps(array)
    except Exception as error:
        raise ValueError(_not_shared(array, f"it cannot be sent to them: {type(error).__name__}: {error}")) from error
    problems = []
    for process, (name, problem) in probe(leave_mark, array).items():
        mark = array.store_path / name
        if not sync(mark.exists()):
            problems.append(f"{process} {'failed with ' + problem if problem else 'wrote somewhere else'}")
            continue
        sync(mark.delete())
    if problems:
        raise ValueError(_not_shared(array, problems[0]))


def _not_shared(array: ZarrArray, problem: str, /) -> str:
    """Return the message of an error."""
    return (
        f"compute: the processes that compute must all write to {_place(array)}; {problem}. Store to a path in a "
        "folder that they share, or to a store that they can open"
    )


def _check_complete(array: ZarrArray, /) -> None:
    """Check that all chunks have arrived."""
    missing = array.nchunks - array.nchunks_initialized
    if missing:
        msg = (
            f"compute: {missing:,} of {array.nchunks:,} chunks of {_place(array)} were written and are not there: a "
            "process has another folder at that path. Store to a folder that all share"
        )
        raise OSError(msg)


class Attached(NamedTuple):
    """What is computed for results and targets."""

    results: list[DaskArray]
    """The results; None for those in `ready`."""
    written: list[DaskArray]
    """Arrays that are there when everything is written."""
    ready: dict[int, Array]
    """Results in memory that blocks write, by index: they need not be put together afterwards."""


def attach(results: Sequence[DaskArray], pairs: Sequence[Pair], /, *, in_memory: bool) -> Attached:
    """Decide which tasks write to each target, and to results in memory.

    Rows that nobody asks for but one target are written by the tasks that make them, and are not returned by those.
    """
    uses = Counter(name for x in (*results, *(x for x, _ in pairs)) if x is not None for name in x.dask.layers)
    within: dict[str, tuple[Plan, dict[int, Any]]] = {}

    def blocks_write(lazy: DaskArray, unit: int) -> Callable[[Any], None] | None:
        """Return a function that takes a target for the blocks to write to, or None if they cannot."""
        token = lazy.name.rpartition("-")[2]
        blocks = lazy.dask.layers.get(f"accumulate-{token}")
        rows = _rows(token, blocks.plan) if isinstance(blocks, _graph.Blocks) else {}
        if lazy.name not in rows or uses[lazy.name] > 1 or not _fits(blocks.plan.chunks, unit):
            return None
        _, places = within.setdefault(token, (blocks.plan, {}))
        return partial(places.__setitem__, rows[lazy.name])

    apart: list[Pair] = []
    for lazy, target in pairs:
        give = blocks_write(lazy, _unit(target))
        if give:
            give(target)
        else:
            apart.append((lazy, target))
    ready: dict[int, Array] = {}
    for i, x in enumerate(results):
        plain = in_memory and x is not None and type(empty_block(x)) is np.ndarray and not isnan(sum(x.shape))
        give = blocks_write(x, 1) if plain else None
        if give:
            ready[i] = np.empty(x.shape, x.dtype)
            give(ready[i])
    written: list[DaskArray] = []
    moved: dict[str, DaskArray] = {}
    for token, (plan, places) in within.items():
        run = plan.run._replace(targets=tuple(places.items()))
        # A new name: what a scheduler remembers under the old one was not written.
        arrays, done = _graph.lay(uuid4().hex, plan._replace(run=run))
        written.append(done)
        moved.update(zip(_names(token, plan), arrays, strict=True))
    written += [_write_apart(_redirect(lazy, moved), target) for lazy, target in apart]
    lazies = [None if x is None or i in ready else _redirect(x, moved) for i, x in enumerate(results)]
    return Attached(lazies, written, ready)


def _names(token: str, plan: Plan, /) -> list[str]:
    """Return the name of each result's lazy array."""
    return [_graph.array_name(result, token) for result in plan.run.results]


def _rows(token: str, plan: Plan, /) -> dict[str, int]:
    """Return the indices of the results that keep rows, by the names of their lazy arrays."""
    results = zip(_names(token, plan), plan.run.results, strict=True)
    return {name: i for i, (name, result) in enumerate(results) if result.keeps_rows}


def _redirect(x: DaskArray, moved: Mapping[str, DaskArray], /) -> DaskArray:
    """Let a lazy array depend on what its layers have moved to, and no longer on what they were made of."""
    layers, within = x.dask.layers, x.dask.dependencies
    kept = {}
    needs = {}
    left = [x.name]
    while left:
        name = left.pop()
        if name in kept:
            continue
        kept[name], needs[name] = layers[name], within[name]
        if name in moved:
            new = moved[name]
            kept |= new.dask.layers
            needs |= new.dask.dependencies
            kept[name] = MaterializedLayer({(name, *key[1:]): key for key in flatten(new.__dask_keys__())})
            needs[name] = {new.name}
        else:
            left.extend(within[name])
    return da.Array(HighLevelGraph(kept, needs), x.name, x.chunks, meta=empty_block(x))


def _unit(target: ZarrArray, /) -> int:
    """Return the rows that are written at once."""
    return (target.shards or target.chunks)[0]


def _fits(sizes: Sequence[int], unit: int, /) -> bool:
    """Whether no chunk of the target lies in two blocks, as far as is known."""
    return all(start % unit == 0 for start in running(sizes[:-1]))


def _write_apart(lazy: DaskArray, target: ZarrArray, /) -> DaskArray:
    """Return an array that is there when `lazy` is written, by tasks of their own for whole chunks of the target."""
    unit = _unit(target)
    rows = max(1, round(max(lazy.chunks[0]) / unit)) * unit
    aligned = lazy.rechunk({axis: rows if axis == 0 else -1 for axis in range(lazy.ndim)}, method="tasks")
    ones = tuple((1,) * len(sizes) for sizes in aligned.chunks)
    name = f"write-{uuid4().hex}"
    return aligned.map_blocks(_write, target, name=name, chunks=ones, meta=np.empty((0,) * lazy.ndim, dtype=bool))


def _write(block: Array, target: ZarrArray, block_info: dict[int, Any]) -> Array:
    """Write a block where it belongs."""
    places = block_info[0]["array-location"]
    expected = tuple(stop - start for start, stop in places)
    if block.shape != expected:
        msg = (
            f"compute: a block to store must have the shape that Dask expects, {expected}; got {tuple(block.shape)}. "
            "Call compute_chunk_sizes() on the array first"
        )
        raise ValueError(msg)
    (start, stop), *_ = places
    if stop > start:
        target[start:stop] = to_device(block, "cpu")
    return np.ones((1,) * block.ndim, dtype=bool)
