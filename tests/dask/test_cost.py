"""What a run of `accumulate` costs: tasks, memory and bits; none of them depends on how it is run."""

import mmap
import os
import platform
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from pullback import affine_backward
from pullback._cli.gradient.files import open_file
from pullback.dask import _graph, _plan
from tests.harness.batches import Case, Reader, Tasks, accumulate, check, compute, draw, gradients


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a block of each chunk, and a strip of each four rows."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (4, 4))


def sources(folder: Path, x: Any, chunks: int) -> list[Any]:
    stored = zarr.create_array(folder / f"{x.shape[1]}.zarr", data=x, chunks=(chunks, x.shape[1]))
    return [da.from_array(x, chunks=chunks), da.from_array(Reader(x), chunks=chunks), da.from_zarr(stored)]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x,
    "cut": lambda x: x[10:],
    "times": lambda x: x * 2,
    "joined": lambda x: da.concatenate([x[:200], x[200:]]),
    "filtered": lambda x: x[x[:, 0] > 0],
    "filled": lambda x: da.where(x > 0, x, 1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("fine")
def test_tasks_of_a_block(tmp_path: Path, change: str) -> None:
    case = draw(400)
    case.da[:, 0] = case.z[:, 0]
    for i, batch in enumerate(zip(*(sources(tmp_path, x, 4) for x in case[:2]), strict=True)):
        upstream, z = map(CHANGES[change], batch)
        _, dw, db = accumulate(partial(affine_backward, wrt=("w", "b")), upstream, z, shared=(case.w,))
        with Tasks() as sums:
            compute(dw, db)
        with Tasks() as by_dask:
            dask.compute(dw, db)
        assert z.numblocks[0] <= sums.count == by_dask.count <= 1.3 * z.numblocks[0]
        if change in {"as it is", "times"}:
            dz, dw, _ = accumulate(affine_backward, upstream, z, shared=(case.w,), rows=("dz",))
            with Tasks() as returned:
                compute(dz, dw)
            assert z.numblocks[0] <= returned.count <= 1.3 * z.numblocks[0]
            dz, dw, _ = accumulate(affine_backward, upstream, z, shared=(case.w,), rows=("dz",))
            with Tasks() as stored:
                compute(dw, store=[(dz, tmp_path / f"dz{i}.zarr")])
            assert z.numblocks[0] <= stored.count <= 1.3 * z.numblocks[0]


def test_accuracy() -> None:
    rng = np.random.default_rng(2)
    z = rng.random((2_000_000, 4), dtype="float32")
    upstream = rng.random((2_000_000, 2), dtype="float32") * np.float32(0.2)
    got = gradients(Case(upstream, z, np.ones((4, 2), "float32")), 300_000, rows=("dz",))
    dw, db = compute(got.dw, got.db)
    assert {dw.dtype, db.dtype} == {np.dtype("float32")}
    for x, right in ((dw, z.astype("float64").T @ upstream), (db, upstream.sum(axis=0, dtype="float64"))):
        assert np.max(np.abs(x - right)) <= 3e-7 * np.max(np.abs(right))


@pytest.mark.parametrize("lanes", [None, 2, 16])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.usefixtures("fine")
def test_sums_are_wide(monkeypatch: pytest.MonkeyPatch, dtype: str, lanes: int | None) -> None:
    """In 24 bits, 2²⁴ + 1 is 2²⁴: the ones would be lost."""
    use_lanes(monkeypatch, lanes)
    x = np.ones((60, 1), dtype=dtype)
    x[0] = 2**24
    unit = 1j if dtype == "complex64" else 1
    (got,) = compute(*accumulate(lambda x: (x.sum(axis=0),), da.from_array(x * x.dtype.type(unit), chunks=(1, 1))))
    assert got.dtype == dtype
    assert got[0] == (2**24 + 60) * unit  # 59 ones, rounded to even


def use_lanes(monkeypatch: pytest.MonkeyPatch, lanes: int | None) -> None:
    if lanes is not None:
        monkeypatch.setattr(_plan, "_TREE_BYTES", 0)
        monkeypatch.setattr(_plan, "_LANES", (lanes, lanes))


def unaligned(x: Any) -> Any:
    return np.frombuffer(b"?" + x.tobytes(), dtype=x.dtype, offset=1, count=x.size).reshape(x.shape)


def sliced(x: Any) -> Any:
    return np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3]


@pytest.mark.parametrize("lanes", [None, 2, 16])
def test_same_bits(monkeypatch: pytest.MonkeyPatch, lanes: int | None) -> None:
    use_lanes(monkeypatch, lanes)
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    case = draw(40_000, 24, 17, "float32")
    results = []
    for layout in (np.asarray, np.asfortranarray, sliced, unaligned):
        got = gradients(Case(*map(layout, case)), 1000)
        for options in ({"scheduler": "synchronous"}, {"num_workers": 1}, {"num_workers": 8}):
            with dask.config.set(options):
                results.append([x.tobytes() for x in compute(*got)])
    check(compute(*got), case)
    assert all(x == results[0] for x in results)


@pytest.mark.parametrize("lanes", [None, 2, 16])
@pytest.mark.parametrize("workers", [1, 4])
def test_memory(monkeypatch: pytest.MonkeyPatch, lanes: int | None, workers: int) -> None:
    """What is predicted is enough, and at most five times what is allocated."""
    use_lanes(monkeypatch, lanes)
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    k, rows, count = 256, 4096, 60
    z = da.ones((rows * count, k), chunks=(rows, k), dtype="float32")
    got = accumulate(affine_backward, z + 1, z, shared=(np.ones((k, k), "float32"),), rows=("dz",))
    plan = _graph.blocks_of(got.dw)[0].plan
    assert plan.chunks == (rows,) * count
    # No more tasks than lanes run at a time.
    predicted = min(workers, lanes or workers) * plan.task_bytes(rows) + plan.held_bytes()
    with dask.config.set(num_workers=workers):
        tracemalloc.start()
        try:
            compute(got.dw, got.db)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert predicted / 5 <= peak <= predicted


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_of_returned_rows(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Blocks write them where they are returned: they are not kept and put together."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    z = da.ones((2_000_000, 8), chunks=(20_000, 8), dtype=dtype)
    (doubled,) = accumulate(lambda x: (x * 2,), z, rows=(0,))
    compute(doubled)
    tracemalloc.start()
    try:
        (got,) = compute(doubled)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (got.dtype, got.shape, got.flags.c_contiguous, got.flags.owndata) == (dtype, z.shape, True, True)
    assert np.all(got == 2)
    assert peak <= 1.5 * got.nbytes


def test_strips_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip is a block there: what starts the work of a GPU takes longer than what a cache saves."""
    z = da.ones((40_000, 8), chunks=(20_000, 8))
    seen: list[int] = []

    def step(z: Any) -> Any:
        seen.append(len(z))
        return z.sum(axis=0)

    for on_gpu, strips in ((False, [16_384, 16_384, 7_232]), (True, [20_000, 20_000])):
        monkeypatch.setattr(_plan, "is_gpu_memory", lambda _, on_gpu=on_gpu: on_gpu)
        lazy = accumulate(step, z)
        seen.clear()
        compute(lazy)
        assert seen == strips


@pytest.mark.parametrize(("rows", "strips"), [(5000, [5000, 5000]), (10, [4100, 4100, 1800])])
def test_chunks_are_strips_without_a_copy(rows: int, strips: list[int]) -> None:
    """Several chunks of a task are not joined, but for those that are tiny."""
    made = list(np.arange(80_000.0).reshape(-1, rows, 8))
    chunks = [da.from_delayed(dask.delayed(lambda i: made[i])(i), (rows, 8), float) for i in range(len(made))]
    seen: list[Any] = []

    def step(z: Any) -> tuple[Any]:
        seen.append(z)
        return (z.sum(axis=0),)

    lazy = accumulate(step, da.concatenate(chunks))
    seen.clear()
    (got,) = compute(*lazy)
    np.testing.assert_allclose(got, np.sum(made, axis=(0, 1)), rtol=1e-13)
    assert [len(strip) for strip in seen] == strips
    assert rows < 5000 or all(np.shares_memory(strip, x) for strip, x in zip(seen, made, strict=True))


def test_tasks_that_hold_a_strip_of_a_file_are_larger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their memory is that of a strip. Others share a task up to its bytes, and so do those of a file that is small."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 16 * 2**10)
    x = np.ones((32_768, 64), np.float32)  # 2,048 chunks of 4 KiB
    np.save(tmp_path / "x.npy", x)
    file = open_file(tmp_path / "x.npy")

    def chunks_of_a_task(lazy: Any, rows: tuple[int, ...]) -> int:
        (out,) = accumulate(lambda z: (z * 2 if rows else z.sum(axis=0),), lazy, rows=rows)
        np.testing.assert_array_equal(compute(out)[0], lazy.compute() * 2 if rows else np.full(64, lazy.shape[0]))
        return lazy.numblocks[0] // len(_graph.blocks_of(out)[0].plan.blocks)

    assert chunks_of_a_task(file.lazy(16), ()) == 16
    assert chunks_of_a_task(file.lazy(16), (0,)) == 4
    assert chunks_of_a_task(file.lazy(16)[:4096], ()) == 4
    assert chunks_of_a_task(da.from_array(x, chunks=(16, -1)), ()) == 4
    np.save(tmp_path / "small.npy", x[:8192])
    assert chunks_of_a_task(open_file(tmp_path / "small.npy").lazy(16), ()) == 4


def test_strips_reuse_memory() -> None:
    """In a new process: glibc learns from the arrays that were freed before."""
    code = """
import resource
import dask.array as da
import numpy as np
from pullback.dask import accumulate, compute

faults = []

def step(z):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    kept = [z * n for n in range(1, 4)]
    return (sum(x.sum() for x in kept),)

# A strip is 5,461 rows of 768 bytes; each takes three arrays of its size.
compute(*accumulate(step, da.from_array(np.ones((109_220, 192), "f4"), chunks=-1, name=False)))
# Without the first strip, before which modules are imported.
print(faults[-1] - faults[-19])
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    out = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)  # noqa: S603 - this test's own program
    pages = 3 * 18 * 5_461 * 768 // mmap.PAGESIZE
    # Other C libraries have rules of their own.
    assert int(out.stdout) < pages / 4 or platform.libc_ver()[0] != "glibc"
