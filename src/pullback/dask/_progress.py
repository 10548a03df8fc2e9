"""The progress of a run of `pullback.dask`: a bar, and what a local scheduler says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isnan
from typing import Any

from dask.callbacks import Callback

from pullback.dask._graph import Blocks

Show = Callable[[float], None]
"""Takes the part of the work that is done."""


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
            # Since the start: two tasks that end at nearly the same time would give any speed.
            seconds = bar.tasks[task].elapsed
            rate = f"{part * rows / seconds:,.0f} rows/s" if seconds and not isnan(rows) else ""
            bar.update(task, completed=part, rate=rate)

        yield show
        show(1.0)
