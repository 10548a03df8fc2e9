"""What the commands of `pullback` do: they call the other rooms, print, and exit."""

import errno
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pullback._cli import backends, check, console, demo
from pullback._cli.backends import Backend, State
from pullback._ops import PAIRS

if TYPE_CHECKING:
    from rich.console import Console

    from pullback._cli.gradient.plan import Job

_REFERENCE = "numpy"
# The laws that compare numbers, and what a column of the table has room for.
_LAWS = {"adjoint identity": "adjoint", "central difference": "difference", "double backward": "double"}
_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def list_backends(out: "Console", err: "Console", /) -> None:
    """Print a row for each backend, then what keeps some from working."""
    known = backends.known()
    states = _look(err, known.values())
    table = console.table("backend", "import", "version", "usable", "devices")
    for name, state in states.items():
        usable = "no" if state.problem else "yes"
        table.add_row(name, known[name].module, state.version, usable, ", ".join(state.devices))
    out.print(table)
    for line in _problems(states):
        console.say(out, line)


def run_demo(out: "Console", err: "Console", asked: list[str], /) -> None:
    """Train on each backend, print how it did, and exit with a fault if one did badly."""
    known = _known("demo", asked)
    try:
        digits = demo.read_digits()
    except ModuleNotFoundError as error:
        console.fail(f'pullback demo: {error.name} is not installed; get it with: pip install "pullback[demo]"')
    # NumPy goes first: the others are compared with it.
    states = _look(err, [known[name] for name in dict.fromkeys([_REFERENCE, *(asked or known)])])
    problems = _problems(states)
    if asked and problems:
        console.fail(*(f"pullback demo: {line}" for line in problems))
    usable = {name: state for name, state in states.items() if not state.problem}
    results = _train(err, usable, digits)
    train, test = len(digits.train_labels), len(digits.test_labels)
    console.say(out, f"{demo.STEPS} steps on {train:,} images of digits in float32, then a test on {test} others:")
    faults = _compare(out, usable, results)
    for line in problems:
        console.say(out, f"Left out: {line}")
    if faults:
        console.fail(*faults, status=1)
    if len(results) > 1:
        console.say(out, f"All agree: rounding alone explains a difference of up to {demo.TOLERANCE:.1e}.")


def _train(err: "Console", states: Mapping[str, State], digits: demo.Digits, /) -> dict[str, demo.Result]:
    """Train on each backend, under a progress bar where somebody sees it."""
    from rich.progress import Progress  # noqa: PLC0415 - an extra

    results = {}
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        for name, state in states.items():
            steps = progress.track(range(demo.STEPS), description=name)
            results[name] = demo.run(state.namespace, digits, steps)
    return results


def _compare(out: "Console", states: Mapping[str, State], results: Mapping[str, demo.Result], /) -> list[str]:
    """Print a row for each result, and return a line for each fault."""
    table = console.table("backend", "version", "device", numbers=("loss", "accuracy", "difference", "seconds"))
    faults = []
    for name, result in results.items():
        state = states[name]
        apart = demo.difference(state.namespace, result.weights, results[_REFERENCE].weights)
        numbers = f"{result.loss:.6f}", f"{result.accuracy:.4f}", f"{apart:.1e}", f"{result.seconds:.2f}"
        table.add_row(name, state.version, result.device, *numbers)
        faults += [f"pullback demo: {name} {fault}" for fault in demo.faults(result, apart)]
    out.print(table)
    return faults


def run_check(out: "Console", err: "Console", asked: list[str], /) -> None:
    """Check each pair on each backend, print how near the tolerances it came, and exit with a fault if a law breaks."""
    known = _known("check", asked)
    states = _look(err, [known[name] for name in dict.fromkeys(asked or known)])
    problems = _problems(states)
    usable = {name: state for name, state in states.items() if not state.problem}
    if problems and (asked or not usable):
        console.fail(*(f"pullback check: {line}" for line in problems))
    checked = _check(err, usable)
    console.say(out, "The largest error that each law found, as a part of its tolerance:")
    table = console.table("backend", "pair", numbers=(*_LAWS.values(), "findings", "hold"))
    for (name, pair), found in checked.items():
        parts = [found.part(law) for law in _LAWS]
        table.add_row(name, pair, *parts, f"{len(found.findings)}", "no" if found.faults else "yes")
    out.print(table)
    for line in problems:
        console.say(out, f"Left out: {line}")
    faults = [f"pullback check: {name}: {fault}" for (name, _), found in checked.items() for fault in found.faults]
    if faults:
        console.fail(*faults, status=1)
    console.say(out, f"All {sum(len(found.findings) for found in checked.values()):,} findings hold.")


def _check(err: "Console", states: Mapping[str, State], /) -> dict[tuple[str, str], check.Checked]:
    """Check each pair on each backend, under a progress bar where somebody sees it."""
    from rich.progress import Progress  # noqa: PLC0415 - an extra

    checked = {}
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        for name, state in states.items():
            for pair in progress.track(PAIRS, description=name):
                checked[name, pair.name] = check.run(pair, state.namespace)
    return checked


def run_gradient(out: "Console", err: "Console", /, *, plan: bool, progress: bool, **options: Any) -> None:  # noqa: ANN401
    """Plan the gradients of a batch in files; then show the plan, or carry it out and say what was written."""
    output, job = options["output"], None
    try:
        from pullback._cli.gradient import plan as gradient  # noqa: PLC0415 - an extra

        job = gradient.plan(gradient.Options(**options))
        for gap in job.gaps:
            console.say(err, f"pullback gradient: {gap}")
        if plan:
            _show_plan(out, job)
            return
        seconds = gradient.run(job, progress=progress and err.is_terminal)
    except ModuleNotFoundError as error:
        console.fail(f"pullback gradient: {_missing_module(error)}")
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whoever runs a command is told, not shown the program
        if job is None:
            status = error.status if isinstance(error, console.CommandError) else 2
            line = console.in_one_line(error)
        else:
            status = 1
            left = "is as it was" if output.exists() else "was not written"
            line = f"{_text(error).removesuffix('.')}. {output} {left}: {_advice(error, job)}run the command again"
        console.fail(f"pullback gradient: {line}", status=130 if isinstance(error, KeyboardInterrupt) else status)
    rows, names = job.files["z"].shape[0], ", ".join(job.outputs)
    console.say(out, f"{output} now holds {names}: {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")


def _missing_module(error: ModuleNotFoundError, /) -> str:
    """Say what to install for a module, and where: what is here may be missing on a cluster."""
    name = str(error.name).partition(".")[0]
    if name in sys.modules:
        return f"the scheduler or a worker of the cluster has no module {error.name}; install {name} there"
    extra = "cluster" if name == "distributed" else "dask"
    return f'{name} is not installed; get it with: pip install "pullback[cli,{extra}]"'


def _text(error: BaseException, /) -> str:
    """Say what went wrong, without the advice."""
    return error.text if isinstance(error, console.CommandError) else console.in_one_line(error)


def _advice(error: BaseException, job: "Job", /) -> str:
    """Say what to do against an error, as the beginning of a sentence, before the job is run again."""
    if isinstance(error, KeyboardInterrupt):
        return ""
    if isinstance(error, console.CommandError):
        return f"{error.advice}, and "
    from dask.utils import format_bytes  # noqa: PLC0415 - an extra

    if isinstance(error, OSError) and error.errno in _FULL:
        size = format_bytes(sum(x.nbytes for x in job.outputs.values()))
        return f"make room for up to {size} in {job.options.output.absolute().parent}, and "
    if type(error).__name__ == "KilledWorker":
        return "give a smaller --memory, which makes smaller blocks, if workers ran out of it, and "
    if isinstance(error, ValueError) and job.options.scheduler:
        return "set the rows of a block with --block-rows, and "
    return "put that right, and "


def _show_plan(out: "Console", job: "Job", /) -> None:
    """Print what a run would come to."""
    from dask.utils import format_bytes  # noqa: PLC0415 - an extra

    table = console.table("", numbers=("plan",))
    written = sum(x.nbytes for x in job.outputs.values())
    rows = {
        "blocks": f"{len(job.plan.blocks):,}",
        "rows a block": f"{max(job.plan.chunks):,}",
        "tasks": f"{job.tasks:,}",
        "read": format_bytes(sum(file.nbytes for file in job.files.values())),
        "written": format_bytes(written),
        "operations": f"{job.operations:,}",
        "memory": f"{format_bytes(job.memory)} of {format_bytes(job.limit)}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)


def _known(command: str, asked: list[str], /) -> dict[str, Backend]:
    """Return every backend by name; exit if one that was asked for is none of them."""
    known = backends.known()
    for name in asked:
        if name not in known:
            console.fail(f"pullback {command}: {name} is none of the backends, which are {', '.join(known)}")
    return known


def _look(err: "Console", wanted: Iterable[Backend], /) -> dict[str, State]:
    """Try each backend, and show which: importing some takes seconds."""
    states = {}
    with err.status("") as status:
        for backend in wanted:
            status.update(f"Importing {backend.module}")
            states[backend.name] = backends.look(backend)
    return states


def _problems(states: Mapping[str, State], /) -> list[str]:
    """Return a line for each backend that does not work."""
    return [f"{name} is {state.problem}" for name, state in states.items() if state.problem]
