"""`accumulate` and `compute` on a cluster of two processes: the bits of one thread, and what only clusters do."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from array_api_compat import array_namespace
from distributed import Client, LocalCluster
from threadpoolctl import threadpool_info, threadpool_limits

from pullback import affine_backward, value_and_grad
from pullback.dask import _cluster, _graph, _plan
from tests.harness.batches import accumulate, check, compute, draw, gradients, reference

LIMIT = 2**30
pytestmark = [
    pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning"),  # to compare with
    pytest.mark.xdist_group("cluster"),  # one worker starts the clusters for all
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def lone() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    with Client(cluster) as client:
        client.wait_for_workers(2)
        yield client


def step(z: Any, w: Any) -> Any:
    return affine_backward(z @ w, z, w)


def bits(results: Any) -> list[bytes]:
    return [x.tobytes() for x in results]


@pytest.mark.parametrize("lanes", [None, 2, 16])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.usefixtures("client")
def test_same_bits(lone: LocalCluster, monkeypatch: pytest.MonkeyPatch, lanes: int | None, *, alone: bool) -> None:
    if lanes:
        monkeypatch.setattr(_plan, "_TREE_BYTES", 0)
        monkeypatch.setattr(_plan, "_LANES", (lanes, lanes))
    case = draw(40_000, 24, 17, "float32")
    got = gradients(case, 1000)
    with Client(lone) if alone else nullcontext():
        far = compute(*got)
    with dask.config.set(scheduler="threads"):
        near = compute(*got)
    check(far, case)
    assert bits(far) == bits(near)


@pytest.mark.usefixtures("client")
def test_store(tmp_path: Path) -> None:
    case = draw(40)
    got = gradients(case, 6)
    misaligned = zarr.create_array(tmp_path / "m", shape=(40, 3), dtype="float64", chunks=(5, 2), shards=(10, 2))
    dw, twice = compute(got.dw, (got.dz * 2).sum(), store=[(got.dz, tmp_path / "dz"), (got.dz, misaligned)])
    for path in ("dz", "m"):
        check((zarr.open_array(tmp_path / path)[...], dw, None), case)
    right = 2 * reference(*case).dz
    assert abs(twice - right.sum()) <= 4 * 120 * np.finfo(float).eps * np.abs(right).sum()


def test_store_after_persist(client: Client, tmp_path: Path) -> None:
    case = draw(40)
    z, upstream = client.persist([da.from_array(x, chunks=(6, -1)) for x in (case.z, case.da)])
    got = accumulate(affine_backward, upstream, z, shared=(case.w,), rows=("dz",))
    kept = got.dw.persist()
    db, dw = compute(got.db, got.dw, store=[(got.dz, tmp_path / "dz")])
    check((zarr.open_array(tmp_path / "dz")[...], dw, db), case)
    assert bits(compute(kept)) == bits((dw,))


class OddError(LookupError):
    pass


def fail(z: Any) -> tuple[Any]:
    if np.any(z == 17):
        raise OddError(17)
    return (z,)


@pytest.mark.usefixtures("client")
def test_error(tmp_path: Path) -> None:
    (rows,) = accumulate(fail, da.from_array(np.arange(40.0)[:, None], chunks=(6, 1)), rows=(0,))
    with pytest.raises(OddError) as info:
        compute(store=[(rows, tmp_path / "rows")])
    assert info.value.__notes__ == ["accumulate: while the step ran on rows [12:18]"]
    assert list(tmp_path.iterdir()) == []


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.usefixtures("client")
def test_leaves_nothing(tmp_path: Path) -> None:
    """A task that is still running when another fails does not write any more into what is removed."""
    flags = tmp_path / "flags"
    flags.mkdir()

    def step(z: Any) -> tuple[Any]:
        if np.any(z == 0):
            wait_for(flags / "running")
            raise OddError
        if np.any(z == 1):
            (flags / "running").touch()
            time.sleep(1)  # outlives the failure, as work would
        return (z,)

    (rows,) = accumulate(step, da.from_array(np.arange(2.0)[:, None], chunks=(1, 1)), rows=(0,))
    with pytest.raises(OddError):
        compute(store=[(rows, tmp_path / "rows")])
    assert [x.name for x in tmp_path.iterdir()] == ["flags"]


def blas(_: object = None) -> list[int]:
    return [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]


def two_threads() -> None:
    threadpool_limits(2, user_api="blas")


def test_blas_threads(client: Client) -> None:
    def step(z: Any) -> tuple[Any]:
        return (np.asarray(len(z) and max(blas()), dtype=float),)

    # Workers have one thread to begin with: `distributed` sees to that by variables that only take hold at the start.
    client.run(two_threads)
    before = client.run(blas)
    (most,) = compute(*accumulate(step, da.ones((40, 2), chunks=(4, 2))))
    assert most == 10
    assert client.run(blas) == before


def test_blas_threads_of_workers_in_one_process() -> None:
    with (
        threadpool_limits(2, user_api="blas"),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as here,
        Client(here),
    ):
        before = blas()
        case = draw(40)
        check(compute(*gradients(case, 6)), case)
        assert blas() == before


def test_progress(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert client
    compute(gradients(draw(40), 1).dw, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err


def test_progress_of_blocks(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks are found by their names, and counted when they are done."""
    seen: list[float] = []
    monkeypatch.setattr(_cluster, "POLL_SECONDS", 0.02)

    def step(z: Any) -> tuple[Any]:
        if len(z):
            (tmp_path / str(z[0, 0])).touch()
            if len(list(tmp_path.iterdir())) > 5:
                wait_for(tmp_path / "go on")
        return (z.sum(axis=0),)

    (got,) = accumulate(step, da.from_array(np.arange(40.0)[:, None], chunks=(2, 1)))
    with _cluster.watch(client, _graph.blocks_of(got), seen.append):
        kept = got.persist()
        end = time.monotonic() + 30
        while not any(seen):
            assert time.monotonic() < end
        (tmp_path / "go on").touch()
        assert kept.compute() == 780
    assert seen == sorted(seen)
    assert 0 < next(filter(None, seen)) <= 5 / 20


def test_progress_of_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that has not heard of the blocks, or has forgotten them, says nothing."""
    monkeypatch.setattr(_cluster, "POLL_SECONDS", 0.001)
    answers, shown, seen = iter([(0, 0, 1), (1, 2, 1)]), Event(), []

    class Asked:
        def run_on_scheduler(self, *_: object) -> tuple[int, int, int]:
            return next(answers, (0, 0, 1))

    def show(part: float) -> None:
        seen.append(part)
        shown.set()

    with _cluster.watch(Asked(), [], show):
        assert shown.wait(30)
    assert seen == [0.5]


def test_step_that_workers_cannot_import(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "only_here.py").write_text("def step(z):\n    return (z.sum(axis=0),)\n")
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: sys.modules.pop("only_here", None))
    lazy = accumulate(importlib.import_module("only_here").step, da.ones((6, 3), chunks=(2, 3)))
    message = r"^compute: a worker cannot load step, step: ModuleNotFoundError: No module named 'only_here'\. Put its "
    with pytest.raises(ValueError, match=message):
        compute(*lazy)
    client.upload_file(str(tmp_path / "only_here.py"))
    assert compute(*lazy)[0].tolist() == [6, 6, 6]
    assert _cluster._why_not_loaded(b"cut off") == "UnpicklingError: pickle data was truncated"  # noqa: SLF001 - as a worker


def test_block_too_large(client: Client, tmp_path: Path) -> None:
    def never(z: Any) -> tuple[Any]:
        if len(z):
            (tmp_path / "ran").touch()
        return (z.sum(axis=0),)

    rows = 2_000_000
    z = da.ones((rows, 100), chunks=(rows, 100), dtype="float32")
    (lazy,) = accumulate(never, z)
    with pytest.raises(ValueError, match=r"^compute: a block of 2,000,000 rows takes 1,\d+ MiB, and a worker") as info:
        compute(lazy)
    assert list(tmp_path.iterdir()) == []
    fits = int(str(info.value).split("at most ")[1].split(" rows")[0].replace(",", ""))
    (room,) = {min(client.run_on_scheduler(_cluster._bytes_per_thread))}  # noqa: SLF001
    plan = _graph.blocks_of(lazy)[0].plan
    # Workers' memory changes a little between the two questions.
    assert abs(plan.task_bytes(fits) - room) <= 0.1 * room
    huge = accumulate(never, da.ones((1, 2**26), chunks=-1))
    with pytest.raises(ValueError, match=r"no block is small enough, or give workers more memory or fewer threads$"):
        compute(*huge)


def test_without_processes_and_limits(tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=1, processes=False, memory_limit=0, dashboard_address=":0") as here,
        Client(here),
    ):
        case = draw(40)
        check(compute(*gradients(case, 6)), case)
        (rows,) = accumulate(fail, da.from_array(np.arange(40.0)[:, None], chunks=(6, 1)), rows=(0,))
        with pytest.raises(OddError):
            compute(store=[(rows, tmp_path / "rows")])
    assert list(tmp_path.iterdir()) == []


def test_killed_worker(client: Client, tmp_path: Path) -> None:
    case = draw(4000, 8, 5)
    (tmp_path / "pids").mkdir()

    def slow(upstream: Any, z: Any, w: Any) -> Any:
        if len(z):
            (tmp_path / "pids" / f"{os.getpid()}-{time.monotonic_ns()}").touch()
            if not (tmp_path / "killed").exists():
                time.sleep(0.05)
        return affine_backward(upstream, z, w)

    batch = [da.from_array(x, chunks=(50, -1)) for x in case[:2]]
    got = accumulate(slow, *batch, shared=(case.w,), rows=("dz",))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(compute, got.dw, got.db, store=[(got.dz, tmp_path / "dz")])
        end = time.monotonic() + 30
        while len(started := list((tmp_path / "pids").iterdir())) < 20:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(int(started[-1].name.split("-")[0]), signal.SIGKILL)
        (tmp_path / "killed").touch()
        far = run.result()
    assert client.wait_for_workers(2) is None
    dz = zarr.open_array(tmp_path / "dz")[...]
    check((dz, *far), case)
    with dask.config.set(scheduler="synchronous"):
        assert bits((dz, *far)) == bits(compute(*gradients(case, 50)))


def sent(dask_worker: Any) -> int:
    return sum(x["total"] for x in dask_worker.transfer_outgoing_log)


def test_transfers(client: Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    z = zarr.create_array(tmp_path / "z", data=rng.random((200_000, 32), dtype="float32"), chunks=(4000, 32))
    before = sum(client.run(sent).values())
    _, dw, _ = accumulate(step, da.from_zarr(z), shared=(np.ones((32, 4), "float32"),), rows=("dz",))
    compute(dw)
    assert sum(client.run(sent).values()) - before <= 0.02 * z.nbytes


def squares(z: Any, w: Any) -> Any:
    return array_namespace(w).sum((z @ w) ** 2)


def coupled(z: Any) -> Any:
    return lambda w: array_namespace(w).log(accumulate(squares, z, shared=(w,)))


@pytest.mark.slow
@pytest.mark.usefixtures("client")
def test_same_bits_of_gradients(lone: LocalCluster) -> None:
    """A gradient by value_and_grad in each block, and that of a loss that couples them, have the bits of threads."""
    case = draw(4_000, 24, 17, "float32")
    z = da.from_array(case.z, chunks=(100, -1))

    def evaluate() -> list[bytes]:
        separable = compute(*accumulate(value_and_grad(squares, argnums=1), z, shared=(case.w,)))
        return bits([*separable, *value_and_grad(coupled(z))(case.w)])

    far = evaluate()
    with Client(lone):
        alone = evaluate()
    with dask.config.set(scheduler="threads"):
        near = evaluate()
    assert far == alone == near
