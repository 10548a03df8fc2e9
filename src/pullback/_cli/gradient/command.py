"""Run `pullback gradient` and `pullback fit`, from the options to the message at the end."""

import errno
from functools import partial
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes

from pullback._cli import console
from pullback._cli.console import CommandError
from pullback._cli.gradient import plan as planning
from pullback._cli.gradient.files import check_local
from pullback._cli.gradient.plan import Job, Options
from pullback._cli.gradient.run import Done, compute_gradients
from pullback._cli.gradient.team import team
from pullback._cli.signals import Interrupted, Signals
from pullback.dask._atomic import recover

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def run(out: "Console", err: "Console", signals: Signals, /, *, plan: bool, progress: bool, **options: Any) -> None:  # noqa: ANN401
    """Plan the gradients; then show the plan, or carry it out and say what was written."""
    asked = Options(**options)

    def note(line: str) -> None:
        if line:
            console.say(err, f"{asked.made_by}: {line}")

    carry_out = _carrier(asked, note)
    job, done = None, Done("", "", ())
    try:
        check_local(asked.output)
        if not plan:
            note(recover(asked.output))
        with team(asked.workers, asked.scheduler, note=note) as workers:
            job = planning.plan(asked, workers)
            for gap in job.gaps:
                note(gap)
            if not plan:
                done = carry_out(job, signals, progress=progress and err.is_terminal)
    except ModuleNotFoundError:
        raise
    except (Exception, Interrupted) as error:
        raise _explained(error, job) from error
    if plan:
        _show_plan(out, job)
    else:
        _tell(out, note, asked, done)


def _carrier(asked: Options, note: "Callable[[str], None]", /) -> "Callable[..., Done]":
    """Return the function that carries a plan out."""
    if not asked.is_fit:
        return compute_gradients
    from pullback._cli.gradient.fit import fit  # noqa: PLC0415 - an extra

    return partial(fit, note=note)


def _tell(out: "Console", note: "Callable[[str], None]", asked: Options, done: Done, /) -> None:
    """Say what was written."""
    for line in done.notes:
        note(line)
    try:
        console.say(out, f"{asked.output} now holds {done.names}: {done.text}")
    except OSError as error:
        # The output is what was asked for, and it is there.
        note(f"{asked.output} now holds {done.names}; {error.strerror}")


def _explained(error: BaseException, job: Job | None, /) -> CommandError:
    """Return the error to report: what went wrong, what is at the output's path, and what to do."""
    text = error.text if isinstance(error, CommandError) else console.in_one_line(error)
    advice = error.advice if isinstance(error, CommandError) else ""
    status = 2 if job is None else 1
    if isinstance(error, Interrupted):
        text, status = "interrupted", error.status
    if isinstance(error, CommandError | Interrupted):
        text = "; ".join([text, *getattr(error, "__notes__", ())])
    if job is None:
        return CommandError(text, advice=advice, status=status)
    output = job.options.output
    fate = "is as it was" if output.exists() else "was not written"
    if not isinstance(error, Interrupted):
        advice = f"{advice or _advice(error, job)}, and "
    again = "run the command again" + ", which goes on where this run ended" * job.options.is_fit
    return CommandError(f"{text.removesuffix('.')}. {output} {fate}: {advice}{again}", status=status)


def _advice(error: BaseException, job: Job, /) -> str:
    """Say what to do against an error."""
    if isinstance(error, OSError) and error.errno in _FULL:
        size = format_bytes(sum(x.nbytes for x in job.outputs.values()))
        return f"free up to {size} in {job.options.output.absolute().parent}"
    if type(error).__name__ == "KilledWorker":
        return "give a smaller --memory, which makes smaller blocks, if workers ran out of it"
    if isinstance(error, ValueError) and job.options.scheduler:
        return "set the rows of a block with --block-rows"
    return "put that right"


def _show_plan(out: "Console", job: Job, /) -> None:
    """Print what a run reads, writes, computes and takes."""
    table = console.table("", numbers=("plan",))
    rows = {
        "blocks": f"{len(job.plan.blocks):,}",
        "rows a block": f"{max(job.plan.chunks):,}",
        "tasks": f"{job.tasks:,}",
        "read in a pass" if job.options.is_fit else "read": format_bytes(
            sum(file.nbytes for file in job.files.values())
        ),
        "written": format_bytes(sum(x.nbytes for x in job.outputs.values())),
        "operations": f"{job.operations:,}",
        "memory": f"{format_bytes(job.memory)} of {format_bytes(job.limit)}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.show(out, table)
