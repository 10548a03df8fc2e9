"""The targets of `compute`: what is rejected before anything runs, and where paths lead."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from pullback.dask import _plan, _zarr
from tests.harness.batches import Case, accumulate, check, compute, draw, gradients


@pytest.fixture(autouse=True)
def chunk_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)


def read(path: Path) -> Any:
    return zarr.open_array(path, mode="r")[...]


def names(folder: Path) -> list[str]:
    return sorted(x.name for x in folder.iterdir())


@pytest.fixture(scope="module")
def case() -> Case:
    return draw(23)


def test_rejects_a_read_only_array(tmp_path: Path, case: Case) -> None:
    zarr.create_array(tmp_path / "x", shape=(23, 3), dtype="float64")
    target = zarr.open_array(tmp_path / "x", mode="r")
    message = rf"^compute: a target must be open for writing; got {tmp_path}/x: open it with mode='r\+'$"
    with pytest.raises(ValueError, match=message):
        compute(store=[(gradients(case, 6).dz, target)])


@pytest.mark.parametrize("kind", ["path", "link", "path and array", "array", "dictionary"])
def test_rejects_a_target_that_is_named_twice(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    dz = gradients(case, 6).dz
    (tmp_path / "link").symlink_to(tmp_path)
    first: Any = tmp_path / "x"
    second: Any = {"path": "x", "link": "link/x"}.get(kind, str(tmp_path / "x"))
    if "array" in kind:
        first = zarr.create_array("x", shape=(23, 3), dtype="float64")
    if kind == "array":
        second = zarr.open_array("link/x", mode="r+")
    if kind == "dictionary":
        kept: dict[str, Any] = {}
        first = zarr.create_array(kept, shape=(23, 3), dtype="float64")
        second = zarr.open_array(kept, mode="r+")
    before = names(tmp_path)
    place = "memory://" if kind == "dictionary" else str(tmp_path / "x")
    with pytest.raises(ValueError, match=rf"^compute: each target must be named once in store; got {place}.* 2 times$"):
        compute(store=[(dz, first), (dz * 2, second)])
    assert names(tmp_path) == before


def test_two_arrays_in_memory_are_two_targets(case: Case) -> None:
    """Zarr calls two stores equal that hold the same."""
    dz = gradients(case, 6).dz
    two = [zarr.create_array({}, shape=(23, 3), dtype="float64") for _ in range(2)]
    compute(store=[(dz, two[0]), (dz, two[1])])
    for target in two:
        check((target[...], None, None), case)


def test_pairs_that_can_be_read_once(tmp_path: Path, case: Case) -> None:
    got = gradients(case, 6)
    compute(store=zip([got.dz, got.dw], [tmp_path / "dz", tmp_path / "dw"], strict=True))
    check((read(tmp_path / "dz"), read(tmp_path / "dw"), None), case)


NOT_PAIRS = r"^compute: store must be a list of pairs \(array, target\); got "
STORES: dict[str, tuple[Callable[..., Any], str]] = {
    "None": (
        lambda _, path: [(None, path)],
        r"^compute: results and what is stored must be Dask arrays; got NoneType$",
    ),
    "no pairs": (lambda x, _: [x], NOT_PAIRS + "Array in it$"),
    "array": (lambda x, _: x, NOT_PAIRS + "Array in it$"),
    "a pair": (lambda x, path: (x, path), NOT_PAIRS + "Array in it$"),
    "path": (lambda _, path: str(path), NOT_PAIRS + "str in it$"),
    "number": (lambda *_: 3, NOT_PAIRS + "int in it$"),
}


@pytest.mark.parametrize("kind", STORES)
def test_rejects_other_stores(tmp_path: Path, case: Case, kind: str) -> None:
    make, message = STORES[kind]
    with pytest.raises(TypeError, match=message):
        compute(store=make(gradients(case, 6).dz, tmp_path / "x"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["path", "array"])
def test_working_directory_that_changes(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    target: Any = "x"
    if kind == "array":
        target = zarr.create_array("x", shape=(23, 3), dtype="float64", chunks=(4, 3))
    (tmp_path / "elsewhere").mkdir()

    def step(z: Any) -> tuple[Any]:
        os.chdir(tmp_path / "elsewhere")
        return (z * 2,)

    z = da.from_array(case.z, chunks=(4, 3))
    (rows,) = accumulate(step, z, rows=(0,))
    monkeypatch.chdir(tmp_path)
    compute(store=[(rows, target)])
    np.testing.assert_array_equal(read(tmp_path / "x"), 2 * case.z)
    assert names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("wrong", [1, 5, 7])
def test_rejects_a_chunk_that_breaks_its_promise(tmp_path: Path, wrong: int) -> None:
    """Zarr would repeat a single row, as NumPy does."""
    parts = [da.from_delayed(dask.delayed(np.ones)((n, 3)), (6, 3), dtype="float64") for n in (6, wrong)]
    message = rf"^compute: a block to store must have the shape that Dask expects, \(6, 3\); got \({wrong}, 3\)\. Call"
    stored = da.concatenate(parts)
    with pytest.raises(ValueError, match=message):
        compute(store=[(stored, tmp_path / "x")])
    stored.compute_chunk_sizes()  # the way out
    compute(store=[(stored, tmp_path / "x")])
    np.testing.assert_array_equal(read(tmp_path / "x"), np.ones((6 + wrong, 3)))


def test_processes(tmp_path: Path, case: Case) -> None:
    """A process writes into its own copy of an array in memory."""
    dz = gradients(case, 6).dz
    target = zarr.create_array({}, shape=(23, 3), dtype="float64")
    message = (
        r"^compute: the processes that compute must all write to memory://\d+; a process wrote somewhere else\. St"
    )
    with dask.config.set(scheduler="processes", num_workers=1):
        with pytest.raises(ValueError, match=message):
            compute(store=[(dz, target)])
        compute(store=[(dz, tmp_path / "x")])
    check((read(tmp_path / "x"), None, None), case)
    assert names(tmp_path / "x") == ["c", "zarr.json"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Nothing is made where a process finds no array."""
    target = zarr.create_array(tmp_path / "x", shape=(4,), dtype="float64")
    (tmp_path / "x").rename(tmp_path / "y")
    name, problem = _zarr.leave_mark(target)
    assert "NotFoundError: " in problem
    assert name.endswith(".mark")
    assert names(tmp_path) == ["y"]


def test_chunks_that_do_not_arrive(tmp_path: Path, case: Case) -> None:
    """Chunks of zeros count as written."""

    def probe(function: Any, array: Any) -> dict[str, Any]:
        return {"worker 1": function(array)}

    dz = gradients(case, 6).dz
    with _zarr.targets([(dz, tmp_path / "x")], probe=probe) as ((_, array),):
        array[...] = 0
    assert names(tmp_path / "x") == ["c", "zarr.json"]
    message = r"^compute: 1 of 4 chunks of .* were written and are not there: a process has another folder at"
    with (
        pytest.raises(OSError, match=message),
        _zarr.targets([(dz, tmp_path / "y")], probe=probe) as ((_, array),),
    ):
        array[:18] = 0
    assert names(tmp_path) == ["x"]


def test_target_that_cannot_be_sent(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    target = zarr.create_array({}, shape=(23, 3), dtype="float64")
    monkeypatch.setattr(type(target.store_path.store), "__reduce__", lambda _: 1 / 0, raising=False)
    message = r"must all write to memory://\d+; it cannot be sent to them: ZeroDivisionError: division by zero\. Store"
    with dask.config.set(scheduler="processes"), pytest.raises(ValueError, match=message):
        compute(store=[(gradients(case, 6).dz, target)])
