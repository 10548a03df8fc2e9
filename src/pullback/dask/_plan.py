"""How `pullback.dask` divides a batch into blocks, and what memory they take."""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import dask.array as da
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from pullback._core.typing import Array, DaskArray, Sizes, Step
from pullback.dask._inputs import Result
from pullback.dask._task import Run, join

Key = Hashable
Graph = dict[Key, Any]

# Dask's tasks that read a part of a source.
_READS = getter, getter_inline, getter_nofancy
# Starting a task takes some 0.2 ms, in which a core reads about a megabyte.
TASK_BYTES = 8 * 2**20
# A strip should stay in a cache, but must outweigh the sums that are added up after each; and a step's own float32 sums
# are good for so many rows.
_STRIP_BYTES = 4 * 2**20
_STRIP_ROWS = 1024, 16_384
# Partial sums up to here are added up by a tree, so many at a time. Larger ones run along lanes, as many as fit here.
_TREE_BYTES = 4 * 2**20
FAN_IN = 8
_LANES_BYTES = 512 * 2**20
_LANES = 2, 16
# What a step allocates on the way, in arrays of the size of its strip.
_STEP_ARRAYS = 3


class Plan(NamedTuple):
    """A step laid out on the blocks of a batch: all that its graph is made of."""

    run: Run
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
    lazy: HighLevelGraph
    """The graphs of shared arrays that are lazy."""

    @property
    def sum_bytes(self) -> int:
        """Return the bytes of all sums of a block."""
        return sum(x.sum_bytes for x in self.run.results if x)

    @property
    def lanes(self) -> int:
        """Return the number of lanes to add up along; none where a tree is small enough."""
        if self.sum_bytes <= _TREE_BYTES:
            return 0
        fewest, most = _LANES
        return min(max(fewest, _LANES_BYTES // self.sum_bytes), most)

    def task_bytes(self, rows: int) -> int:
        """Predict the memory that a task takes for a block of so many rows."""
        kept = sum(x.row_bytes for x in self.run.results if x)
        # A chunk that is compressed is there twice while it is read.
        strip = _STEP_ARRAYS * min(rows, self.run.strip) * (self.row_bytes + kept)
        return rows * (2 * self.row_bytes + kept) + strip + 3 * self.sum_bytes

    def held_bytes(self) -> int:
        """Predict the memory of the sums that wait for others between tasks."""
        levels = max(1, math.ceil(math.log(max(len(self.blocks), 1), FAN_IN)))
        return self.sum_bytes * (self.lanes or FAN_IN * levels)


def make(
    step: Step,
    batch: Sequence[DaskArray],
    sizes: Sizes,
    shared: Sequence[Array | DaskArray],
    results: tuple[Result | None, ...],
    /,
) -> Plan:
    """Divide the batch into blocks, each with the tasks that read it."""
    row_bytes = sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in batch)
    several = 1 if math.isnan(sum(sizes)) else max(1, TASK_BYTES // max(max(sizes) * row_bytes, 1))
    keys = [[(x.name, i, *(0 for _ in x.shape[1:])) for i in range(len(sizes))] for x in batch]
    flat = [key for of_array in keys for key in of_array]
    graph: Graph = convert_legacy_graph(_needed(batch, flat))
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
        nodes=graph,
        shared=shared_keys,
        blocks=blocks,
        within=own_only,
        chunks=tuple(sum(sizes[i : i + several]) for i in range(0, len(sizes), several)),
        row_bytes=row_bytes,
        lazy=HighLevelGraph.merge(*(x.dask for x in shared if isinstance(x, da.Array))),
    )


def _needed(batch: Sequence[DaskArray], keys: Sequence[Key], /) -> dict[Key, Any]:
    """Return the tasks that lead to some keys, with slices and reads in one."""
    if all({*x.dask.layers} <= {x.name, f"original-{x.name}"} for x in batch):
        # Arrays that are only read: there is nothing to leave out or to join, and looking for it takes a third longer.
        return {key: task for x in batch for layer in x.dask.layers.values() for key, task in layer.items()}
    return dict(batch[0].__dask_optimize__(HighLevelGraph.merge(*(x.dask for x in batch)), keys))


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
    rows = _one_read(tasks)
    if rows is None:
        return Task(None, join, *map(refer, tasks))
    index = (rows, *first.args[1].value[1:])
    return Task(first.key, first.func, first.args[0], DataNode(None, index), **first.kwargs)


def _one_read(tasks: list[Any], /) -> slice | None:
    """Return the rows that tasks read if they follow one another in one source, and None if not."""
    first = tasks[0]
    if not all(isinstance(task, Task) and task.func in _READS for task in tasks):
        return None
    (rows, *features), stop = first.args[1].value, None
    for task in tasks:
        (place, *others), source = task.args[1].value, task.args[0]
        alike = _same(source, first.args[0]) and others == features and task.kwargs == first.kwargs
        if not alike or place.step is not None or (stop is not None and place.start != stop):
            return None
        stop = place.stop
    return slice(rows.start, stop)


def _same(source: Any, other: Any, /) -> bool:  # noqa: ANN401 - what a task reads, or the node or the name of that
    """Whether two sources are one: nodes are compared by tokens, which take longer than a look at what they hold."""
    held = isinstance(source, DataNode) and isinstance(other, DataNode) and source.value is other.value
    return held or bool(source == other)


def refer(task: GraphNode | Key | None, /) -> GraphNode | TaskRef | None:
    """Return a reference to what is given by its key."""
    return task if task is None or isinstance(task, GraphNode) else TaskRef(task)
