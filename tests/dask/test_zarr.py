"""`compute`: what it returns and writes, what it leaves behind when it fails, and how many threads it takes."""

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from pullback import affine_backward
from pullback.dask import _plan
from tests.harness.batches import Case, Reader, accumulate, check, compute, draw, gradients


@pytest.fixture(autouse=True)
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a block of each chunk, and a strip of each four rows."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (4, 4))


def read(path: Path) -> Any:
    return zarr.open_array(path, mode="r")[...]


def names(folder: Path) -> list[str]:
    return sorted(x.name for x in folder.iterdir())


def blas() -> list[int]:
    return [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]


@pytest.fixture(scope="module")
def case() -> Case:
    return draw(23)


def test_results(case: Case) -> None:
    got = gradients(case, 6)
    db, none, dz, dw = compute(got.db, None, got.dz, got.dw)
    assert none is None
    check((dz, dw, db), case)
    assert all(type(x) is np.ndarray for x in (dz, dw, db))
    assert compute() == ()
    assert compute(None) == (None,)
    mean, total = compute(got.dw / 4, got.dw.sum())
    assert mean.tobytes() == (dw / 4).tobytes()
    assert abs(total - dw.sum()) <= 8 * np.finfo(float).eps * np.abs(dw).sum()


def test_refuses_what_is_not_lazy(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^compute: results and what is stored must be Dask arrays; got ndarray$"):
        compute(np.ones(2))
    with pytest.raises(TypeError, match=r"results and what is stored must be Dask arrays; got float$"):
        compute(store=[(1.0, tmp_path / "x")])


@pytest.mark.parametrize("chunks", [6, 23, (6, 2, 6, 9), (4, 0, 4, 15)], ids=str)
def test_path(tmp_path: Path, case: Case, chunks: Any) -> None:
    got = gradients(case, chunks)
    dw, none = compute(got.dw, None, store=[(got.dz, tmp_path / "dz"), (got.dw, str(tmp_path / "dw"))])
    assert none is None
    check((read(tmp_path / "dz"), dw, None), case)
    assert names(tmp_path) == ["dw", "dz"]
    assert (tmp_path / "dz").stat().st_mode & 0o777 == tmp_path_mode(tmp_path)
    np.testing.assert_array_equal(read(tmp_path / "dw"), dw)
    assert zarr.open_array(tmp_path / "dz").chunks == (max(got.dz.chunks[0]), 3)


def tmp_path_mode(folder: Path) -> int:
    """Return what a new folder may."""
    (folder.parent / "new").mkdir(exist_ok=True)
    return (folder.parent / "new").stat().st_mode & 0o777


@pytest.mark.parametrize("layout", [(8, 4), (8, 8), (16, 8)], ids=["aligned", "aligned shards", "misaligned"])
def test_open_array(tmp_path: Path, case: Case, layout: tuple[int, int]) -> None:
    unit, inner = layout
    shards = {} if unit == 8 and inner == 4 else {"shards": (unit, 4)}
    target = zarr.create_array(tmp_path / "x", shape=(23, 3), dtype="float64", chunks=(inner, 2), **shards)
    got = gradients(case, 8)
    dw, db = compute(got.dw, got.db, store=[(got.dz, target)])
    check((target[...], dw, db), case)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_layout(data: Any) -> None:
    """No two tasks write one chunk, or every so often what one of them wrote would be lost."""
    rows = data.draw(st.integers(1, 60))
    case = draw(rows)
    inner = data.draw(st.integers(1, rows))
    shards = (inner * data.draw(st.integers(1, 3)), 2) if data.draw(st.booleans()) else None
    target = zarr.create_array({}, shape=(rows, 3), dtype="float64", chunks=(inner, 2), shards=shards)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=9)))
    got = gradients(case, tuple(b - a for a, b in zip((0, *cuts), (*cuts, rows), strict=True)))
    with dask.config.set(num_workers=4):
        compute(store=[(got.dz, target)])
    check((target[...], None, None), case)


def test_target_that_does_not_fit(tmp_path: Path, case: Case) -> None:
    dz = gradients(case, 6).dz
    rule = "^compute: a target must have the shape and dtype of what it stores; got "
    for shape, dtype in (((22, 3), "float64"), ((23, 3), "float32")):
        target = zarr.create_array({}, shape=shape, dtype=dtype)
        with pytest.raises(ValueError, match=rf"{rule}{re.escape(str(shape))}, {dtype} for \(23, 3\), float64$"):
            compute(store=[(dz, target)])
    with pytest.raises(TypeError, match=r"^compute: a target must be a path or an open Zarr array; got ndarray$"):
        compute(store=[(dz, tmp_path / "first"), (dz, np.ones((23, 3)))])
    unknown = dz[dz[:, 0] > 0]
    with pytest.raises(
        ValueError, match=r"^compute: what is stored must have a known number of rows; call compute_chunk"
    ):
        compute(store=[(unknown, tmp_path / "unknown")])
    with pytest.raises(ValueError, match=r"^compute: what is stored must have an axis of rows; got .* shape \(\)$"):
        compute(store=[(dz.sum(), tmp_path / "sum")])
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link to nothing"])
def test_path_that_exists(tmp_path: Path, case: Case, kind: str) -> None:
    path = tmp_path / "dz"
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.touch()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=r"dz exists already$"):
        compute(store=[(gradients(case, 6).dz, path)])
    assert names(tmp_path) == ["dz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_leaves_nothing(tmp_path: Path, case: Case, error: type[BaseException]) -> None:
    """Also not by a task that was still running when another one failed."""
    failed, running = threading.Event(), threading.Event()
    calls = itertools.count()

    def step(z: Any) -> tuple[Any]:
        call = next(calls)
        if call == 1:
            assert running.wait(30)
            failed.set()
            raise error
        if call == 2:
            running.set()
            assert failed.wait(30)
        return (z,)

    (rows,) = accumulate(step, da.from_array(case.z, chunks=(4, 3)), rows=(0,))
    with dask.config.set(num_workers=2), pytest.raises(error):
        compute(store=[(rows, tmp_path / "dz")])
    assert names(tmp_path) == []


def test_appears_when_complete(tmp_path: Path, case: Case) -> None:
    seen = []

    def step(z: Any) -> tuple[Any]:
        seen.append((tmp_path / "dz").exists())
        return (z,)

    (rows,) = accumulate(step, da.from_array(case.z, chunks=(4, 3)), rows=(0,))
    compute(store=[(rows, tmp_path / "dz")])
    assert len(seen) > 6
    assert not any(seen)
    np.testing.assert_array_equal(read(tmp_path / "dz"), case.z)


def twice(z: Any, w: Any) -> tuple[Any, ...]:
    return z * 2, z @ w, z.sum(axis=0)


STORES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "both rows": lambda a, b, _: ((), (a, b)),
    "what is asked for": lambda a, b, _: ((a,), (a, b)),
    "one twice": lambda a, _, s: ((s,), (a, a)),
    "what is made of it": lambda a, _, s: ((s,), (a, a * 2)),
    "only what is made of it": lambda a, b, s: ((s * 2,), (a * 2, b + 1)),
    "a sum too": lambda a, b, s: ((s,), (a, s, b)),
    "a part": lambda a, _, s: ((s,), (a[3:17],)),
}


@pytest.mark.parametrize("unit", [None, 5])
@pytest.mark.parametrize("wanted", STORES)
def test_several_stores(tmp_path: Path, case: Case, wanted: str, unit: int | None) -> None:
    """In one pass over the batch, to paths and to arrays that are not aligned with it."""
    _, z, w = case
    reader = Reader(z)
    lazy = accumulate(twice, da.from_array(reader, chunks=(6, 3)), shared=(w,), rows=(0, 1))
    results, stored = STORES[wanted](*lazy)
    right_results, right_stored = STORES[wanted](*twice(z, w))
    targets: list[Any] = [
        zarr.create_array({}, shape=x.shape, dtype=x.dtype, chunks=(unit, *x.shape[1:])) if unit else tmp_path / str(i)
        for i, x in enumerate(stored)
    ]
    got = compute(*results, store=list(zip(stored, targets, strict=True)))
    written = [target[...] if unit else read(target) for target in targets]
    for x, right in zip([*got, *written], [*right_results, *right_stored], strict=True):
        np.testing.assert_allclose(x, right, rtol=0, atol=4 * 23 * np.finfo(float).eps * np.abs(z).max() * 4)
    assert reader.reads.tolist() == [1] * 23


def test_sum_of_as_many_rows(tmp_path: Path) -> None:
    """A sum is no rows of the batch, even if it has as many."""
    case = draw(3)
    got = gradients(case, 3)
    compute(store=[(got.dw, tmp_path / "dw"), (got.dz, tmp_path / "dz")])
    check((read(tmp_path / "dz"), read(tmp_path / "dw"), None), case)


def test_rows_counted_since(tmp_path: Path, case: Case) -> None:
    z, upstream = (da.from_array(x, chunks=(6, -1)) for x in (case.z, case.da))
    every = z[:, 0] > -9
    dz, dw, _ = accumulate(affine_backward, upstream[every], z[every], shared=(case.w,), rows=("dz",))
    (dw,) = compute(dw, store=[(dz.compute_chunk_sizes(), tmp_path / "dz")])
    check((read(tmp_path / "dz"), dw, None), case)


def test_no_rows(tmp_path: Path) -> None:
    got = gradients(draw(0), 5)
    compute(store=[(got.dz, tmp_path / "dz"), (got.dz * 2, tmp_path / "twice")])
    assert read(tmp_path / "dz").shape == read(tmp_path / "twice").shape == (0, 3)


@pytest.fixture
def two_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.usefixtures("two_threads")
def test_blas_threads(case: Case) -> None:
    inside: list[list[int]] = []
    z = da.from_array(case.z, chunks=(4, 3))

    def step(z: Any, *, fail: bool = False) -> tuple[Any]:
        inside.append(blas())
        if fail and len(z):
            msg = "on purpose"
            raise ValueError(msg)
        return (z.sum(axis=0),)

    before = blas()
    assert set(before) == {2}
    lazy = accumulate(step, z)
    inside.clear()
    compute(*lazy)
    assert len(inside) == 6
    assert {n for counts in inside for n in counts} == {1}
    assert blas() == before
    failing = accumulate(lambda z: step(z, fail=True), z)
    with pytest.raises(ValueError, match="on purpose"):
        compute(*failing)
    assert blas() == before


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("outlives", [0, 1])
def test_blas_threads_of_runs_side_by_side(case: Case, outlives: int) -> None:
    """Two threads call `compute`, and the first or the second of them ends first."""
    before = blas()
    entered, left = threading.Barrier(2), threading.Event()
    inside: list[list[int]] = []

    def run(number: int) -> None:
        def step(z: Any) -> tuple[Any]:
            if len(z):
                entered.wait(30)
                if number == outlives:
                    assert left.wait(30)
                inside.append(blas())
            return (z.sum(axis=0),)

        compute(*accumulate(step, da.from_array(case.z[:4], chunks=(4, 3))))
        left.set()

    with dask.config.set(scheduler="synchronous"), ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    assert {n for counts in inside for n in counts} == {1}
    assert len(inside) == 2
    assert blas() == before


def test_progress(capsys: pytest.CaptureFixture[str], case: Case) -> None:
    got = gradients(case, 1)
    compute(got.dw)
    assert capsys.readouterr() == ("", "")
    compute(got.dw, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


def test_other_schedulers(case: Case) -> None:
    """A pool or scheduler that the user has set is the one to run on."""
    with ThreadPoolExecutor(1, thread_name_prefix="ours") as pool:
        where = set()

        def step(z: Any) -> tuple[Any]:
            where.add(threading.current_thread().name)
            return (z.sum(axis=0),)

        lazy = accumulate(step, da.from_array(case.z, chunks=(4, 3)))
        where.clear()
        with dask.config.set(pool=pool):
            compute(*lazy)
        assert {x[:4] for x in where} == {"ours"}
        where.clear()
        with dask.config.set(scheduler="synchronous"):
            compute(*lazy)
        assert where == {threading.current_thread().name}
