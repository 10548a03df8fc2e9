"""The `pullback` command: reads arguments, calls the other rooms, prints.

Typer and rich come with an extra. They are imported when the command runs, so that it can say how to get them.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import pullback
from pullback import _backends, _demo
from pullback._backends import Backend, State

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from typer import Typer

_REFERENCE = "numpy"


def main() -> None:
    """Run the command."""
    try:
        run = application()
    except ModuleNotFoundError as error:
        _exit(f'pullback: {error.name} is not installed; get it with: pip install "pullback[cli]"')
    run()


def application() -> "Typer":
    """Build the command line; raises ModuleNotFoundError without the extra `cli`."""
    import typer  # noqa: PLC0415 - an extra
    from rich.console import Console  # noqa: PLC0415 - an extra

    out, err = Console(highlight=False), Console(highlight=False, stderr=True)
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(*, version: bool) -> None:
        if version:
            typer.echo(f"pullback {pullback.__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        *,
        _version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        """Gradients of affine maps, the same on every array library.

        Start with `pullback demo`: it trains a classifier of real images on each library that works here.
        """

    @app.command()
    def demo(
        backend: Annotated[
            list[str] | None,
            typer.Option(
                "--backend",
                "-b",
                metavar="NAME",
                help="A library to run on, after NumPy; may be given more than once. Without it: all that work here. "
                "`pullback backends` lists the names.",
            ),
        ] = None,
    ) -> None:
        """Train a classifier of handwritten digits on each array library, and compare.

        A softmax classifier learns scikit-learn's 1,797 images by gradient descent in float32. Every library runs the
        same code: affine_forward, softmax_cross_entropy, affine_backward and plain array code. Dask holds the images
        in chunks and computes each step lazily.

        The table shows the final loss, the share of the test images that are classified right, and the largest
        difference of a weight from NumPy's, as a part of the largest weight.

        Exits with 1 if the weights differ by more than rounding explains, or fewer than 94 % of the test images are
        right; with 2 if there is something to install or to correct first.

        Example: `pullback demo --backend dask --backend torch`
        """
        _run_demo(out, err, backend or [])

    @app.command()
    def backends() -> None:
        """List the array libraries, and which of them work here.

        One works if it can make an array on this machine and multiply with it. Under the table stands what keeps the
        others from it: the command that installs the library, or what it said.

        Example: `pullback backends`
        """
        _list_backends(out, err)

    return app


def _list_backends(out: "Console", err: "Console", /) -> None:
    """Print a row for each backend, then what keeps some from working."""
    known = _backends.known()
    states = _look(err, known.values())
    table = _table("backend", "import", "version", "usable", "devices")
    for name, state in states.items():
        usable = "no" if state.problem else "yes"
        table.add_row(name, known[name].module, state.version, usable, ", ".join(state.devices))
    out.print(table)
    for line in _problems(states):
        _say(out, line)


def _run_demo(out: "Console", err: "Console", asked: list[str], /) -> None:
    """Train on each backend, print how it did, and exit with a fault if one did badly."""
    known = _backends.known()
    for name in asked:
        if name not in known:
            _exit(f"pullback demo: {name} is none of the backends, which are {', '.join(known)}")
    try:
        digits = _demo.read_digits()
    except ModuleNotFoundError as error:
        _exit(f'pullback demo: {error.name} is not installed; get it with: pip install "pullback[demo]"')
    # NumPy goes first: the others are compared with it.
    states = _look(err, [known[name] for name in dict.fromkeys([_REFERENCE, *(asked or known)])])
    problems = _problems(states)
    if asked and problems:
        _exit(*(f"pullback demo: {line}" for line in problems))
    usable = {name: state for name, state in states.items() if not state.problem}
    results = _train(err, usable, digits)
    train, test = len(digits.train_labels), len(digits.test_labels)
    _say(out, f"{_demo.STEPS} steps on {train:,} images of digits in float32, then a test on {test} others:")
    faults = _compare(out, usable, results)
    for line in problems:
        _say(out, f"Left out: {line}")
    if faults:
        _exit(*faults, status=1)
    if len(results) > 1:
        _say(out, f"All agree: rounding alone explains a difference of up to {_demo.TOLERANCE:.1e}.")


def _train(err: "Console", states: Mapping[str, State], digits: _demo.Digits, /) -> dict[str, _demo.Result]:
    """Train on each backend, under a progress bar where somebody sees it."""
    from rich.progress import Progress  # noqa: PLC0415 - an extra

    results = {}
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        for name, state in states.items():
            steps = progress.track(range(_demo.STEPS), description=name)
            results[name] = _demo.run(state.namespace, digits, steps)
    return results


def _compare(out: "Console", states: Mapping[str, State], results: Mapping[str, _demo.Result], /) -> list[str]:
    """Print a row for each result, and return a line for each fault."""
    table = _table("backend", "version", "device", numbers=("loss", "accuracy", "difference", "seconds"))
    faults = []
    for name, result in results.items():
        state = states[name]
        apart = _demo.difference(state.namespace, result.weights, results[_REFERENCE].weights)
        numbers = f"{result.loss:.6f}", f"{result.accuracy:.4f}", f"{apart:.1e}", f"{result.seconds:.2f}"
        table.add_row(name, state.version, result.device, *numbers)
        faults += [f"pullback demo: {name} {fault}" for fault in _demo.faults(result, apart)]
    out.print(table)
    return faults


def _look(err: "Console", backends: Iterable[Backend], /) -> dict[str, State]:
    """Try each backend, and show which: importing some takes seconds."""
    states = {}
    with err.status("") as status:
        for backend in backends:
            status.update(f"Importing {backend.module}")
            states[backend.name] = _backends.look(backend)
    return states


def _problems(states: Mapping[str, State], /) -> list[str]:
    """Return a line for each backend that does not work."""
    return [f"{name} is {state.problem}" for name, state in states.items() if state.problem]


def _table(*headers: str, numbers: tuple[str, ...] = ()) -> "Table":
    """Return an empty table, narrow enough for 80 columns; a cell that is too long goes on below."""
    from rich import box  # noqa: PLC0415 - an extra
    from rich.table import Table  # noqa: PLC0415 - an extra

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for header in headers:
        table.add_column(header, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _say(out: "Console", line: str, /) -> None:
    """Print a line whole at any width, its brackets as they are."""
    out.print(line, soft_wrap=True, markup=False)


def _exit(*lines: str, status: int = 2) -> NoReturn:
    """Print to stderr and exit."""
    sys.stderr.writelines(f"{line}\n" for line in lines)
    raise SystemExit(status)
