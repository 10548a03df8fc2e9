"""Tasks give what Dask's own give, and let go of what they no longer need."""

import gc
import weakref
from collections.abc import Callable
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
import pytest
from dask._task_spec import DataNode, Task, TaskRef, _execute_subgraph
from dask.core import flatten
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.dask import accumulate, compute
from pullback.dask._compat import run_fused, tasks_of_layer, tasks_of_places, to_tasks


def combine(*values: Any) -> int:
    return sum((i + 1) * value for i, value in enumerate(values)) % 1009


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_same_values_as_dask(data: Any) -> None:
    """Of any graph: chains, diamonds, inputs used more than once or never."""
    count = data.draw(st.integers(1, 8))
    names = ["in0", "in1"]
    tasks: dict[Any, Any] = {"data": DataNode("data", 5)}
    for i in range(count):
        below = [*names, *tasks]
        needs = data.draw(st.lists(st.sampled_from(below), min_size=1, max_size=3))
        tasks[i] = Task(i, combine, *map(TaskRef, needs))
    last = count - 1
    assert run_fused(tasks, last, names, 3, 7) == _execute_subgraph(tasks, last, names, 3, 7)


def test_lets_go_of_what_is_used_up() -> None:
    seen: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def grow(x: Any) -> Any:
        gc.collect()
        alive.append(sum(ref() is not None for ref in seen))
        y = x + 1
        seen.append(weakref.ref(y))
        return y

    tasks = {i: Task(i, grow, TaskRef(i - 1)) for i in range(1, 6)}
    assert run_fused(tasks, 5, (0,), np.zeros(3)).tolist() == [5, 5, 5]  # type: ignore[attr-defined] # an array
    assert alive == [0, 1, 1, 1, 1]


class Source:
    shape, ndim, dtype = (10, 3), 2, np.dtype("f4")

    def __getitem__(self, key: Any) -> Any:
        return np.arange(30, dtype=self.dtype).reshape(self.shape)[key]


@pytest.mark.parametrize(
    "options", [{}, {"inline_array": True}, {"asarray": False}, {"fancy": False}, {"lock": True}, {"getitem": getitem}]
)
def test_reads_are_dasks_own(options: dict[str, Any]) -> None:
    x = da.from_array(Source(), chunks=(4, 2), name="x", meta=np.empty((0, 0), "f4"), **options)
    for layer in x.dask.layers.values():
        own, made = dict(layer.items()), dict(tasks_of_layer(layer))
        assert own == made
        assert list(own) == list(made)
        for task, other in zip(own.values(), made.values(), strict=True):
            assert getattr(task, "dependencies", None) == getattr(other, "dependencies", None)


def test_makes_a_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask substitutes two arguments in each of its own, which takes longer than reading a small chunk."""
    x = da.from_array(Source(), chunks=(4, 3), name="x", meta=np.empty((0, 0), "f4"))
    calls: list[object] = []
    monkeypatch.setattr(Task, "substitute", lambda self, *_, **__: calls.append(self))
    (total,) = accumulate(lambda block: (block.sum(),), x)
    monkeypatch.undo()
    assert calls == []
    assert compute(total)[0] == 435


def numbered(x: Any, block_id: tuple[int, int] = (0, 0), block_info: Any = None) -> Any:
    info = block_info[None]["array-location"][0] if block_info else (0, 0)
    return x + block_id[0] + 10 * info[1]


def ones(*shape: int) -> Any:
    return da.ones(shape, chunks=(4, 2))


PLACES: dict[str, Callable[[], Any]] = {
    "one function": lambda: ones(10, 2),
    "a number": lambda: 2 * ones(10, 2) + 1,
    "two arrays": lambda: ones(10, 2) - 3 * da.full((10, 2), 5, chunks=(4, 2)),
    "broadcast rows": lambda: ones(10, 2) + 3 * ones(1, 2),
    "broadcast columns": lambda: ones(10, 2) + 3 * ones(10, 1),
    "transposed": lambda: (ones(4, 10) + 1).T + da.ones((10, 4), chunks=(2, 4)),
    "places": lambda: da.map_blocks(numbered, ones(10, 2), dtype=float),
    "columns": lambda: ones(10, 6).rechunk((4, 2)) + 1,
}
OTHERS: dict[str, Callable[[], Any]] = {
    "an array in memory": lambda: da.from_array(np.ones((10, 2)), chunks=(4, 2)) + 1,
    "a selection": lambda: (ones(10, 2) + 1)[3:],
    "a sum": lambda: ones(10, 2).sum(axis=1, keepdims=True) + ones(10, 2),
    "a product": lambda: ones(10, 4) @ ones(4, 2),
}


@pytest.mark.parametrize("name", PLACES)
def test_tasks_of_places(name: str) -> None:
    """Where tasks read nothing, they are made without Dask's optimization, and compute the same chunks."""
    x = PLACES[name]()
    keys = list(flatten(x.__dask_keys__()))
    found = tasks_of_places(x.dask, keys)
    assert found is not None
    assert list(found) == keys
    assert all(not task.dependencies for task in found.values())
    ours = {key[1:]: task({}) for key, task in to_tasks(found).items()}
    for place in np.ndindex(x.numblocks):
        np.testing.assert_array_equal(ours[place], x.blocks[place].compute(scheduler="sync"))


@pytest.mark.parametrize("name", OTHERS)
def test_tasks_that_read(name: str) -> None:
    """Expressions that read other tasks or arrays go through the optimization of Dask."""
    x = OTHERS[name]()
    assert tasks_of_places(x.dask, list(flatten(x.__dask_keys__()))) is None
