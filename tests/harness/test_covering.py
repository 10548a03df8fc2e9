"""The sample of combinations: each value of each parameter, tables that are shared, most pairs of values in a file."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.harness.covering import covering

MODES = tuple(SimpleNamespace(mode=x, brief=False) for x in ("read-only", "plain"))
BRIEF = tuple(SimpleNamespace(mode=x, brief=True) for x in ("jit", "second device"))
NAMES, LAYOUTS = ("huber", "logistic", "poisson"), ("strided", "reversed")
DTYPES = ("float16", "float32", "float64")


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
        assert all(any(item.callspec.params[parameter] is x for item in chosen) for x in values)


def test_functions_of_a_file_share_the_pairs_of_values() -> None:
    pairs = list(product(MODES, DTYPES))
    # What no `parametrize` gives is a fixture's: each function gets all of it.
    items = [make(function, backend=x, dtype=y) for function in ("test_value", "test_gradient") for x, y in pairs]
    chosen: list[Any] = covering(items)
    assert len(chosen) == 2 * 3
    found = [(item.callspec.params["backend"], item.callspec.params["dtype"]) for item in chosen]
    assert all(pair in found for pair in pairs)


def names_of(chosen: list[Any], function: str) -> list[str]:
    return [item.callspec.params["name"] for item in chosen if f"::{function}[" in item.nodeid]


def test_functions_of_a_file_share_a_table() -> None:
    """Each entry is in a third of the functions, and each function has a third of the entries."""
    table, functions = [f"loss {i}" for i in range(7)], [f"test_{i}" for i in range(6)]
    chosen: list[Any] = covering([make(x, "name", name=y) for x in functions for y in table])
    assert names_of(chosen, "test_0") == ["loss 0", "loss 3", "loss 6"]
    assert names_of(chosen, "test_1") == ["loss 1", "loss 4"]
    assert names_of(chosen, "test_2") == ["loss 2", "loss 5"]
    assert all(sum(item.callspec.params["name"] == x for item in chosen) == 2 for x in table)


def test_two_functions_share_a_table_by_halves() -> None:
    chosen: list[Any] = covering([make(x, "name", name=y) for x in ("test_a", "test_b") for y in NAMES])
    assert names_of(chosen, "test_a") == ["huber", "poisson"]
    assert names_of(chosen, "test_b") == ["logistic"]


def test_functions_of_a_file_share_brief_modes_and_devices_after_the_first() -> None:
    functions = [f"test_{i}" for i in range(6)]
    chosen: list[Any] = covering([make(x, backend=y) for x in functions for y in (*MODES, *BRIEF)])
    for i, function in enumerate(functions):
        modes = [item.callspec.params["backend"].mode for item in chosen if f"::{function}[" in item.nodeid]
        assert modes == ["read-only", "plain", *(x.mode for x in BRIEF[i % 3 : i % 3 + 1])]


def test_tables_that_differ_are_not_shared() -> None:
    of_a, of_b = NAMES, (*NAMES, "gamma")
    items = [make("test_a", "name", name=x) for x in of_a] + [make("test_b", "name", name=x) for x in of_b]
    assert covering(items) == items


def test_a_function_without_a_share_has_one_test() -> None:
    functions = ("test_a", "test_b", "test_c")
    chosen: list[Any] = covering([make(x, "name", name=y) for x in functions for y in ("sum", "mean")])
    assert [len(names_of(chosen, x)) for x in functions] == [1, 1, 1]


def test_what_is_kept_stays() -> None:
    items = [make("test_x", "name", backend=x, name=y) for x, y in product(MODES, NAMES)]
    for item in items:
        assert item in covering(items, kept=[item.nodeid])


def test_values_that_are_given_together_stay_together() -> None:
    given = [("sum", 1), ("mean", 2), ("sum", 2), ("mean", 1)]
    for names in ("reduction, axis", ("reduction", "axis")):
        items = [make("test_reduction", names, reduction=x, axis=y) for x, y in given]
        assert covering(items) == items


def test_a_test_without_parameters_stays() -> None:
    item = SimpleNamespace(path=Path("tests/test_x.py"), nodeid="tests/test_x.py::test_x", iter_markers=lambda _: [])
    values: Any = [item]
    assert covering(values) == values
