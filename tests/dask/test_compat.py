"""Fused tasks give what Dask's own function gives, and let go of what they no longer need."""

import gc
import weakref
from typing import Any

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef, _execute_subgraph
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.dask._compat import run_fused


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
