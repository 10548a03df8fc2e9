"""How `pullback.dask` runs a graph: one BLAS thread to a task, a look at the workers' memory, a bar."""

from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import isnan
from threading import Event, Thread
from time import sleep
from typing import Any, TypeAlias
from uuid import uuid4

import dask
from dask import config
from dask.base import get_scheduler
from dask.callbacks import Callback
from dask.system import CPU_COUNT
from dask.threaded import get
from threadpoolctl import threadpool_limits

from pullback._plan import Blocks, Plan
from pullback._typing import Client, Computed, DaskArray

Scheduler: TypeAlias = Any
Worker: TypeAlias = Any
Show = Callable[[float], None]
"""Is told what part of the work is done."""

# A worker pauses when it uses this part of its memory.
_USABLE = 0.8
_POLL_SECONDS = 0.3
_LEFT = {"waiting", "no-worker", "queued", "processing"}


def run(results: Sequence[DaskArray], written: Sequence[DaskArray], /, *, progress: bool) -> tuple[Computed, ...]:
    """Compute the results, and all that has to be written, in one go."""
    wanted = (*results, *written)
    lazy = [x for x in wanted if x is not None]
    plans = {name: layer.plan for x in lazy for name, layer in x.dask.layers.items() if isinstance(layer, Blocks)}
    client = getattr(get_scheduler(collections=lazy), "__self__", None) if lazy else None
    if client is None:
        with (
            threadpool_limits(1, user_api="blas"),
            _threads(lazy) as pool,
            _bar(plans, progress=progress) as show,
            _Local(show),
        ):
            out = dask.compute(*wanted, **pool)
    else:
        _check_memory(client, plans.values())
        with (
            _one_thread_each(client),
            _ended(client, written),
            _bar(plans, progress=progress) as show,
            _watch(client, plans, show),
        ):
            out = dask.compute(*wanted)
    computed: tuple[Computed, ...] = out[: len(results)]
    return computed


def _check_memory(client: Client, plans: Iterable[Plan], /) -> None:
    """Refuse a block that a worker has no room for: on a cluster it would kill one worker after another."""
    rooms = client.run_on_scheduler(_rooms)
    room = min(rooms, default=None)
    if room is None:
        return
    for plan in plans:
        rows = max(plan.chunks)
        if isnan(sum(plan.chunks)) or plan.task_bytes(rows) <= room:
            continue
        fits = bisect(range(rows), room, key=plan.task_bytes) - 1
        way_out = f"rechunk the batch to at most {fits:,} rows a block" if fits > 0 else "no block is small enough"
        msg = (
            f"compute: a block of {rows:,} rows takes {_mib(plan.task_bytes(rows))}, and a worker has "
            f"{_mib(room)} for each of its threads; {way_out}, or give workers more memory or fewer threads"
        )
        raise ValueError(msg)


def _rooms(dask_scheduler: Scheduler) -> list[float]:
    """Return the bytes that each worker has left for a thread; none where it has no limit."""
    return [
        max(_USABLE * worker.memory_limit - worker.metrics.get("memory", 0), 0) / worker.nthreads
        for worker in dask_scheduler.workers.values()
        if worker.memory_limit
    ]


def _mib(count: float, /) -> str:
    """Return ``12 MiB``."""
    return f"{count / 2**20:,.0f} MiB"


class _Limit:
    """Gives the BLAS of a process one thread while a worker in it needs that: several may, and in any order."""

    def __init__(self) -> None:
        self._needed = 0
        self._stack = ExitStack()

    def need(self) -> None:
        """Give it one thread."""
        if self._needed == 0:
            # Entered, for threadpoolctl to let go of the thread that it takes orders from.
            self._stack.enter_context(threadpool_limits(1, user_api="blas"))
        self._needed += 1

    def release(self) -> None:
        """Give it what it had before the first one needed it, after the last one does."""
        self._needed -= 1
        if self._needed == 0:
            self._stack.close()


_LIMIT = _Limit()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the BLAS of this process have one thread."""
    _LIMIT.need()
    try:
        yield
    finally:
        _LIMIT.release()


@contextmanager
def _threads(lazy: Sequence[DaskArray], /) -> Iterator[dict[str, Executor]]:
    """Run on threads that have ended afterwards: when a task fails, others would write into what is then removed."""
    if get_scheduler(collections=lazy) is not get or config.get("pool", None) is not None:
        yield {}
        return
    with ThreadPoolExecutor(config.get("num_workers", None) or CPU_COUNT) as pool:
        yield {"pool": pool}


@contextmanager
def _ended(client: Client, written: Sequence[DaskArray], /) -> Iterator[None]:
    """Wait for the tasks of a run that failed, as on threads; the cluster has let go of them, but they go on."""
    tokens = [x.name.rpartition("-")[2] for x in written]
    try:
        yield
    except BaseException:
        while client.run_on_scheduler(_scheduled, tokens) or any(client.run(_held, tokens).values()):
            sleep(_POLL_SECONDS)
        raise


def _scheduled(tokens: Sequence[str], dask_scheduler: Scheduler) -> bool:
    """Whether the scheduler knows a task of these."""
    return any(token in str(key) for key in dask_scheduler.tasks for token in tokens)


def _held(tokens: Sequence[str], dask_worker: Worker) -> bool:
    """Whether a worker knows a task of these."""
    return any(token in str(key) for key in dask_worker.state.tasks for token in tokens)


@contextmanager
def _one_thread_each(client: Client, /) -> Iterator[None]:
    """Let the workers' BLAS have one thread, and give the others back afterwards."""
    from distributed import WorkerPlugin  # noqa: PLC0415 - a client is here, and so is its library

    class OneThread(WorkerPlugin):  # type: ignore[misc] # not typed here
        """Limits the BLAS of a worker's process while it is there."""

        def setup(self, worker: object) -> None:  # noqa: ARG002 - the protocol
            self.stack = ExitStack()
            self.stack.enter_context(_one_thread())

        def teardown(self, worker: object) -> None:  # noqa: ARG002 - the protocol
            self.stack.close()

    name = f"one-thread-{uuid4().hex}"
    client.register_plugin(OneThread(), name=name)
    try:
        yield
    finally:
        client.unregister_worker_plugin(name)


class _Local(Callback):  # type: ignore[misc] # not typed here
    """Shows the part of the tasks that a local scheduler has done."""

    def __init__(self, show: Show, /) -> None:
        super().__init__()
        self._show = show

    def _start_state(self, dsk: Mapping[object, object], state: Mapping[str, Any]) -> None:
        self._done, self._all = 0, len(dsk) - len(state["finished"])

    def _posttask(self, *_: object) -> None:
        self._done += 1
        self._show(self._done / self._all)


@contextmanager
def _watch(client: Client, plans: Iterable[str], show: Show, /) -> Iterator[None]:
    """Ask the scheduler from time to time what part of the blocks is done."""
    names = [name.replace("accumulate", "accumulate-block", 1) for name in plans]
    stop = Event()

    def watch() -> None:
        while not stop.wait(_POLL_SECONDS):
            done, count = client.run_on_scheduler(_blocks_done, names)
            if count:
                show(done / count)

    thread = Thread(target=watch, daemon=True)
    if show is not _nothing:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if show is not _nothing:
            thread.join()


def _blocks_done(names: Sequence[str], dask_scheduler: Scheduler) -> tuple[int, int]:
    """Return the number of blocks that are done, and that of all."""
    states = [group.states for name, group in dask_scheduler.task_groups.items() if name in names]
    left = sum(count for group in states for state, count in group.items() if state in _LEFT)
    count = sum(sum(group.values()) for group in states)
    return count - left, count


def _nothing(_: float, /) -> None:
    """Show nothing."""


@contextmanager
def _bar(plans: dict[str, Plan], /, *, progress: bool) -> Iterator[Show]:
    """Show a bar on standard error, with the rows that are done in a second and the time that is left."""
    if not progress:
        yield _nothing
        return
    from rich.console import Console  # noqa: PLC0415 - few ask for it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    rows = sum(sum(plan.chunks) for plan in plans.values())
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0, rate="")

        def show(part: float) -> None:
            speed = bar.tasks[task].speed
            rate = "" if speed is None or isnan(rows) else f"{speed * rows:,.0f} rows/s"
            bar.update(task, completed=part, rate=rate)

        yield show
        show(1.0)
