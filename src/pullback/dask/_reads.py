"""The tasks that read the blocks of a batch for `pullback.dask`: which task reads what."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dask.highlevelgraph import HighLevelGraph

from pullback._core.typing import DaskArray
from pullback.dask._compat import (
    READS,
    Alias,
    DataNode,
    GraphNode,
    List,
    Task,
    TaskRef,
    tasks_of_layer,
    tasks_of_places,
    to_tasks,
)

Key = Hashable
Graph = dict[Key, Any]


def divide(
    batch: Sequence[DaskArray], several: int, /
) -> tuple[Graph, list[list[GraphNode | Key]], list[list[GraphNode]]]:
    """Divide a batch into blocks of several chunks.

    Returns the tasks that several blocks need; for each block the task of each array, or its key; and for each block
    the tasks that more than one of its arrays needs, and no other block, as a mask of rows.
    """
    count = batch[0].numblocks[0]
    keys = [[(x.name, i, *(0 for _ in x.shape[1:])) for i in range(count)] for x in batch]
    flat = [key for of_array in keys for key in of_array]
    graph: Graph = to_tasks(_needed(batch, flat))
    uses = Counter(key for task in graph.values() for key in task.dependencies)
    uses.update(flat)
    # A task that is used once becomes a part of its block's task.
    own = {key: _pop(graph, key, uses) for key in flat}
    blocks = [
        [_at_once([own[key] for key in of_array[i : i + several]]) for of_array in keys]
        for i in range(0, count, several)
    ]
    return graph, blocks, [_take(graph, arrays, uses) for arrays in blocks]


def _needed(batch: Sequence[DaskArray], keys: Sequence[Key], /) -> dict[Key, Any]:
    """Return the tasks that lead to some keys, with slices and reads in one."""
    if all({*x.dask.layers} <= {x.name, f"original-{x.name}"} for x in batch):
        # Arrays that are only read: there is nothing to leave out or to join, and looking for it takes a third longer.
        return {key: task for x in batch for layer in x.dask.layers.values() for key, task in tasks_of_layer(layer)}
    graph = HighLevelGraph.merge(*(x.dask for x in batch))
    made = tasks_of_places(graph, keys)
    return dict(batch[0].__dask_optimize__(graph, keys)) if made is None else made


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
    """Read neighbouring chunks at once where each is a part of one source; else return a list of their tasks."""
    first: Any = tasks[0]
    if len(tasks) == 1:
        return first
    rows = _one_read(tasks)
    if rows is None:
        return List(*map(refer, tasks))
    index = (rows, *first.args[1].value[1:])
    return Task(first.key, first.func, first.args[0], DataNode(None, index), **first.kwargs)


def _one_read(tasks: list[Any], /) -> slice | None:
    """Return the rows that tasks read if they follow one another in one source, and None if not."""
    first = tasks[0]
    if not all(isinstance(task, Task) and task.func in READS for task in tasks):
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
