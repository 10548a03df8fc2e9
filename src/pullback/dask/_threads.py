"""Runs of `pullback.dask` in this process: one BLAS thread to a task, and threads that end with the run."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

import dask
import numpy as np
from dask import config
from dask.local import get_sync
from dask.system import CPU_COUNT
from dask.threaded import get as get_threaded
from threadpoolctl import threadpool_limits

from pullback._core.typing import DaskArray
from pullback.dask._compat import release_blas_control
from pullback.dask._plan import REUSED_BYTES
from pullback.dask._progress import Local, Show


class _Limit:
    """A limit of one BLAS thread for the process, which runs and workers share, and which the last one lifts."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._stack = ExitStack()

    def acquire(self) -> None:
        """Limit the BLAS, if nobody has."""
        with self._lock:
            if self._users == 0:
                # One thread sets the limit and lifts it: threadpoolctl ignores others meanwhile, and the first user may
                # go on after its run, or end before the last one.
                keeper = self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="pullback-blas"))
                keeper.submit(release_blas_control).result()
                limits = keeper.submit(threadpool_limits, 1, user_api="blas").result()
                keeper.submit(limits.__enter__).result()
                self._stack.callback(lambda: keeper.submit(limits.__exit__, None, None, None).result())
            self._users += 1

    def release(self) -> None:
        """Restore what the first user found, after the last one."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stack.close()


BLAS_LIMIT = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit the BLAS of this process to one thread."""
    BLAS_LIMIT.acquire()
    try:
        yield
    finally:
        BLAS_LIMIT.release()


def probe(get: Callable[..., Any], /) -> Callable[..., dict[str, Any]] | None:
    """Return a function that calls another one where a scheduler runs its tasks; None where that is this process."""
    if get in {get_threaded, get_sync}:
        return None

    def call(function: Callable[..., Any], *args: object) -> dict[str, Any]:
        task = dask.delayed(function, pure=False, traverse=False)(*args)
        return {"a process": task.compute(scheduler=get)}

    return call


def run(get: Callable[..., Any], wanted: Sequence[DaskArray], /, *, show: Show) -> tuple[Any, ...]:
    """Compute lazy arrays with a scheduler that is no cluster's."""
    # glibc maps memory for large arrays until one of their size is freed, as is this one, which is never touched. Then
    # a thread's heap holds up to twice its size that was freed.
    np.empty(REUSED_BYTES, np.uint8)
    with one_blas_thread(), _pool(get) as pool, Local(show):
        out: tuple[Any, ...] = dask.compute(*wanted, **pool)
    return out


@contextmanager
def _pool(get: Callable[..., Any], /) -> Iterator[dict[str, Executor]]:
    """Run on threads that have ended afterwards: when a task fails, others would write into what is then removed."""
    if get is not get_threaded or config.get("pool", None) is not None:
        yield {}
        return
    with ThreadPoolExecutor(config.get("num_workers", None) or CPU_COUNT) as pool:
        yield {"pool": pool}
