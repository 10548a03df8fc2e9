"""Who computes for `pullback gradient`: threads of this process, or the workers of a cluster."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import dask
from dask.system import CPU_COUNT

from pullback._cli.console import CommandError
from pullback._cli.gradient.heap import return_freed_memory


class Team(NamedTuple):
    """The threads that run tasks."""

    threads: int
    """The threads of all processes together."""
    each: int
    """The threads of one process, at most."""


@contextmanager
def team(workers: int | None, scheduler: str | None, /) -> Iterator[Team]:
    """Let Dask run on so many threads, or on the cluster of a scheduler, while the context lasts."""
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
    with Client(scheduler) as client:
        # An adaptive cluster starts workers for the work.
        threads = client.nthreads().values() or [1]
        try:
            yield Team(sum(threads), max(threads))
        except BaseException:
            # A frozen scheduler would keep the client for half a minute.
            client.close(timeout=1)
            raise
