"""The graph of `pullback.dask`: a task for each block of a plan, and sums in an order that the graph fixes."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pullback._core.typing import DaskArray, Sizes
from pullback.dask._compat import DataNode, List, Task, TaskRef, fuse
from pullback.dask._inputs import Result
from pullback.dask._plan import FAN_IN, Plan
from pullback.dask._reads import Graph, Key, refer
from pullback.dask._task import Run, add, is_done, rows_of, sum_of, sums_of


class Blocks(MaterializedLayer):  # type: ignore[misc] # Dask is not typed here
    """The layer of the blocks' tasks, and the plan from which another can be made."""

    def __init__(self, mapping: Graph, plan: Plan, block: str, tasks: int) -> None:
        super().__init__(mapping)
        self.plan = plan
        self.block = block
        """The prefix of the names of the blocks' tasks."""
        self.tasks = tasks
        """The number of these tasks and of those that add their sums."""


def blocks_of(*lazy: DaskArray) -> list[Blocks]:
    """Return each layer of blocks that lazy arrays, or None, are made of."""
    layers = {name: layer for x in lazy if x is not None for name, layer in x.dask.layers.items()}
    return [layer for layer in layers.values() if isinstance(layer, Blocks)]


def array_name(result: Result, token: str, /) -> str:
    """Return the name of a result's lazy array."""
    return f"accumulated-{result.name}-{token}"


def lay(token: str, plan: Plan, /) -> tuple[list[DaskArray], DaskArray]:
    """Make the graph of a plan; return the results as lazy arrays, and one that is there when all blocks are done."""
    block = f"accumulate-block-{token}"
    blocks: list[Key] = [(block, i) for i in range(len(plan.blocks))]
    apart = _sums_apart(token, plan, blocks)
    parts: list[Key] = list(apart) or blocks
    tree, total = _sum_tree(token, parts[-plan.lanes :])
    graph = {**plan.nodes, **apart, **_block_tasks(token, plan, blocks, parts), **tree}
    return _arrays(token, plan, Blocks(graph, plan, block, len(blocks) + len(tree)), blocks, total)


def _sums_apart(token: str, plan: Plan, blocks: Sequence[Key], /) -> Graph:
    """Return tasks that take the sums from a block's results, so that returned rows stay where they are."""
    stored = {i for i, _ in plan.run.targets}
    if not any(x.keeps_rows and i not in stored for i, x in enumerate(plan.run.results)):
        return {}
    keys = [(f"accumulate-own-{token}", i) for i in range(len(blocks))]
    return {key: Task(key, sums_of, TaskRef(block)) for key, block in zip(keys, blocks, strict=True)}


def _block_tasks(token: str, plan: Plan, blocks: Sequence[Key], parts: Sequence[Key], /) -> Graph:
    """Return the tasks of the blocks; along lanes, each adds its sums to those of an earlier block."""
    run = f"accumulate-run-{token}"
    before: list[Key | None] = [None] * len(blocks)
    if plan.lanes:
        before = [*[None] * plan.lanes, *parts]
    shared = [TaskRef(key) for key in plan.shared]
    # A node, whose containers Dask does not search for tasks.
    graph: Graph = {run: DataNode(run, plan.run)}
    for i, key in enumerate(blocks):
        arrays = map(refer, plan.blocks[i])
        task = Task(key, Run.block, TaskRef(run), plan.places[i], refer(before[i]), *arrays, *shared)
        graph[key] = fuse(task, plan.within[i]) if plan.within[i] else task
    return graph


def _sum_tree(token: str, parts: Sequence[Key], /) -> tuple[Graph, Key]:
    """Return tasks that add the sums of a few parts at a time, and the key of their total."""
    graph: Graph = {}
    while len(parts) > 1:
        groups = [parts[i : i + FAN_IN] for i in range(0, len(parts), FAN_IN)]
        parts = [(f"accumulate-total-{token}", len(graph) + i) for i in range(len(groups))]
        graph |= {key: Task(key, add, List(*map(TaskRef, group))) for key, group in zip(parts, groups, strict=True)}
    return graph, parts[0]


def _arrays(
    token: str, plan: Plan, layer: Blocks, blocks: Sequence[Key], total: Key, /
) -> tuple[list[DaskArray], DaskArray]:
    """Return the results as lazy arrays over the layer of blocks, and one that is there when all blocks are done."""
    name = f"accumulate-{token}"
    layers = {**plan.lazy.layers, name: layer}
    within = {**plan.lazy.dependencies, name: set(plan.lazy.layers)}

    def array(key: str, tasks: Sequence[Any], chunks: Sequence[Sizes], meta: Any) -> DaskArray:  # noqa: ANN401
        """Return a lazy array with tasks for its chunks, which follow one another along the first axis."""
        places = product(*(range(len(sizes)) for sizes in chunks))
        of_chunks = {(key, *place): task for place, task in zip(places, tasks, strict=True)}
        high = HighLevelGraph({**layers, key: MaterializedLayer(of_chunks)}, {**within, key: {name}})
        return da.Array(high, key, tuple(chunks), meta=meta)

    results: list[DaskArray] = []
    for i, result in enumerate(plan.run.results):
        tasks: list[Any] = [(sum_of, total, i, result.meta.dtype)]
        sizes: list[Sizes] = [(size,) for size in result.shape]
        if result.keeps_rows:
            tasks = [(rows_of, key, i) for key in blocks]
            sizes[0] = plan.chunks
        results.append(array(array_name(result, token), tasks, sizes, result.meta))
    done = array(f"accumulate-done-{token}", [(is_done, total)], ((1,),), np.empty(0, dtype=bool))
    return results, done
