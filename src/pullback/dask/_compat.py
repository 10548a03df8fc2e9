"""Interfaces of Dask and threadpoolctl that are private or new, all that this package uses of them."""

from collections.abc import Sequence
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
    "to_tasks",
]

READS = getter, getter_inline, getter_nofancy
"""The functions of tasks that read a part of a source."""

to_tasks = convert_legacy_graph


def empty_block(x: DaskArray, /) -> Array:
    """Return an empty array of the library, dtype and device of a lazy array's blocks."""
    meta: Array = x._meta  # noqa: SLF001
    return meta


def fuse(task: Task, others: Sequence[GraphNode], /) -> Task:
    """Return one task that runs the others, which only it needs, and then itself."""
    return Task(task.key, run_fused, *Task.fuse(task, *others).args)


def run_fused(*args: object) -> Any:  # noqa: ANN401 - what the last task returns
    """Run fused tasks."""
    # Dask's optimization takes a task with a function of Dask's own for a chain, and merges the slices in it.
    return _execute_subgraph(*args)


def release_blas_control() -> None:
    """Let any thread set the number of OpenBLAS's threads: since 3.8, threadpoolctl listens to one at a time."""
    getattr(OpenBLASController, "clear_controlling_thread", lambda **_: None)(force=True)
