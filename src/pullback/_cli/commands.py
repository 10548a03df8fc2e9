"""The commands of `pullback`: each calls the library, prints a table or a line, and exits with a status."""

import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pullback._cli import backends, check, console, demo
from pullback._cli.backends import Backend, State
from pullback._cli.signals import Interrupted, Signals
from pullback._core.extras import not_installed
from pullback._ops import PAIRS

if TYPE_CHECKING:
    from rich.console import Console

_REFERENCE = "numpy"
_DASK = "Dask takes milliseconds for each step, to start its tasks; in return a batch may exceed the memory."
_NEXT = "Read next: docs/guides/own-functions.md on gradients of your functions, and large-batches.md on Dask."
# The laws that compare numbers, and the headings of their columns.
_LAWS = {"adjoint identity": "adjoint", "central difference": "central", "double backward": "double"}


def list_backends(out: "Console", err: "Console", /) -> None:
    """Print a row for each backend, then the reason why some do not work."""
    known = backends.known()
    states = _look(err, known.values())
    table = console.table("backend", "import", "version", "usable", "devices")
    for name, state in states.items():
        usable = "no" if state.problem else "yes"
        table.add_row(name, known[name].module, state.version, usable, ", ".join(state.devices))
    console.show(out, table)
    for line in _problems(states):
        console.say(out, line)


def run_demo(out: "Console", err: "Console", asked: list[str], /) -> None:
    """Train on each backend, print how it did, and exit with a fault if one did badly."""
    known = _known("demo", asked)
    try:
        digits = demo.read_digits()
    except ModuleNotFoundError as error:
        console.fail(f"pullback demo: {not_installed(error.name, 'demo')}")
    # NumPy goes first: the others are compared with it.
    states = _look(err, [known[name] for name in dict.fromkeys([_REFERENCE, *(asked or _unasked(known))])])
    if "dask" in states and not states["dask"].problem:
        states["dask"] = _with_blocks(states["dask"])
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
    if "dask" in results:
        console.say(out, _DASK)
    console.say(out, _NEXT)


def _with_blocks(state: State, /) -> State:
    """Return the state of Dask, with a problem if what runs block by block is not installed."""
    try:
        import_module("pullback.dask")
        import_module("zarr")
    except ModuleNotFoundError as error:
        return State(state.version, problem=f"not usable: {not_installed(error.name, 'dask')}")
    return state


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
        numbers = f"{result.loss:.4f}", f"{result.accuracy:.4f}", f"{apart:.1e}", f"{result.seconds:.2f}"
        table.add_row(name, state.version, result.device, *numbers)
        faults += [f"pullback demo: {name} {fault}" for fault in demo.faults(result, apart)]
    console.show(out, table)
    return faults


def run_check(out: "Console", err: "Console", asked: list[str], /) -> None:
    """Check each pair on each backend, print how near the tolerances it came, and exit with a fault if a law breaks."""
    known = _known("check", asked)
    states = _look(err, [known[name] for name in dict.fromkeys(asked or _unasked(known))])
    problems = _problems(states)
    usable = {name: state for name, state in states.items() if not state.problem}
    if problems and (asked or not usable):
        console.fail(*(f"pullback check: {line}" for line in problems))
    checked = _check(err, usable)
    console.say(out, "The largest error that each law found, as a part of its tolerance:")
    table = console.table("backend", "pair", numbers=(*_LAWS.values(), "findings", "ok"))
    for (name, pair), found in checked.items():
        parts = [found.part(law) for law in _LAWS]
        table.add_row(name, pair, *parts, f"{len(found.findings)}", "no" if found.faults else "yes")
    console.show(out, table)
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


def run_gradient(out: "Console", err: "Console", /, *, name: str = "gradient", **options: Any) -> None:  # noqa: ANN401
    """Compute the gradients of a batch in files, or fit; or show the plan; exit with one line if that fails."""
    try:
        with Signals() as signals:
            from pullback._cli.gradient import command  # noqa: PLC0415 - an extra

            command.run(out, err, signals, **options)
    except Interrupted as error:
        console.fail(f"pullback {name}: interrupted", status=error.status)
    except ModuleNotFoundError as error:
        console.fail(f"pullback {name}: {_missing_module(error)}")
    except console.CommandError as error:
        console.fail(f"pullback {name}: {error}", status=error.status)


def _missing_module(error: ModuleNotFoundError, /) -> str:
    """Say what to install for a module, and where: what is here may be missing on a cluster."""
    # An error that comes from another process has lost the name.
    name = (error.name or "").partition(".")[0]
    if not name or name in sys.modules:
        return f"the cluster lacks a module: {error}"
    return not_installed(name, {"distributed": "cluster", "scipy": "fit"}.get(name, "dask"))


def _known(command: str, asked: list[str], /) -> dict[str, Backend]:
    """Return every backend by name; exit if one that was asked for is none of them."""
    known = backends.known()
    for name in asked:
        if name not in known:
            console.fail(f"pullback {command}: {name} is none of the backends, which are {', '.join(known)}")
    return known


def _unasked(known: Mapping[str, Backend], /) -> list[str]:
    """Return the names of the backends that a command runs on by itself: those that support every pair quickly."""
    return [name for name, backend in known.items() if backend.unasked]


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
