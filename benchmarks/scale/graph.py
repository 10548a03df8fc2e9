"""Graphs whose blocks hold nothing: their tasks, their size, and the time to build and to run them."""

import gc
import pickle
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np

from benchmarks.report import Row, Section
from benchmarks.scale.files import Floats, K, N, Sums, seconds
from pullback.dask import accumulate, compute

TASKS = 1.3
# µs to build and optimise a graph, for each of so many blocks.
MICROSECONDS = 100
BUILD_BLOCKS = 10_000
REPEATS = 3


def section(*, quick: bool) -> Section:
    """Return the table."""
    return Section(
        name="graph",
        title="Graph of (dw, db), blocks of which nothing is read or computed: for each, tasks, µs to build and "
        "optimise, bytes when pickled, and µs to run on threads and on two worker processes",
        columns=("blocks", "tasks", "build", "bytes", "threads", "cluster", "bound"),
        rows=_rows(quick=quick),
        length=3 if quick else 4,
    )


def _rows(*, quick: bool) -> Iterator[Row]:
    """Count tasks, bytes and times of graphs whose blocks hold nothing, and draw the line on to ten times as many."""
    counts = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    measured = [_graph(blocks) for blocks in counts]
    for blocks, (tasks, build, size, threads, cluster) in zip(counts, measured, strict=True):
        holds = tasks <= TASKS and (build <= MICROSECONDS or blocks != BUILD_BLOCKS)
        bound = f"≤ {TASKS}" + f"; ≤ {MICROSECONDS} µs" * (blocks == BUILD_BLOCKS)
        times = f"{build:.0f}", f"{size:.0f}", f"{threads:.0f}", f"{cluster:.0f}" if cluster else "not run"
        yield Row((f"{blocks:,}", f"{tasks:.3f}", *times, bound), holds=holds)
    *_, (few, fewer), (many, more) = zip(counts, measured, strict=True)
    total = [y + (y - x) * 9 * many / (many - few) for x, y in ((few * fewer[i], many * more[i]) for i in (1, 2, 3))]
    build, size, threads = (x / (10 * many) for x in total)
    cells = (f"{10 * many:,} (extrapolated)", "", f"{build:.0f}", f"{size:.0f}", f"{threads:.0f}", "", "none")
    yield Row(cells, holds=None)


def _graph(blocks: int) -> tuple[float, float, float, float, float]:
    """Return tasks, µs to build and optimise, bytes, µs on threads and on a cluster, all for a block."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - starts threads of its own

    # Large enough for a task each.
    rows = 5_500
    seen: list[tuple[int, int]] = []
    times: list[float] = []

    def look(expression: Any, *_: object, **__: object) -> list[tuple[int, int]]:
        """Stand in for a scheduler, which gets the optimised graph."""
        graph = expression.__dask_graph__()
        times.append(time.perf_counter())
        seen.append((len(graph), len(pickle.dumps(graph))))
        return [(0, 0), (0, 0)]

    def gradients(name: str) -> Sequence[da.Array]:
        """Make a new graph."""
        lazy = [da.from_array(_Nothing((blocks * rows, n)), chunks=(rows, -1), name=f"{name}-{n}") for n in (N, K)]
        return accumulate(_no_gradient, *lazy, shared=(np.ones((K, N), np.float32),))

    builds = []
    # Else it would go through all that other parts have left in memory, and charge it to the blocks.
    gc.disable()
    for i in range(REPEATS):
        start = time.perf_counter()
        dask.compute(*gradients(f"built-{blocks}-{i}"), scheduler=look)
        builds.append(times.pop() - start)
    gc.enable()
    ready = gradients(f"threads-{blocks}")
    threads = seconds(partial(compute, *ready))
    cluster = 0.0
    if blocks <= BUILD_BLOCKS:
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
            Client(local),
        ):
            cluster = seconds(partial(compute, *gradients(f"cluster-{blocks}")))
    tasks, size = seen[0]
    return (
        tasks / blocks,
        1e6 * statistics.median(builds) / blocks,
        size / blocks,
        *(1e6 * x / blocks for x in (threads, cluster)),
    )


@dataclass(frozen=True)
class _Nothing:
    """A source of rows that take no memory and no time."""

    shape: tuple[int, int]
    dtype = np.dtype(np.float32)
    ndim = 2

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        # Memory that nobody writes to is not there yet.
        return np.zeros([part.stop - part.start for part in key], self.dtype)


def _no_gradient(_upstream: Floats, _z: Floats, w: Floats) -> Sums:
    """Take no time either."""
    return np.zeros_like(w), np.zeros_like(w[0])
