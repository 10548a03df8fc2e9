"""Who computes for `pullback gradient`: threads of this process, or the workers of a cluster."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import dask
from dask.system import CPU_COUNT

from pullback._cli.console import CommandError
from pullback._cli.gradient.heap import return_freed_memory

_LEAVE_SECONDS = 1


class Team(NamedTuple):
    """The threads that run tasks."""

    threads: int
    """The threads of all processes together."""
    each: int
    """The threads of one process, at most."""


@contextmanager
def team(workers: int | None, scheduler: str | None, /, *, note: Callable[[str], None]) -> Iterator[Team]:
    """Let Dask run on this number of threads, or on the cluster of a scheduler, while the context lasts.

    If the cluster has no workers, `note` is told, and the first is waited for.
    """
    if workers and scheduler:
        msg = "--workers are threads here, and --scheduler is a cluster with workers of its own"
        raise CommandError(msg, advice="give one of them")
    if scheduler is None:
        return_freed_memory()
        count = workers or CPU_COUNT
        with dask.config.set(scheduler="threads", num_workers=count, pool=None):
            yield Team(count, count)
        return
    from distributed import Client  # noqa: PLC0415 - an extra

    # A client that is interrupted leaves tasks behind whose tracebacks would follow the command's one line.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    client = Client(scheduler)
    try:
        while not (threads := client.nthreads().values()):
            note(f"the cluster at {scheduler} has no workers, and this waits for one; start one, or interrupt")
            # A cluster that adapts starts a worker for a task that waits.
            client.submit(int, pure=False).result()
        yield Team(sum(threads), max(threads))
    finally:
        # A scheduler that does not answer any more need not take leave.
        with suppress(TimeoutError):
            client.close(timeout=_LEAVE_SECONDS)
