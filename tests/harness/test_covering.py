"""The sample of combinations: each value of each parameter in each function, most pairs of values in each file."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.harness.covering import covering

MODES, NAMES, LAYOUTS = ("a", "b"), ("huber", "logistic", "poisson"), ("strided", "reversed")


def make(function: str, *marks: str | tuple[str, ...], **params: Any) -> Any:
    """Stand in for a test that pytest has collected."""
    parametrized = [pytest.mark.parametrize(names, []).mark for names in marks]
    nodeid = f"tests/test_x.py::{function}[{'-'.join(map(str, params.values()))}]"
    callspec = SimpleNamespace(params=params)
    return SimpleNamespace(
        path=Path("tests/test_x.py"), nodeid=nodeid, callspec=callspec, iter_markers=lambda _: parametrized
    )


def test_each_value_occurs() -> None:
    combinations = product(MODES, NAMES, LAYOUTS)
    items = [make("test_layout", "name", "layout", backend=x, name=y, layout=z) for x, y, z in combinations]
    chosen: list[Any] = covering(items)
    assert len(chosen) == 3
    for parameter, values in {"backend": MODES, "name": NAMES, "layout": LAYOUTS}.items():
        assert {item.callspec.params[parameter] for item in chosen} == set(values)


def test_functions_of_a_file_share_the_pairs_of_values() -> None:
    pairs = list(product(MODES, NAMES))
    items = [
        make(function, "name", backend=x, name=y) for function in ("test_value", "test_gradient") for x, y in pairs
    ]
    chosen: list[Any] = covering(items)
    assert len(chosen) == 2 * 3
    assert {(item.callspec.params["backend"], item.callspec.params["name"]) for item in chosen} == set(pairs)


def test_values_that_are_given_together_stay_together() -> None:
    given = [("sum", 1), ("mean", 2), ("sum", 2), ("mean", 1)]
    for names in ("reduction, axis", ("reduction", "axis")):
        items = [make("test_reduction", names, reduction=x, axis=y) for x, y in given]
        assert covering(items) == items


def test_a_test_without_parameters_stays() -> None:
    item = SimpleNamespace(path=Path("tests/test_x.py"), nodeid="tests/test_x.py::test_x")
    values: Any = [item]
    assert covering(values) == values
