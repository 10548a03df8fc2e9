"""The graph of `pullback.dask`: a task for each block of a plan, and sums in an order that the graph fixes."""

import math
from collections.abc import Sequence
from itertools import accumulate as running
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pullback._core.typing import Array, DaskArray, Sizes
from pullback.dask._inputs import Result
from pullback.dask._plan import FAN_IN, Graph, Key, Plan, refer
from pullback.dask._task import Run, add, is_done, rows_of, run_fused, sum_of, sums_of


class Blocks(MaterializedLayer):  # type: ignore[misc] # Dask is not typed here
    """The layer of the blocks' tasks, and the plan to lay them anew."""

    def __init__(self, mapping: Graph, plan: Plan, block: str, tasks: int) -> None:
        super().__init__(mapping)
        self.plan = plan
        self.block = block
        """What the names of the blocks' tasks begin with."""
        self.tasks = tasks
        """How many there are, with those that add up their sums."""


def blocks_of(*lazy: DaskArray) -> list[Blocks]:
    """Return each layer of blocks that lazy arrays, or None, are made of."""
    layers = {name: layer for x in lazy if x is not None for name, layer in x.dask.layers.items()}
    return [layer for layer in layers.values() if isinstance(layer, Blocks)]


def array_name(result: Result, token: str, /) -> str:
    """Return the name of a result's lazy array."""
    return f"accumulated-{result.name}-{token}"


def lay(token: str, plan: Plan, /) -> tuple[list[DaskArray], DaskArray]:
    """Make the graph of a plan; return the results as lazy arrays, and one that is there when all blocks are done."""
    name = f"accumulate-{token}"
    run, block, own, total = (f"accumulate-{part}-{token}" for part in ("run", "block", "own", "total"))
    keys: list[Key] = [(block, i) for i in range(len(plan.blocks))]
    # Rows that are returned stay where they are while sums move on.
    stored = {i for i, _ in plan.run.targets}
    returned = any(x and x.keeps_rows and i not in stored for i, x in enumerate(plan.run.results))
    apart: Graph = {(own, i): Task((own, i), sums_of, TaskRef(key)) for i, key in enumerate(keys)} if returned else {}
    parts: list[Key] = list(apart) or keys
    lanes = plan.lanes
    before = [*[None] * lanes, *parts] if lanes else [None] * len(keys)
    starts = list(running(plan.chunks, initial=0))
    graph: Graph = {run: plan.run, **plan.nodes, **apart}
    shared = [TaskRef(key) for key in plan.shared]
    for i, key in enumerate(keys):
        where = f"block {i}" if math.isnan(starts[i + 1]) else f"rows [{starts[i]}:{starts[i + 1]}]"
        arrays = map(refer, plan.blocks[i])
        graph[key] = Task(key, Run.block, TaskRef(run), where, starts[i], refer(before[i]), *arrays, *shared)
        if plan.within[i]:
            graph[key] = Task(key, run_fused, *Task.fuse(graph[key], *plan.within[i]).args)
    parts = parts[-lanes:]
    added = 0
    while len(parts) > 1:
        groups = [parts[i : i + FAN_IN] for i in range(0, len(parts), FAN_IN)]
        parts = [(total, added + i) for i in range(len(groups))]
        graph |= {key: Task(key, add, List(*map(TaskRef, group))) for key, group in zip(parts, groups, strict=True)}
        added += len(groups)
    layers = {**plan.lazy.layers, name: Blocks(graph, plan, block, len(keys) + added)}
    within = {**plan.lazy.dependencies, name: set(plan.lazy.layers)}

    def array(key: str, tasks: Sequence[Any], chunks: Sequence[Sizes], meta: Array) -> DaskArray:
        """Return a lazy array with tasks for its chunks, which follow one another along the first axis."""
        places = product(*(range(len(sizes)) for sizes in chunks))
        layer = {(key, *place): task for place, task in zip(places, tasks, strict=True)}
        high = HighLevelGraph({**layers, key: MaterializedLayer(layer)}, {**within, key: {name}})
        return da.Array(high, key, tuple(chunks), meta=meta)

    results: list[DaskArray] = []
    for i, result in enumerate(plan.run.results):
        if result is None:
            results.append(None)
            continue
        tasks: list[Any] = [(sum_of, parts[0], i, result.meta.dtype)]
        sizes: list[Sizes] = [(size,) for size in result.shape]
        if result.keeps_rows:
            tasks = [(rows_of, key, i) for key in keys]
            sizes[0] = plan.chunks
        results.append(array(array_name(result, token), tasks, sizes, result.meta))
    done = array(f"accumulate-done-{token}", [(is_done, parts[0])], ((1,),), np.empty(0, dtype=bool))
    return results, done
