"""How `pullback.dask` divides a batch into blocks, and the graph that it makes of them."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate as running
from itertools import product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from array_api_compat import array_namespace, device
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from pullback._blocks import Result, Run, add, is_done, join, rows_of, sum_dtype, sum_of, sums_of, together
from pullback._typing import Array, DaskArray, Sizes, Step

Key = Hashable
Graph = dict[Key, Any]

# Dask's tasks that read a part of a source.
_READS = getter, getter_inline, getter_nofancy
# Starting a task takes some 0.2 ms, in which a core reads about a megabyte.
_TASK_BYTES = 8 * 2**20
# A strip should stay in a cache, but must outweigh the sums that are added up after each; and a step's own float32 sums
# are good for so many rows.
_STRIP_BYTES = 2 * 2**20
_STRIP_ROWS = 1024, 16_384
# Partial sums up to here are added up by a tree, so many at a time. Larger ones run along lanes, as many as fit here.
_TREE_BYTES = 4 * 2**20
_FAN_IN = 8
_LANES_BYTES = 512 * 2**20
_LANES = 2, 16
# What a step allocates on the way, in arrays of the size of its strip.
_STEP_ARRAYS = 3


class Plan(NamedTuple):
    """A step laid out on the blocks of a batch: all that its graph is made of."""

    run: Run
    metas: tuple[Array | None, ...]
    """For each entry of what the step returns, an empty array of its kind."""
    nodes: Graph
    """The tasks that blocks share, the shared arrays among them."""
    shared: list[Key]
    blocks: list[list[GraphNode | Key]]
    """For each block, the task of each array, or its key."""
    within: list[list[GraphNode]]
    """For each block, what it is made by where its arrays have that in common: a mask of rows, for one."""
    chunks: Sizes
    """The rows of each block; NaN where they are not known."""
    row_bytes: int
    sum_bytes: int
    lazy: HighLevelGraph
    """The graphs of shared arrays that are lazy."""

    def task_bytes(self, rows: int) -> int:
        """Predict the memory that a task takes for a block of so many rows."""
        kept: int = sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in self.run.results if x and x.keeps_rows)
        # A chunk that is compressed is there twice while it is read.
        strip = _STEP_ARRAYS * min(rows, self.run.strip) * (self.row_bytes + kept)
        return rows * (2 * self.row_bytes + kept) + strip + 3 * self.sum_bytes

    def held_bytes(self) -> int:
        """Predict the memory of the sums that wait for others between tasks."""
        levels = max(1, math.ceil(math.log(max(len(self.blocks), 1), _FAN_IN)))
        return self.sum_bytes * (_lanes(self) or _FAN_IN * levels)


class Blocks(MaterializedLayer):  # type: ignore[misc] # Dask is not typed here
    """The layer of the blocks' tasks, and the plan to lay them anew."""

    def __init__(self, mapping: Graph, plan: Plan) -> None:
        super().__init__(mapping)
        self.plan = plan


def name_of(result: Result, token: str, /) -> str:
    """Return the name of a result's lazy array."""
    return f"accumulated-{result.name}-{token}"


def make(  # noqa: PLR0913, PLR0917 - all that a plan is made of
    step: Step,
    batch: Sequence[DaskArray],
    sizes: Sizes,
    shared: Sequence[Array | DaskArray],
    out: tuple[Array | None, ...],
    results: tuple[Result | None, ...],
    /,
) -> Plan:
    """Divide the batch into blocks, each with the tasks that read it."""
    row_bytes = sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in batch)
    several = 1 if math.isnan(sum(sizes)) else max(1, _TASK_BYTES // max(max(sizes) * row_bytes, 1))
    keys = [[(x.name, i, *(0 for _ in x.shape[1:])) for i in range(len(sizes))] for x in batch]
    flat = [key for of_array in keys for key in of_array]
    read = batch[0].__dask_optimize__(HighLevelGraph.merge(*(x.dask for x in batch)), flat)
    graph: Graph = convert_legacy_graph(dict(read))
    uses = Counter(key for task in graph.values() for key in task.dependencies)
    uses.update(flat)
    # What has no second use becomes a part of its block's task.
    own = {key: _pop(graph, key, uses) for key in flat}
    blocks = [
        [_at_once([own[key] for key in of_array[i : i + several]]) for of_array in keys]
        for i in range(0, len(sizes), several)
    ]
    own_only = [_take(graph, arrays, uses) for arrays in blocks]
    shared_keys: list[Key] = []
    for x in shared:
        if isinstance(x, da.Array):
            shared_keys.append((x.name, *(0 for _ in x.shape)))
        else:
            shared_keys.append(f"shared-{tokenize(x)}")
            graph[shared_keys[-1]] = x
    low, high = _STRIP_ROWS
    strip = min(max(low, _STRIP_BYTES // max(row_bytes, 1)), high)
    return Plan(
        run=Run(step, results, len(batch), strip),
        metas=tuple(None if x is None or r is None else _empty(x, r) for x, r in zip(out, results, strict=True)),
        nodes=graph,
        shared=shared_keys,
        blocks=blocks,
        within=own_only,
        chunks=tuple(sum(sizes[i : i + several]) for i in range(0, len(sizes), several)),
        row_bytes=row_bytes,
        sum_bytes=sum(
            _sum_bytes(x) for x, r in zip(out, results, strict=True) if x is not None and r and not r.keeps_rows
        ),
        lazy=HighLevelGraph.merge(*(x.dask for x in shared if isinstance(x, da.Array))),
    )


def _pop(graph: Graph, key: Key, uses: Mapping[Key, int], /) -> GraphNode | Key:
    """Take the task of a key out of the graph, through its other names; return the key itself if it has more uses."""
    while uses[key] == 1 and key in graph:
        task = graph.pop(key)
        if not isinstance(task, Alias):
            return task
        key = task.target
    return key


def _take(graph: Graph, arrays: Sequence[GraphNode | Key], uses: Mapping[Key, int], /) -> list[GraphNode]:
    """Take the tasks out of the graph that are used for these arrays of a block and for nothing else."""
    taken: list[GraphNode] = []
    seen: Counter[Key] = Counter()
    left = [key for x in arrays for key in (x.dependencies if isinstance(x, GraphNode) else (x,))]
    while left:
        key = left.pop()
        seen[key] += 1
        if seen[key] == uses[key] and key in graph:
            taken.append(graph.pop(key))
            left.extend(taken[-1].dependencies)
    return taken


def _at_once(tasks: list[Any], /) -> GraphNode | Key:
    """Make one task of those of neighbouring chunks: one read of all their rows, if each reads rows of one source."""
    first: Any = tasks[0]
    if len(tasks) == 1:
        return first
    joined = Task(None, join, *map(_refer, tasks))
    if not all(isinstance(task, Task) and task.func in _READS for task in tasks):
        return joined
    (rows, *features), stop = first.args[1].value, None
    for task in tasks:
        (place, *others), source = task.args[1].value, task.args[0]
        alike = source == first.args[0] and others == features and task.kwargs == first.kwargs
        if not alike or place.step is not None or (stop is not None and place.start != stop):
            return joined
        stop = place.stop
    index = (slice(rows.start, stop), *features)
    return Task(first.key, first.func, first.args[0], DataNode(None, index), **first.kwargs)


def _sum_bytes(x: Array, /) -> int:
    """Return the bytes of a sum in the dtype of sums."""
    bits: int = 128 if array_namespace(x).isdtype(x.dtype, "complex floating") else 64
    return bits // 8 * math.prod(x.shape)


def _empty(x: Array, result: Result, /) -> Array:
    """Return an array of the kind of a result with nothing in it; sums of whole numbers take 64 bits."""
    xp = array_namespace(x)
    narrow = result.keeps_rows or not xp.isdtype(x.dtype, ("bool", "integral"))
    out: Array = xp.empty((0,) * x.ndim, dtype=x.dtype if narrow else sum_dtype(xp, x), device=device(x))
    return out


def lay(token: str, plan: Plan, /) -> tuple[list[DaskArray], DaskArray]:
    """Make the graph of a plan; return the results as lazy arrays, and one that is there when all blocks are done."""
    name = f"accumulate-{token}"
    run, block, own, total = (f"accumulate-{part}-{token}" for part in ("run", "block", "own", "total"))
    keys: list[Key] = [(block, i) for i in range(len(plan.blocks))]
    # Rows that are returned stay where they are while sums move on.
    returned = [i for i, x in enumerate(plan.run.results) if x and x.keeps_rows and i not in dict(plan.run.targets)]
    apart: Graph = {(own, i): (sums_of, key) for i, key in enumerate(keys)} if returned else {}
    parts: list[Key] = list(apart) or keys
    lanes = _lanes(plan)
    before = [*[None] * lanes, *parts] if lanes else [None] * len(keys)
    starts = list(running(plan.chunks, initial=0))
    graph: Graph = {run: plan.run, **plan.nodes, **apart}
    shared = [TaskRef(key) for key in plan.shared]
    for i, key in enumerate(keys):
        where = f"block {i}" if math.isnan(starts[i + 1]) else f"rows [{starts[i]}:{starts[i + 1]}]"
        arrays = map(_refer, plan.blocks[i])
        graph[key] = Task(key, Run.block, TaskRef(run), where, starts[i], _refer(before[i]), *arrays, *shared)
        if plan.within[i]:
            graph[key] = Task(key, together, *Task.fuse(graph[key], *plan.within[i]).args)
    parts = parts[-lanes:]
    added = 0
    while len(parts) > 1:
        groups = [parts[i : i + _FAN_IN] for i in range(0, len(parts), _FAN_IN)]
        parts = [(total, added + i) for i in range(len(groups))]
        graph.update(zip(parts, ((add, group) for group in groups), strict=True))
        added += len(groups)
    layers = {**plan.lazy.layers, name: Blocks(graph, plan)}
    within = {**plan.lazy.dependencies, name: set(plan.lazy.layers)}

    def array(key: str, tasks: Sequence[Any], chunks: Sequence[Sizes], meta: Array | None) -> DaskArray:
        """Return a lazy array with tasks for its chunks, which follow one another along the first axis."""
        places = product(*(range(len(sizes)) for sizes in chunks))
        layer = {(key, *place): task for place, task in zip(places, tasks, strict=True)}
        high = HighLevelGraph({**layers, key: MaterializedLayer(layer)}, {**within, key: {name}})
        return da.Array(high, key, tuple(chunks), meta=meta)

    results: list[DaskArray] = []
    for i, (result, meta) in enumerate(zip(plan.run.results, plan.metas, strict=True)):
        if result is None or meta is None:
            results.append(None)
            continue
        tasks: list[Any] = [(sum_of, parts[0], i, meta.dtype)]
        sizes: list[Sizes] = [(size,) for size in result.shape]
        if result.keeps_rows:
            tasks = [(rows_of, key, i) for key in keys]
            sizes[0] = plan.chunks
        results.append(array(name_of(result, token), tasks, sizes, meta))
    done = array(f"accumulate-done-{token}", [(is_done, parts[0])], ((1,),), np.empty(0, dtype=bool))
    return results, done


def _refer(task: GraphNode | Key | None, /) -> GraphNode | TaskRef | None:
    """Return a reference to what is given by its key."""
    return task if task is None or isinstance(task, GraphNode) else TaskRef(task)


def _lanes(plan: Plan, /) -> int:
    """Return the number of lanes to add up along; none where a tree is small enough."""
    if plan.sum_bytes <= _TREE_BYTES:
        return 0
    fewest, most = _LANES
    return min(max(fewest, _LANES_BYTES // plan.sum_bytes), most)
