"""The `pullback` command: its arguments and help.

Typer and rich come with an extra. They are imported when the command runs, so that it can say how to get them.
"""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import pullback
from pullback._cli import commands, console
from pullback._core.extras import not_installed

if TYPE_CHECKING:
    from io import TextIOWrapper

    from typer import Typer


def main() -> None:
    """Run the command; whatever stops it is reported in one line."""
    # A terminal that has ASCII only, and a path that is no valid text, are no reason to stop.
    cast("TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    try:
        _run()
    except KeyboardInterrupt:
        console.fail("pullback: interrupted", status=128 + signal.SIGINT)
    except OSError as error:
        console.discard(sys.stdout)
        console.fail(f"pullback: {error.strerror}", status=1)


def _run() -> None:
    """Run the command, and write all that it prints."""
    try:
        run = application()
    except ModuleNotFoundError as error:
        console.fail(f"pullback: {not_installed(error.name, 'cli')}")
    try:
        run()
    finally:
        sys.stdout.flush()


def application() -> "Typer":
    """Build the command line; raises ModuleNotFoundError without the extra `cli`."""
    import typer  # noqa: PLC0415 - an extra
    from rich.console import Console  # noqa: PLC0415 - an extra

    from pullback._cli import options  # noqa: PLC0415 - imports an extra

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
    def general(
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
                help="A library to run on, after NumPy; may be given more than once. Without it: those that work here "
                "and support every pair. `pullback backends` lists the names.",
            ),
        ] = None,
    ) -> None:
        """Train a classifier of handwritten digits on each array library, and compare.

        A softmax classifier learns scikit-learn's 1,797 images by gradient descent in float32. Every library runs the
        same code: loss_and_gradients and plain array code. Dask holds the images in chunks, and
        pullback.dask.accumulate runs that code on each chunk.

        The table shows the final loss, the share of the test images that are classified right, and the largest
        difference of a weight from NumPy's, as a part of the largest weight.

        Exits with 1 if the weights differ by more than rounding explains, or fewer than 94 % of the test images are
        right; with 2 if there is something to install or to correct first.

        Example: `pullback demo --backend dask --backend torch`
        """
        commands.run_demo(out, err, backend or [])

    @app.command()
    def check(
        backend: Annotated[
            list[str] | None,
            typer.Option(
                "--backend",
                "-b",
                metavar="NAME",
                help="A library to check on; may be given more than once. Without it: those that work here and "
                "support every pair. `pullback backends` lists the names.",
            ),
        ] = None,
    ) -> None:
        """Check that every gradient of this package is right on each array library, on this machine.

        Each pair of a forward and a backward is checked with small arrays, in every floating dtype of the standard that
        the library has: central differences of the forward, the adjoint identity with its tangent, the backward of its
        backward; the library, shape, dtype and device of what comes back; that nothing is written into an argument,
        and no lazy array computed. Your own pairs are checked alike by `pullback.check_pair`.

        The table shows the largest error that each law found, as a part of what rounding and the step of a difference
        explain, and the number of findings. Dask is given arrays in chunks.

        Exits with 1 if a law is broken, and names it with both numbers; with 2 if there is something to install or to
        correct first.

        Example: `pullback check --backend dask --backend torch`
        """
        commands.run_check(out, err, backend or [])

    @app.command()
    def gradient(  # noqa: PLR0913 - the options
        *,
        z: Annotated[Path, options.Z],
        weights: Annotated[Path, options.WEIGHTS],
        output: Annotated[
            Path, typer.Option(metavar="OUT", readable=False, help="The Zarr group to write loss, dz, dw and db to.")
        ],
        targets: Annotated[Path | None, options.TARGETS] = None,
        loss: Annotated[str | None, options.LOSS] = None,
        bias: Annotated[Path | None, options.BIAS] = None,
        example_weights: Annotated[Path | None, options.EXAMPLE_WEIGHTS] = None,
        reduction: Annotated[str | None, options.REDUCTION] = None,
        upstream: Annotated[
            Path | None,
            typer.Option(
                metavar="DA",
                readable=False,
                help="In place of targets and a loss: the gradient of a loss for the outputs, shape (m, ..., n).",
            ),
        ] = None,
        wrt: Annotated[
            str | None,
            typer.Option(
                metavar="NAMES",
                help="What to differentiate for: some of z, w, b.",
                show_default="w,b with --loss, z,w,b with --upstream",
            ),
        ] = None,
        memory: Annotated[str, options.MEMORY] = "1GiB",
        block_rows: Annotated[int | None, options.BLOCK_ROWS] = None,
        workers: Annotated[int | None, options.WORKERS] = None,
        scheduler: Annotated[str | None, options.SCHEDULER] = None,
        fill_missing: Annotated[bool, options.FILL_MISSING] = False,
        plan: Annotated[bool, options.PLAN] = False,
        overwrite: Annotated[bool, options.OVERWRITE] = False,
        no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no bar on a terminal.")] = False,
    ) -> None:
        """Compute a loss and its gradients for a batch on disk, larger than memory.

        The model is affine, a = z w + b. With --targets and --loss, the command computes the loss of a and its
        gradients dw and db, and dz if --wrt names z. With --upstream DA, the gradient of any loss for a, it computes
        dz = DA wᵀ, dw = zᵀ DA, and db, the sum of DA's rows.

        The inputs are `.npy` files or folders of Zarr arrays. Every part of them is read once, example weights twice
        for a mean; of Zarr arrays with unequal chunks, some parts of the smaller ones more than once.

        The bits of the result depend on the rows of a block, and those on the inputs and on --memory where it is short.

        OUT appears when all of it is written: at any moment it is the earlier output or the new one. A run that fails,
        or is ended by Ctrl-C, SIGTERM or SIGHUP, leaves nothing behind; the next run removes what a killed one left.

        Exits with 1 if the run fails, with 2 if there is something to install or to correct first, and with 128 and the
        number of the signal if it is interrupted, 130 for Ctrl-C.

        Example: `pullback gradient --z z.npy --targets y.npy --loss logistic --weights w.npy --output gradients.zarr`

        Example: `pullback gradient --z z.npy --upstream da.npy --weights w.npy --output gradients.zarr`
        """
        commands.run_gradient(
            out,
            err,
            plan=plan,
            progress=not no_progress,
            z=z,
            upstream=upstream,
            targets=targets,
            loss=loss,
            bias=bias,
            example_weights=example_weights,
            reduction=reduction,
            weights=weights,
            wrt=wrt,
            output=output,
            memory=memory,
            block_rows=block_rows,
            workers=workers,
            scheduler=scheduler,
            overwrite=overwrite,
            fill_missing=fill_missing,
        )

    @app.command()
    def fit(  # noqa: PLR0913 - the options
        *,
        z: Annotated[Path, options.Z],
        targets: Annotated[Path, options.TARGETS],
        loss: Annotated[str, options.LOSS],
        weights: Annotated[Path, options.WEIGHTS],
        output: Annotated[
            Path, typer.Option(metavar="OUT", readable=False, help="The Zarr group to write loss, w and b to.")
        ],
        bias: Annotated[Path | None, options.BIAS] = None,
        example_weights: Annotated[Path | None, options.EXAMPLE_WEIGHTS] = None,
        reduction: Annotated[str | None, options.REDUCTION] = None,
        l2: Annotated[
            float,
            typer.Option("--l2", metavar="L", min=0.0, help="Add L / 2 times the sum of the squares of w to the loss."),
        ] = 0.0,
        wrt: Annotated[
            str, typer.Option(metavar="NAMES", help="What to fit: w, b or both; the other stays at its start.")
        ] = "w,b",
        max_iterations: Annotated[
            int, typer.Option(metavar="N", min=1, help="The most iterations, of about one pass over the batch each.")
        ] = 100,
        memory: Annotated[str, options.MEMORY] = "1GiB",
        block_rows: Annotated[int | None, options.BLOCK_ROWS] = None,
        workers: Annotated[int | None, options.WORKERS] = None,
        scheduler: Annotated[str | None, options.SCHEDULER] = None,
        fill_missing: Annotated[bool, options.FILL_MISSING] = False,
        plan: Annotated[bool, options.PLAN] = False,
        overwrite: Annotated[bool, options.OVERWRITE] = False,
        no_progress: Annotated[
            bool, typer.Option("--no-progress", help="Show no line for each iteration on a terminal.")
        ] = False,
    ) -> None:
        """Fit a linear model to a batch on disk, larger than memory.

        The outputs are a = z w + b, and the fit finds the w and b for which their loss is smallest, by L-BFGS in
        float64: linear, logistic, softmax, Poisson and robust regression. It starts at --weights, which may be zeros,
        and --bias, zero without it.

        Each evaluation of the loss and its gradient is one pass over the batch, and is kept in OUT.checkpoint. A fit
        that fails, is interrupted or killed goes on from there when the command runs again, and ends with the bits of a
        fit that was not. OUT appears when the fit ends, and OUT.checkpoint goes.

        The fit ends where no partial derivative exceeds 1e-6, where an iteration lowers the loss by less than one part
        in 1e12, or after --max-iterations; it says so if it had not converged.

        The inputs and the exit status are those of `pullback gradient`.

        Example: `pullback fit --z z.npy --targets y.npy --loss logistic --weights w.npy --l2 1e-3 --output fit.zarr`
        """
        commands.run_gradient(
            out,
            err,
            name="fit",
            plan=plan,
            progress=not no_progress,
            z=z,
            targets=targets,
            loss=loss,
            weights=weights,
            output=output,
            bias=bias,
            example_weights=example_weights,
            reduction=reduction,
            l2=l2,
            wrt=wrt,
            iterations=max_iterations,
            memory=memory,
            block_rows=block_rows,
            workers=workers,
            scheduler=scheduler,
            overwrite=overwrite,
            fill_missing=fill_missing,
        )

    @app.command()
    def backends() -> None:
        """List the array libraries, and which of them work here.

        One works if it can make an array on this machine and multiply with it. Under the table stands what keeps the
        others from it: the command that installs the library, or what it said.

        Example: `pullback backends`
        """
        commands.list_backends(out, err)

    return app
