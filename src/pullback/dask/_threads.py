"""How `pullback.dask` runs a graph: one BLAS thread to a task, a look at the workers' memory."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from math import isnan
from time import sleep
from typing import Any, TypeAlias
from uuid import uuid4

import dask
from dask import config
from dask.base import get_scheduler
from dask.system import CPU_COUNT
from dask.threaded import get
from threadpoolctl import threadpool_limits

from pullback._core.typing import Client, Computed, DaskArray, Scheduler
from pullback.dask._graph import blocks_of
from pullback.dask._plan import Plan
from pullback.dask._progress import POLL_SECONDS, Local, bar, watch

Worker: TypeAlias = Any

# A worker pauses when it uses this part of its memory.
_USABLE = 0.8


def run(results: Sequence[DaskArray], written: Sequence[DaskArray], /, *, progress: bool) -> tuple[Computed, ...]:
    """Compute the results, and all that has to be written, in one go."""
    wanted = (*results, *written)
    lazy = [x for x in wanted if x is not None]
    blocks = blocks_of(*lazy)
    client = getattr(get_scheduler(collections=lazy), "__self__", None) if lazy else None
    if client is None:
        with (
            threadpool_limits(1, user_api="blas"),
            _threads(lazy) as pool,
            bar(blocks, progress=progress) as show,
            Local(show),
        ):
            out = dask.compute(*wanted, **pool)
    else:
        plans = [layer.plan for layer in blocks]
        _check_memory(client, plans)
        _check_steps(client, plans)
        with (
            _one_thread_each(client),
            _wait_for_stragglers(client, written),
            bar(blocks, progress=progress) as show,
            watch(client, blocks, show),
        ):
            out = dask.compute(*wanted)
    computed: tuple[Computed, ...] = out[: len(results)]
    return computed


def _check_memory(client: Client, plans: Iterable[Plan], /) -> None:
    """Refuse a block that a worker has no room for: on a cluster it would kill one worker after another."""
    rooms = client.run_on_scheduler(_free_bytes_per_thread)
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


def _check_steps(client: Client, plans: Iterable[Plan], /) -> None:
    """Refuse a step that a worker cannot load: it would end over it, and the next one, and the client would wait."""
    from distributed.protocol.pickle import dumps  # noqa: PLC0415 - a client is here, and so is its library

    for plan in plans:
        step = plan.run.step
        problem = next(filter(None, client.run(_why_not_loaded, dumps(step)).values()), None)
        if problem:
            msg = (
                f"compute: a worker cannot load step, {getattr(step, '__name__', repr(step))}: {problem}. Put its "
                "module where the workers import from, or send it: client.upload_file('module.py')"
            )
            raise ValueError(msg)


def _why_not_loaded(step: bytes) -> str | None:
    """Say what keeps a worker from loading a step; None for nothing."""
    from distributed.protocol.pickle import loads  # noqa: PLC0415 - in a worker

    try:
        loads(step)
    except Exception as error:  # noqa: BLE001 - whatever a module raises when it is imported
        return f"{type(error).__name__}: {error}"
    return None


def _free_bytes_per_thread(dask_scheduler: Scheduler) -> list[float]:
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
def _wait_for_stragglers(client: Client, written: Sequence[DaskArray], /) -> Iterator[None]:
    """Wait for the tasks of a run that failed, as on threads; the cluster has let go of them, but they go on."""
    tokens = [x.name.rpartition("-")[2] for x in written]
    try:
        yield
    except BaseException:
        while client.run_on_scheduler(_scheduled, tokens) or any(client.run(_held, tokens).values()):
            sleep(POLL_SECONDS)
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
