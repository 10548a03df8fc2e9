"""`compute` on a cluster whose parts fail: what is lost, killed, frozen, missing, or interrupted."""

import asyncio
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread, main_thread
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from array_api_compat import array_namespace
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from pullback import value_and_grad
from pullback.dask import _cluster, _plan
from tests.harness.batches import Case, accumulate, check, compute, draw, gradients


@pytest.fixture(autouse=True)
def chunk_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)


@pytest.fixture(scope="module")
def case() -> Case:
    return draw(40)


class Processes(NamedTuple):
    """A scheduler and workers without nannies, as `dask scheduler` and `dask worker` start them."""

    client: Client
    scheduler: BaseProcess
    start_worker: Callable[[], BaseProcess]


def serve(name: str, options: list[str]) -> None:
    """Run a command of Dask in this process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    importlib.import_module(f"distributed.cli.dask_{name}").main(options)


@contextmanager
def processes(folder: Path, workers: int = 1) -> Iterator[Processes]:
    file = folder / "scheduler.json"

    def start(name: str, *options: str) -> BaseProcess:
        given = ["--scheduler-file", str(file), "--no-dashboard", *options]
        process: BaseProcess = get_mp_context().Process(target=serve, args=(name, given))
        process.start()
        stack.callback(process.join)
        stack.callback(process.kill)
        return process

    def start_worker() -> BaseProcess:
        return start("worker", "--no-nanny", "--nthreads", "1")

    with ExitStack() as stack:
        scheduler = start("scheduler", "--port", "0")
        wait_until(file.exists)
        for _ in range(workers):
            start_worker()
        client = Client(scheduler_file=str(file))
        # Killed processes are left before the client is, which would wait for them.
        stack.callback(client.close, timeout=0.5)
        client.wait_for_workers(workers)
        yield Processes(client, scheduler, start_worker)


COMMANDS = ("distributed.cli.dask_scheduler", "distributed.cli.dask_worker")


@pytest.fixture(autouse=True, scope="module")
def fork() -> Iterator[None]:
    """Fork workers from a process that has imported what they need, so that each test can afford its own."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload([*COMMANDS, "tests.harness.batches", "zarr"])
        yield


@pytest.fixture
def cluster() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=2**30, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        yield client


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def slow(folder: Path) -> Callable[[Any], tuple[Any, Any]]:
    """Return a step that says that it runs, and goes on when it may."""

    def step(z: Any) -> tuple[Any, Any]:
        if len(z):
            (folder / f"pid-{os.getpid()}").touch()
            while not (folder / "go on").exists():
                time.sleep(0.01)
        return z * 2, z.sum(axis=0)

    return step


def when_it_runs(folder: Path, action: Callable[[int], Any]) -> Thread:
    """Act in a thread on the process that runs a step, once it does."""

    def act() -> None:
        wait_until(lambda: list(folder.glob("pid-*")))
        action(int(next(folder.glob("pid-*")).name.removeprefix("pid-")))

    thread = Thread(target=act)
    thread.start()
    return thread


def interrupt() -> None:
    signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)


def plugins(client: Client) -> list[str]:
    names: list[str] = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
    return [name for name in names if name.startswith("one-thread-")]


def lose(*, first: bool) -> None:
    """Let what this process writes into Zarr go elsewhere."""

    async def nowhere(self: Any, key: str, value: Any) -> None:  # noqa: ARG001 - Zarr's
        await asyncio.sleep(0)

    assert first or zarr.storage.LocalStore.set is not nowhere
    zarr.storage.LocalStore.set = nowhere


def test_worker_with_a_folder_of_its_own(cluster: Client, case: Case, tmp_path: Path) -> None:
    cluster.run(lose, first=True, workers=[next(iter(cluster.scheduler_info()["workers"]))])
    target = zarr.create_array(tmp_path / "open", shape=(40, 3), dtype="float64", chunks=(10, 3))
    before = sorted(target.store_path.store.root.rglob("*"))
    message = (
        r"^compute: the processes that compute must all write to .*; worker tcp://\S+ wrote somewhere else\. Store"
    )
    for path in (tmp_path / "dz", target):
        with pytest.raises(ValueError, match=message):
            compute(store=[(gradients(case, 6).dz, path)])
    assert [x.name for x in tmp_path.iterdir()] == ["open"]
    assert sorted(target.store_path.store.root.rglob("*")) == before


@pytest.mark.parametrize("kind", ["path", "array"])
def test_chunks_that_are_lost_later(cluster: Client, tmp_path: Path, kind: str) -> None:
    """A worker that came after the check may have a folder of its own."""
    assert cluster

    def step(z: Any) -> tuple[Any]:
        if len(z) and z[0, 0] == 18:
            lose(first=True)
        return (z,)

    z = da.from_array(np.arange(40.0)[:, None], chunks=(6, 1))
    target: Any = tmp_path / "z"
    if kind == "array":
        target = zarr.create_array(target, shape=(40, 1), dtype="float64", chunks=(6, 1))
    (rows,) = accumulate(step, z, rows=(0,))
    with pytest.raises(OSError, match=r"^compute: \d of 7 chunks of .* were written and are not there: a process has"):
        compute(store=[(rows, target)])
    assert [x.name for x in tmp_path.iterdir()] == (["z"] if kind == "array" else [])


def test_array_in_memory(cluster: Client, case: Case) -> None:
    assert cluster
    target = zarr.create_array({}, shape=(40, 3), dtype="float64")
    with pytest.raises(
        ValueError, match=r"must all write to memory://\d+; worker tcp://\S+ wrote somewhere else\. Sto"
    ):
        compute(store=[(gradients(case, 6).dz, target)])


def test_zeros_arrive(cluster: Client, tmp_path: Path) -> None:
    """Zarr does not store chunks of the fill value unless it is asked to."""
    assert cluster
    (rows,) = accumulate(lambda x: (x * 0,), da.ones((40, 2), chunks=(6, 2)), rows=(0,))
    compute(store=[(rows, tmp_path / "zeros")])
    assert not zarr.open_array(tmp_path / "zeros")[...].any()
    (nothing,) = accumulate(lambda x: (x,), da.ones((0, 2)), rows=(0,))
    compute(store=[(nothing, tmp_path / "nothing")])
    assert zarr.open_array(tmp_path / "nothing").shape == (0, 2)


def test_workers_in_other_folders(cluster: Client, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.run(os.chdir, "/")
    monkeypatch.chdir(tmp_path)
    dz = gradients(case, 6).dz
    target = zarr.create_array("open", shape=(40, 3), dtype="float64", chunks=(6, 3))
    compute(store=[(dz, "path"), (dz, target)])
    for name in ("path", "open"):
        check((zarr.open_array(tmp_path / name)[...], None, None), case)


def test_same_answer_about_memory(cluster: Client) -> None:
    """Whatever a process holds from an earlier run."""
    before = cluster.run_on_scheduler(_cluster._bytes_per_thread)  # noqa: SLF001

    def hold(dask_worker: Any) -> None:
        dask_worker.held = np.ones(2**25)

    cluster.run(hold)
    wait_until(
        lambda: cluster.run_on_scheduler(
            lambda dask_scheduler: all(x.metrics["memory"] > 2**28 for x in dask_scheduler.workers.values())
        )
    )
    assert cluster.run_on_scheduler(_cluster._bytes_per_thread) == before  # noqa: SLF001
    assert min(before) > 2**28


def test_worker_that_was_just_killed(cluster: Client, case: Case, tmp_path: Path) -> None:
    for i in range(3):
        cluster.wait_for_workers(2)
        os.kill(next(iter(cluster.run(os.getpid).values())), signal.SIGKILL)
        got = gradients(case, 6)
        dw, db = compute(got.dw, got.db, store=[(got.dz, tmp_path / str(i))])
        check((zarr.open_array(tmp_path / str(i))[...], dw, db), case)
    assert plugins(cluster) == []


class Answers:
    """A client whose workers give one answer after another."""

    status = "running"

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def register_plugin(self, *_: object, **__: object) -> None:
        answer = self.run()["register"]
        if isinstance(answer, Exception):
            raise answer


def test_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cluster, "_PAUSE_SECONDS", 0)
    gone = OSError("gone")
    assert _cluster.ask(Answers({"a": gone, "b": 1}, {"b": 2}), len) == {"worker b": 2}
    assert _cluster.ask(Answers({"a": gone, "b": 1}), len) == {"worker b": 1}
    with pytest.raises(LookupError, match="odd"):
        _cluster.ask(Answers({"a": gone}, {"a": LookupError("odd")}), len)
    client = Answers({"register": gone}, {"register": None})
    _cluster._limit_blas(client, "name")  # noqa: SLF001
    assert client.asked == 2
    for status, times in (("running", 20), ("closed", 1)):
        client = Answers({"register": gone})
        client.status = status
        with pytest.raises(OSError, match="gone"):
            _cluster._limit_blas(client, "name")  # noqa: SLF001
        assert client.asked == times


@pytest.mark.parametrize("kind", ["step", "register"])
def test_failed_run_leaves_no_plugin(cluster: Client, case: Case, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(_cluster, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(_cluster, "_ATTEMPTS", 2)
    register = cluster.register_plugin

    def fails(*args: Any, **options: Any) -> None:
        register(*args, **options)
        raise OSError(kind)

    def step(z: Any) -> tuple[Any]:
        if len(z):
            raise OSError(kind)
        return (z.sum(axis=0),)

    if kind == "register":
        monkeypatch.setattr(cluster, "register_plugin", fails)
    lazy = accumulate(step, da.from_array(case.z, chunks=(6, 3)))
    with pytest.raises(OSError, match=f"^{kind}"):
        compute(*lazy)
    assert plugins(cluster) == []


def test_adaptive_cluster_without_workers(case: Case, tmp_path: Path) -> None:
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as local, Client(local):
        local.adapt(minimum=0, maximum=1)
        got = gradients(case, 6)
        dw, db = compute(got.dw, got.db, store=[(got.dz, tmp_path / "dz")])
    check((zarr.open_array(tmp_path / "dz")[...], dw, db), case)


def test_waits_for_a_worker_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_cluster, "_WITHOUT_WORKERS_SECONDS", 0.1)
    with processes(tmp_path) as started:

        def replace(pid: int) -> None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: caplog.records)
            (tmp_path / "go on").touch()
            started.start_worker()

        thread = when_it_runs(tmp_path, replace)
        with caplog.at_level(logging.WARNING, "pullback.dask"):
            (total,) = compute(accumulate(slow(tmp_path), da.ones((12, 2), chunks=(4, 2)), rows=(0,))[1])
        thread.join()
    assert total.tolist() == [12, 12]
    (record,) = [x for x in caplog.records if x.name == "pullback.dask"]
    message = record.getMessage()
    assert message.startswith("compute: the cluster at tcp://")
    assert message.endswith(" has no workers, and this waits for one; start one, or interrupt")


@pytest.mark.parametrize("when", ["before", "while it runs"])
def test_scheduler_that_is_killed(tmp_path: Path, when: str) -> None:
    (tmp_path / "out").mkdir()
    with processes(tmp_path) as started:
        rows, total = accumulate(slow(tmp_path), da.ones((12, 2), chunks=(4, 2)), rows=(0,))
        if when == "before":
            started.scheduler.kill()
            wait_until(lambda: started.client.status != "running")
        else:
            thread = when_it_runs(tmp_path, lambda _: started.scheduler.kill())
        message = r"^compute: the scheduler at tcp://\S+ is gone, and with it all that it held; connect a client to an"
        with pytest.raises(ConnectionError, match=message):
            compute(total, store=[(rows, tmp_path / "out" / "rows")])
        if when != "before":
            thread.join()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("frozen", ["scheduler", "worker"])
def test_interrupted_while_a_process_is_frozen(tmp_path: Path, frozen: str) -> None:
    """It ends although nobody answers, and says what may go on."""
    with processes(tmp_path) as started:

        def freeze(pid: int) -> None:
            os.kill(started.scheduler.pid or 0 if frozen == "scheduler" else pid, signal.SIGSTOP)
            interrupt()

        thread = when_it_runs(tmp_path, freeze)
        rows, _ = accumulate(slow(tmp_path), da.ones((12, 2), chunks=(4, 2)), rows=(0,))
        with pytest.raises(KeyboardInterrupt) as info:
            compute(store=[(rows, tmp_path / "rows")])
        thread.join()
    (note,) = info.value.__notes__
    assert note.startswith(
        "compute: the cluster did not answer within 2 s; its tasks may go on and write, and the BLAS"
    )
    assert not (tmp_path / "rows").exists()


def test_asynchronous_client(case: Case) -> None:
    got = gradients(case, 6)

    def way_out(address: str) -> Any:
        with Client(address):
            return compute(*got)

    async def main() -> Any:
        async with (
            LocalCluster(n_workers=1, processes=False, asynchronous=True, dashboard_address=":0") as local,
            Client(local, asynchronous=True) as client,
        ):
            message = (
                rf"^compute: .* in asyncio\.to_thread: with Client\('{client.scheduler.address}'\): compute\(\.\.\.\)$"
            )
            with pytest.raises(TypeError, match=message):
                compute(*got)
            return await asyncio.to_thread(way_out, client.scheduler.address)

    check(asyncio.run(main()), case)


@pytest.mark.parametrize("where", ["scheduler", "worker"])
def test_cluster_without_the_package(tmp_path: Path, case: Case, where: str) -> None:
    def hide() -> None:
        for name in [x for x in sys.modules if x.partition(".")[0] == "pullback"]:
            del sys.modules[name]
        sys.modules["pullback"] = None  # type: ignore[assignment] # as Python lets one say that there is none

    with processes(tmp_path) as started:
        started.client.run(hide) if where == "worker" else started.client.run_on_scheduler(hide)
        who = "the scheduler" if where == "scheduler" else r"worker tcp://\S+"
        message = rf"^compute: {who} cannot load pullback \(.*\); install the versions there that are installed here$"
        with pytest.raises(ModuleNotFoundError, match=message):
            compute(*gradients(case, 6))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning")  # to compare with
def test_gradient_of_a_worker_that_is_killed(cluster: Client, tmp_path: Path) -> None:
    """In each of the two passes of a loss that couples the blocks: the bits are those of threads."""
    assert cluster
    (tmp_path / "forward").touch()
    (tmp_path / "backward").touch()

    def step(z: Any, w: Any) -> Any:
        in_block = z.shape[0] and bool(z[0, 0] == 18)
        for kill in sorted(tmp_path.iterdir(), reverse=True)[:1] if in_block else []:
            # The backward comes second, and runs the step on arrays that are traced.
            if (kill.name == "forward") == isinstance(z, np.ndarray):
                kill.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return array_namespace(w).sum((z @ w) ** 2)

    z = da.from_array(np.arange(240.0).reshape(40, 6)[:, ::-1] % 37 + 18, chunks=(4, 6))
    z = da.concatenate([da.full((4, 6), 18.0, chunks=(4, 6)), z])

    def loss(w: Any) -> Any:
        return array_namespace(w).log(accumulate(step, z, shared=(w,)))

    far = value_and_grad(loss)(np.ones(6))
    assert list(tmp_path.iterdir()) == []
    with dask.config.set(scheduler="threads"):
        near = value_and_grad(loss)(np.ones(6))
    assert [x.tobytes() for x in far] == [x.tobytes() for x in near]
