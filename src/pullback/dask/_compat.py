"""Interfaces of Dask and threadpoolctl that are private or new, all that this package uses of them."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from dask._task_spec import (
    Alias,
    DataNode,
    GraphNode,
    List,
    Task,
    TaskRef,
    _execute_subgraph,
    convert_legacy_graph,
)
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.blockwise import Blockwise, blockwise_token, optimize_blockwise
from dask.highlevelgraph import HighLevelGraph
from threadpoolctl import OpenBLASController

from pullback._core.typing import Array, DaskArray

__all__ = [
    "READS",
    "Alias",
    "DataNode",
    "GraphNode",
    "List",
    "Task",
    "TaskRef",
    "empty_block",
    "fuse",
    "release_blas_control",
    "source_of",
    "tasks_of_layer",
    "tasks_of_places",
    "to_tasks",
]

READS = getter, getter_inline, getter_nofancy
"""The functions of tasks that read a part of a source."""


def to_tasks(graph: Mapping[Any, Any], /) -> dict[Any, Any]:
    """Return a graph of tasks, of which those that Dask has fused run without being sorted."""
    tasks = convert_legacy_graph(graph)
    fused = {key: task for key, task in tasks.items() if isinstance(task, Task) and task.func is _execute_subgraph}
    return {**tasks, **{key: Task(key, run_fused, *task.args) for key, task in fused.items()}}


def source_of(x: DaskArray, /) -> object:
    """Return what a lazy array reads a part of in each of its tasks, if they do nothing else and hold it themselves."""
    layer = x.dask.layers[x.name]
    return layer.indices[0][0] if _is_read(layer) else None


def tasks_of_layer(layer: Any, /) -> Iterable[tuple[Any, Any]]:  # noqa: ANN401 - a layer of any kind
    """Return the keys and tasks of a layer, and make each task that reads a part of a source once.

    Dask makes each of them three times, which takes longer than reading a small chunk.
    """
    if not _is_read(layer):
        return layer.items()
    (source, _), (parts, _) = layer.indices
    node = source if isinstance(source, TaskRef) else DataNode(None, source)
    slices, func, options = layer.io_deps[parts], layer.task.func, layer.task.kwargs
    places = product(*map(range, layer.numblocks[parts]))
    keys = ((layer.output, *place) for place in places)
    return ((key, Task(key, func, node, DataNode(None, slices[key[1:]]), **options)) for key in keys)


def _is_read(layer: Any, /) -> bool:  # noqa: ANN401 - a layer of any kind
    """Whether each task of a layer reads a part of one source, and does nothing else."""
    return isinstance(layer, Blockwise) and layer.task.func in READS and len(layer.io_deps) == 1


def tasks_of_places(graph: HighLevelGraph, keys: Sequence[Any], /) -> dict[Any, Any] | None:
    """Return the tasks of some keys where each is made of its place alone, as in ``ones(...) + 1``; None elsewhere.

    Dask's own optimization makes each of them three times, which takes longer than the work on a small chunk.
    """
    layers = optimize_blockwise(graph, keys=keys).layers
    if not all(map(_is_of_places, layers.values())):
        return None
    templates = {name: _template(layer) for name, layer in layers.items()}
    return {key: _of_place(templates[key[0]], layers[key[0]], key) for key in keys}


def _is_of_places(layer: Any, /) -> bool:  # noqa: ANN401 - a layer of any kind
    """Whether the tasks of a layer read nothing but the place of their chunk, and what is the same for all."""
    if not isinstance(layer, Blockwise):
        return False
    return all(
        not isinstance(x, GraphNode | TaskRef)
        if index is None
        else x in layer.io_deps and not layer.io_deps[x].produces_tasks and {*index} <= {*layer.output_indices}
        for x, index in layer.indices
    )


def _template(layer: Blockwise, /) -> Task:
    """Return the task of a layer with the arguments that are the same for all its chunks."""
    same = {blockwise_token(i): DataNode(None, x) for i, (x, index) in enumerate(layer.indices) if index is None}
    return layer.task.substitute(same)


def _of_place(template: Task, layer: Blockwise, key: tuple[Any, ...], /) -> Task:
    """Return the task of a chunk."""
    place, values = dict(zip(layer.output_indices, key[1:], strict=True)), {}
    for i, (x, index) in enumerate(layer.indices):
        if index is not None:
            # What has one chunk along an axis gives it to all.
            at = tuple(place[a] if n > 1 else 0 for a, n in zip(index, layer.numblocks[x], strict=True))
            values[blockwise_token(i)] = DataNode(None, layer.io_deps[x].get(at, at))
    return template.substitute(values, key=key)


def empty_block(x: DaskArray, /) -> Array:
    """Return an empty array of the library, dtype and device of a lazy array's blocks."""
    return x._meta  # noqa: SLF001


def fuse(task: Task, others: Sequence[GraphNode], /) -> Task:
    """Return one task that runs the others, which only it needs, and then itself."""
    return Task(task.key, run_fused, *Task.fuse(task, *others).args)


def run_fused(tasks: Mapping[Any, GraphNode], last: Hashable, names: Sequence[Hashable], /, *inputs: object) -> object:
    """Run tasks that were fused into one, depth first, and let go of what no other of them needs.

    Dask's own function sorts them in each run, which takes longer than the work on a small chunk.
    """
    values: dict[Any, object] = dict(zip(names, inputs, strict=True))
    uses = Counter(key for task in tasks.values() for key in task.dependencies)
    waiting, done = [last], set(names)
    while waiting:
        key = waiting[-1]
        missing = [] if key in done else [x for x in tasks[key].dependencies if x not in done]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if key not in done:
            values[key] = tasks[key](values)
            done.add(key)
            uses.subtract(tasks[key].dependencies)
            for used in tasks[key].dependencies:
                if not uses[used]:
                    del values[used]
    return values[last]


def release_blas_control() -> None:
    """Let any thread set the number of OpenBLAS's threads: since 3.8, threadpoolctl listens to one at a time."""
    getattr(OpenBLASController, "clear_controlling_thread", lambda **_: None)(force=True)
