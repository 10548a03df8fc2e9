"""Where `pullback.dask` writes rows: Zarr arrays, of which no chunk is ever written by two tasks."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate as running
from math import isnan
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
from array_api_compat import to_device
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pullback._core.typing import Array, DaskArray, ZarrArray
from pullback.dask import _graph
from pullback.dask._compat import empty_block
from pullback.dask._plan import Plan

Pair = tuple[DaskArray, ZarrArray]


@contextmanager
def whole(path: str | os.PathLike[str], /) -> Iterator[Path]:
    """Yield a folder beside `path` that becomes it when all went well, and is removed otherwise."""
    path = Path(path)
    if path.exists() or path.is_symlink():
        msg = f"{path} exists already"
        raise FileExistsError(msg)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    # A folder for one user's eyes only would stay so under its last name.
    mask = os.umask(0)
    os.umask(mask)
    partial.chmod(0o777 & ~mask)
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def targets(store: Collection[Pair], /) -> Iterator[list[Pair]]:
    """Check the targets, and make an array of each that is a path; it appears there when all is written."""
    import zarr  # noqa: PLC0415 - takes long to import, and few store

    with ExitStack() as stack:
        pairs = []
        for lazy, target in store:
            if lazy.ndim == 0:
                msg = "compute: what is stored must have an axis of rows; got an array of shape ()"
                raise ValueError(msg)
            if isnan(sum(lazy.shape)):
                msg = "compute: what is stored must have a known number of rows; call compute_chunk_sizes() on it first"
                raise ValueError(msg)
            if isinstance(target, str | os.PathLike):
                chunks = tuple(max(*sizes, 1) for sizes in lazy.chunks)
                path = stack.enter_context(whole(target))
                array = zarr.create_array(path, shape=lazy.shape, dtype=lazy.dtype, chunks=chunks)
            elif isinstance(target, zarr.Array):
                array = target
            else:
                msg = f"compute: a target must be a path or an open Zarr array; got {type(target).__name__}"
                raise TypeError(msg)
            if array.shape != lazy.shape or array.dtype != lazy.dtype:
                msg = (
                    "compute: a target must have the shape and dtype of what it stores; "
                    f"got {array.shape}, {array.dtype} for {lazy.shape}, {lazy.dtype}"
                )
                raise ValueError(msg)
            pairs.append((lazy, array))
        yield pairs


def attach(results: Sequence[DaskArray], pairs: Sequence[Pair], /) -> tuple[list[DaskArray], list[DaskArray]]:
    """Return the results, and arrays that are there when everything is written.

    Rows that nobody asks for but one target are written by the tasks that make them, and are not returned by those.
    """
    uses = Counter(name for x in (*results, *(x for x, _ in pairs)) if x is not None for name in x.dask.layers)
    apart: list[Pair] = []
    within: dict[str, tuple[Plan, dict[int, ZarrArray]]] = {}
    for lazy, target in pairs:
        token = lazy.name.rpartition("-")[2]
        blocks = lazy.dask.layers.get(f"accumulate-{token}")
        rows = _rows(token, blocks.plan) if isinstance(blocks, _graph.Blocks) else {}
        if lazy.name in rows and uses[lazy.name] == 1 and _fits(blocks.plan.chunks, _unit(target)):
            _, places = within.setdefault(token, (blocks.plan, {}))
            places[rows[lazy.name]] = target
        else:
            apart.append((lazy, target))
    written: list[DaskArray] = []
    moved: dict[str | None, DaskArray] = {}
    for token, (plan, places) in within.items():
        run = plan.run._replace(targets=tuple(places.items()))
        # A new name: what a scheduler remembers under the old one was not written.
        arrays, done = _graph.lay(uuid4().hex, plan._replace(run=run))
        written.append(done)
        moved.update(zip(_names(token, plan), arrays, strict=True))
    written += [_write_apart(_redirect(lazy, moved), target) for lazy, target in apart]
    return [x if x is None else _redirect(x, moved) for x in results], written


def _names(token: str, plan: Plan, /) -> list[str | None]:
    """Return the name of each result's lazy array."""
    return [None if result is None else _graph.array_name(result, token) for result in plan.run.results]


def _rows(token: str, plan: Plan, /) -> dict[str | None, int]:
    """Return the indices of the results that keep rows, by the names of their lazy arrays."""
    results = zip(_names(token, plan), plan.run.results, strict=True)
    return {name: i for i, (name, result) in enumerate(results) if result and result.keeps_rows}


def _redirect(x: DaskArray, moved: Mapping[str | None, DaskArray], /) -> DaskArray:
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
    rows: int = (target.shards or target.chunks)[0]
    return rows


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
    (start, stop), *_ = block_info[0]["array-location"]
    if stop > start:
        target[start:stop] = to_device(block, "cpu")
    done: Array = np.ones((1,) * block.ndim, dtype=bool)
    return done
