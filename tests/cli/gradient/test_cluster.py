"""The command on clusters, with what they lose."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from pullback import affine_backward, softmax_cross_entropy
from pullback._cli.gradient import files
from tests.harness.gradient_command import FILL, check, fault, finish, gradient, left, ones, save, start, to_zarr

pytestmark = pytest.mark.xdist_group("command on a cluster")  # one worker starts it for all


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers in processes of their own, with twice the memory that they hold; a task that kills one ends."""
    options: Any = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "500MB", "dashboard_address": ":0"}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), LocalCluster(**options) as cluster:
        yield cluster


def test_cluster(cluster: LocalCluster) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    result = gradient("--scheduler", cluster.scheduler_address, z="z.zarr")
    assert (result.status, result.stderr) == (0, "")
    check("dz", "dw", "db")


def test_cluster_and_a_loss(cluster: LocalCluster) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    y = np.arange(1_000) % 3
    np.save("y.npy", y)
    np.save("s.npy", np.ones(1_000))
    options = ["--scheduler", cluster.scheduler_address, "--loss", "softmax_cross_entropy", "--overwrite"]
    paths = {"z": "z.zarr", "upstream": "", "targets": "y.npy", "example_weights": "s.npy"}
    result = gradient(*options, **paths)
    assert (result.status, result.stderr) == (0, "")
    dw: Any = zarr.open_array("out.zarr/dw", mode="r")
    z, w = np.load("z.npy"), np.load("w.npy")
    expected: Any = affine_backward(softmax_cross_entropy(z @ w, y).da, z, w).dw
    np.testing.assert_allclose(dw[...], expected, rtol=1e-4)
    more = ["--l2", "0.1", *options]
    assert gradient(*more, command="fit", output="fit.zarr", **paths).status == 0
    y[700] = 3
    np.save("y.npy", y)
    fault(
        gradient(*options, **paths),
        1,
        "must be class indices from 0 to 2, as --weights has 3 columns; got 3",
        "rows [0:",
    )


def test_cluster_and_a_corrupt_chunk(cluster: LocalCluster) -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    Path("z.zarr/c/4/0").write_bytes(b"no chunk")
    result = gradient("--scheduler", cluster.scheduler_address, z="z.zarr")
    fault(result, 1, "z.zarr: rows [0:1000] cannot be read: ", "out.zarr was not written")
    assert left() == {"z.zarr"}


def test_cluster_and_a_block_too_large_for_it(cluster: LocalCluster) -> None:
    ones("z.zarr", (1_000_000, 64), (100_000, 64))
    ones("da.zarr", (1_000_000, 8), (100_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    more = [FILL, "--block-rows", "1000000", "--memory", "10GB", "--scheduler", cluster.scheduler_address]
    result = gradient(*more, z="z.zarr", upstream="da.zarr")
    fault(result, 1, "a block of 1,000,000 rows takes", "set the rows of a block with --block-rows")
    result = gradient(*more[:4], "1GB", *more[5:], z="z.zarr", upstream="da.zarr")
    assert left() == {"z.zarr", "da.zarr"} | ({"out.zarr"} if result.status == 0 else set())


def test_cluster_is_interrupted(cluster: LocalCluster, here: Path) -> None:
    ones("z.zarr", (20_000_000, 64), (10_000, 64))
    ones("da.zarr", (20_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    more = [FILL, "--block-rows", "20000", "--scheduler", cluster.scheduler_address]
    process = start(*more, z="z.zarr", upstream="da.zarr")
    while not list(here.glob(".out.zarr.partial/*/dz/c/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    fault(finish(process), 130, "interrupted. out.zarr was not written: run the command again")
    assert left() == {"z.zarr", "da.zarr"}


def fall() -> None:
    """Let this worker die of the first file that it reads, as it does when it runs out of memory."""
    files.NpyFile.read = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]


def test_worker_is_killed(cluster: LocalCluster) -> None:
    save()
    with Client(cluster, set_as_default=False) as client:
        client.run(fall)
        result = gradient("--scheduler", cluster.scheduler_address)
        fault(result, 1, "KilledWorker: ", "out.zarr was not written: give a smaller --memory")
    assert left() == set()


@pytest.mark.parametrize("on", ["threads", "cluster"])
def test_nothing_is_at_work_any_more_when_a_run_has_failed(on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ones("z.zarr", (100_000, 64), (50_000, 64))
    ones("da.zarr", (100_000, 8), (50_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    failed, wrote = Event(), Event()
    read, write = zarr.Array.__getitem__, zarr.Array.__setitem__

    def fail_first(array: Any, key: slice) -> Any:
        if key.start == 0:
            failed.set()
            msg = "the disk is broken"
            raise RuntimeError(msg)
        return read(array, key)

    def write_late(array: Any, *others: Any) -> None:
        assert failed.wait(10)
        time.sleep(0.5)
        write(array, *others)
        wrote.set()

    monkeypatch.setattr(zarr.Array, "__getitem__", fail_first)
    monkeypatch.setattr(zarr.Array, "__setitem__", write_late)
    more = [FILL, "--block-rows", "50000"]
    if on == "threads":
        result = gradient(*more, "--workers", "2", z="z.zarr", upstream="da.zarr")
    else:
        with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
            result = gradient(*more, "--scheduler", cluster.scheduler_address, z="z.zarr", upstream="da.zarr")
    fault(result, 1, "rows [0:50000] cannot be read: the disk is broken", "out.zarr was not written")
    assert wrote.is_set()
    assert left() == {"z.zarr", "da.zarr"}


@pytest.mark.slow
def test_cluster_that_starts_workers_when_they_are_needed() -> None:
    save()
    with LocalCluster(n_workers=0, dashboard_address=":0", processes=False) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        result = gradient("--scheduler", cluster.scheduler_address)
        waits = f"{cluster.scheduler_address} has no workers, and this waits for one; start one, or interrupt"
        assert (result.status, result.stderr) == (0, f"pullback gradient: the cluster at {waits}\n")
    check("dz", "dw", "db")


@pytest.mark.slow
def test_interrupted_while_the_scheduler_is_frozen(here: Path) -> None:
    """It waits for nobody, and says what may go on."""
    ones("z.zarr", (20_000_000, 64), (10_000, 64))
    ones("da.zarr", (20_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    python, file = [sys.executable, "-m"], here / "scheduler.json"
    scheduler = subprocess.Popen(  # noqa: S603 - a scheduler
        [*python, "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        stderr=subprocess.DEVNULL,
    )
    worker = subprocess.Popen(  # noqa: S603 - its worker
        [*python, "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-nanny", "--no-dashboard"],
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        process = start(FILL, "--block-rows", "20000", "--scheduler", address, z="z.zarr", upstream="da.zarr")
        while not list(here.glob(".out.zarr.partial/*/dz/c/*")):
            assert process.poll() is None
            time.sleep(0.05)
        scheduler.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        _, _, last = finish(process).stderr.splitlines()[-3:]
        assert process.returncode == 130
        assert "did not answer within 2 s; its tasks may go on" in last
        assert last.endswith("out.zarr was not written: run the command again")
    finally:
        for server in (worker, scheduler):
            server.kill()
            server.wait()


def test_cluster_that_is_not_there() -> None:
    save()
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        fault(gradient("--scheduler", "tcp://127.0.0.1:1"), 2, "Timed out trying to connect to tcp://127.0.0.1:1")
