"""The progress of a run of `pullback.dask`: how it is learnt, and a bar that shows it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from threading import Event, Thread
from typing import Any

from dask.callbacks import Callback

from pullback._core.typing import Client, Scheduler
from pullback.dask._graph import Blocks

Show = Callable[[float], None]
"""Is told what part of the work is done."""

POLL_SECONDS = 0.3
_LEFT = {"waiting", "no-worker", "queued", "processing"}


class Local(Callback):  # type: ignore[misc] # not typed here
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
def watch(client: Client, blocks: Sequence[Blocks], show: Show, /) -> Iterator[None]:
    """Ask the scheduler from time to time what part of the blocks is done."""
    names = [layer.block for layer in blocks]
    stop = Event()

    def ask() -> None:
        while not stop.wait(POLL_SECONDS):
            done, count = client.run_on_scheduler(_blocks_done, names)
            if count:
                show(done / count)

    thread = Thread(target=ask, daemon=True)
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
def bar(blocks: Sequence[Blocks], /, *, progress: bool) -> Iterator[Show]:
    """Show a bar on standard error, with the rows that are done in a second and the time that is left."""
    if not progress:
        yield _nothing
        return
    from rich.console import Console  # noqa: PLC0415 - few ask for it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    rows = sum(sum(layer.plan.chunks) for layer in blocks)
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0, rate="")

        def show(part: float) -> None:
            speed = bar.tasks[task].speed
            rate = "" if speed is None or isnan(rows) else f"{speed * rows:,.0f} rows/s"
            bar.update(task, completed=part, rate=rate)

        yield show
        show(1.0)
