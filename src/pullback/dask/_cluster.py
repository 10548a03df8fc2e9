"""Runs of `pullback.dask` on a cluster of `distributed`: questions to its workers, and the end of a run."""

import logging
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import isnan
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, TypeAlias
from uuid import uuid4

import dask
from dask.base import get_scheduler
from dask.threaded import get as get_threaded

from pullback._core.typing import Client, DaskArray, Scheduler
from pullback.dask._graph import Blocks
from pullback.dask._plan import Plan
from pullback.dask._progress import Show
from pullback.dask._threads import BLAS_LIMIT

Worker: TypeAlias = Any

POLL_SECONDS = 0.3
# A worker pauses when it uses this part of its memory.
_USABLE = 0.8
# What a worker's process takes with the libraries loaded.
_BASE_BYTES = 160 * 2**20
# A worker that was killed is asked again, until the scheduler has noticed.
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.1
# After an interruption, and to a scheduler that may be gone: how long to wait for an answer. With the time that the
# watch and the command's client wait for one, Ctrl-C ends within 5 seconds although nobody answers.
_PATIENCE_SECONDS = 2.0
# How long a cluster has no worker before it is said.
_WITHOUT_WORKERS_SECONDS = 5.0
_LEFT = {"waiting", "no-worker", "queued", "processing"}

logger = logging.getLogger("pullback.dask")


def scheduler_of(lazy: Sequence[DaskArray], /) -> tuple[Callable[..., Any], Client | None]:
    """Return the scheduler that Dask takes for lazy arrays, and the client whose it is, or None."""
    try:
        get = get_scheduler(collections=lazy) if lazy else get_threaded
    except RuntimeError as error:
        # An asynchronous client, which Dask refuses without a way out.
        from distributed import default_client  # noqa: PLC0415 - a client is here, and so is its library

        address = default_client().scheduler.address
        msg = (
            "compute: it waits for its results, and an asynchronous client must not; call it in a thread with a client "
            f"of its own, for example in asyncio.to_thread: with Client({address!r}): compute(...)"
        )
        raise TypeError(msg) from error
    client: Any = getattr(get, "__self__", None)
    return get, client if hasattr(client, "run_on_scheduler") else None


def run(
    client: Client,
    wanted: Sequence[DaskArray],
    blocks: Sequence[Blocks],
    written: Sequence[DaskArray],
    /,
    *,
    show: Show,
) -> tuple[Any, ...]:
    """Compute lazy arrays on a cluster, `written` among them, which are there when targets are written."""
    plans = [layer.plan for layer in blocks]
    plugin = f"one-thread-{uuid4().hex}"
    with _clean_up(client, plugin, written):
        _check_memory(client, plans)
        _check_steps(client, plans)
        _limit_blas(client, plugin)
        with watch(client, blocks, show):
            out: tuple[Any, ...] = dask.compute(*wanted)
    return out


def ask(client: Client, function: Callable[..., Any], *args: object) -> dict[str, Any]:
    """Call a function in each worker that answers; return what it returned, by the worker's address."""
    answers: dict[str, Any] = {}
    for _ in range(_ATTEMPTS):
        answers = client.run(function, *args, on_error="return")
        for worker, error in answers.items():
            if isinstance(error, Exception) and not isinstance(error, OSError):
                # A worker that cannot load a function sends the text of its error alone.
                if "No module named" in str(error):
                    msg = _cannot_load(f"worker {worker}", error)
                    raise ModuleNotFoundError(msg) from error
                raise error
        if not any(isinstance(x, OSError) for x in answers.values()):
            break
        # A worker was killed, and the scheduler does not know it yet.
        sleep(_PAUSE_SECONDS)
    return {f"worker {worker}": x for worker, x in answers.items() if not isinstance(x, OSError)}


def _cannot_load(where: str, error: Exception, /) -> str:
    """Return the message of an error that says where the package is missing: it is not here."""
    return f"compute: {where} cannot load pullback ({error}); install the versions there that are installed here"


def _check_memory(client: Client, plans: Iterable[Plan], /) -> None:
    """Reject a block that does not fit a worker's memory: on a cluster it would kill one worker after another."""
    try:
        spaces = client.run_on_scheduler(_bytes_per_thread)
    except ModuleNotFoundError as error:
        msg = _cannot_load("the scheduler", error)
        raise ModuleNotFoundError(msg) from error
    space = min(spaces, default=None)
    if space is None:
        return
    for plan in plans:
        rows = max(plan.chunks)
        if isnan(sum(plan.chunks)) or plan.task_bytes(rows) <= space:
            continue
        fits = bisect(range(rows), space, key=plan.task_bytes) - 1
        way_out = f"rechunk the batch to at most {fits:,} rows a block" if fits > 0 else "no block is small enough"
        msg = (
            f"compute: a block of {rows:,} rows takes {_mib(plan.task_bytes(rows))}, and a worker has "
            f"{_mib(space)} for each of its threads; {way_out}, or give workers more memory or fewer threads"
        )
        raise ValueError(msg)


def _bytes_per_thread(dask_scheduler: Scheduler) -> list[float]:
    """Return the bytes that each worker has for a thread; none for a worker without a limit.

    What a process holds now does not count: it may be free memory that an earlier run left with it.
    """
    return [
        max(_USABLE * worker.memory_limit - _BASE_BYTES, 0) / worker.nthreads
        for worker in dask_scheduler.workers.values()
        if worker.memory_limit
    ]


def _mib(count: float, /) -> str:
    """Return ``12 MiB``."""
    return f"{count / 2**20:,.0f} MiB"


def _check_steps(client: Client, plans: Iterable[Plan], /) -> None:
    """Reject a step that a worker cannot load: each worker in turn would die of it, and the client would wait."""
    from distributed.protocol.pickle import dumps  # noqa: PLC0415 - a client is here, and so is its library

    for plan in plans:
        step = plan.run.step
        problem = next(filter(None, ask(client, _why_not_loaded, dumps(step)).values()), None)
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


def _limit_blas(client: Client, name: str, /) -> None:
    """Limit the BLAS of all workers to one thread, also of those that come later, until `_finish`."""
    from distributed import WorkerPlugin  # noqa: PLC0415 - as above

    plugin = type("OneThread", (WorkerPlugin,), {"setup": _acquire, "teardown": _release})
    attempts = _ATTEMPTS
    while True:
        try:
            client.register_plugin(plugin(), name=name)
        except OSError:
            attempts -= 1
            # As in `ask`; a worker that has the plugin replaces it.
            if not attempts or client.status != "running":
                raise
            sleep(_PAUSE_SECONDS)
        else:
            return


def _acquire(plugin: object, worker: object) -> None:  # noqa: ARG001 - the protocol
    """Limit the BLAS of a worker's process."""
    BLAS_LIMIT.acquire()


def _release(plugin: object, worker: object) -> None:  # noqa: ARG001 - the protocol
    """Lift the limit."""
    BLAS_LIMIT.release()


@contextmanager
def watch(client: Client, blocks: Sequence[Blocks], show: Show, /) -> Iterator[None]:
    """Ask the scheduler from time to time what part of the blocks is done, and whether there are workers."""
    names = [layer.block for layer in blocks]
    stop = Event()

    def ask_scheduler() -> None:
        seen, told = monotonic(), False
        # A scheduler that is gone ends the run itself.
        with suppress(Exception):
            while not stop.wait(POLL_SECONDS):
                done, count, workers = client.run_on_scheduler(_state, names)
                if count:
                    show(done / count)
                if workers:
                    seen, told = monotonic(), False
                elif not told and monotonic() - seen > _WITHOUT_WORKERS_SECONDS:
                    told = True
                    logger.warning(
                        "compute: the cluster at %s has no workers, and this waits for one; start one, or interrupt",
                        client.scheduler.address,
                    )

    thread = Thread(target=ask_scheduler, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(POLL_SECONDS)


def _state(names: Sequence[str], dask_scheduler: Scheduler) -> tuple[int, int, int]:
    """Return the number of blocks that are done, that of all, and that of workers."""
    states = [group.states for name, group in dask_scheduler.task_groups.items() if name in names]
    left = sum(count for group in states for state, count in group.items() if state in _LEFT)
    count = sum(sum(group.values()) for group in states)
    return count - left, count, len(dask_scheduler.workers)


@contextmanager
def explain_lost_scheduler(client: Client | None, /) -> Iterator[None]:
    """Say in one line that the scheduler is gone, if it is."""
    if client and client.status != "running":
        # What is asked now would wait for half a minute.
        raise _lost(client)
    try:
        yield
    except Exception as error:
        if client and client.status != "running":
            raise _lost(client) from error
        raise


def _lost(client: Client, /) -> ConnectionError:
    """Return the error of a scheduler that is gone."""
    return ConnectionError(
        f"compute: the scheduler at {client.scheduler.address} is gone, and with it all that it held; "
        "connect a client to another one, and compute again"
    )


@contextmanager
def _clean_up(client: Client, plugin: str, written: Sequence[DaskArray], /) -> Iterator[None]:
    """Let nothing of a run go on after it: tasks that still write, and the limit of the BLAS."""
    try:
        yield
    except BaseException as error:
        # Tasks that run are waited for, as on threads, but not by who interrupts, nor where nobody answers.
        waits = isinstance(error, Exception) and client.status == "running"
        tokens = [x.name.rpartition("-")[2] for x in written]
        if not _ends(partial(_finish, client, plugin, tokens), None if waits else _PATIENCE_SECONDS):
            error.add_note(
                f"compute: the cluster did not answer within {_PATIENCE_SECONDS:g} s; its tasks may go on and write, "
                "and the BLAS of its workers may stay limited to one thread until they are restarted"
            )
        raise
    _ends(partial(_finish, client, plugin, ()), _PATIENCE_SECONDS)


def _ends(function: Callable[[], None], seconds: float | None, /) -> bool:
    """Call a function in a thread; return whether it ended in time, as one that asks a frozen process does not."""
    thread = Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _finish(client: Client, plugin: str, tokens: Sequence[str], /) -> None:
    """Wait for tasks that the cluster has let go of, but that go on, and lift the limit of the BLAS."""
    # What is gone has no tasks and no limit.
    with suppress(Exception):
        while tokens and (client.run_on_scheduler(_scheduled, tokens) or any(ask(client, _held, tokens).values())):
            sleep(POLL_SECONDS)
    with suppress(Exception):
        client.unregister_worker_plugin(plugin)


def _scheduled(tokens: Sequence[str], dask_scheduler: Scheduler) -> bool:
    """Whether the scheduler knows a task of these."""
    return any(token in str(key) for key in dask_scheduler.tasks for token in tokens)


def _held(tokens: Sequence[str], dask_worker: Worker) -> bool:
    """Whether a worker knows a task of these."""
    return any(token in str(key) for key in dask_worker.state.tasks for token in tokens)
