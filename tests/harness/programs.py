"""Runs a file as a program whose warnings are errors, without the time that its imports take."""

import multiprocessing
import os
import runpy
import sys
import warnings
from pathlib import Path

# What programs import is imported once, in the process from which theirs are forked.
_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(["dask.array", "distributed", "pullback.dask", "scipy.optimize", "zarr", __name__])
_SPAWN = multiprocessing.get_context("spawn")


def run(program: Path) -> str:
    """Run a program in a process of its own, and return what it prints; a program that fails is an error."""
    printed, errors = program.with_suffix(".out"), program.with_suffix(".err")
    # SciPy reads this variable when it is imported.
    context = _SPAWN if "SCIPY_ARRAY_API" in program.read_text() else _FORK
    process = context.Process(target=_execute, args=(program, printed, errors))
    process.start()
    process.join()
    assert process.exitcode == 0, errors.read_text()
    return printed.read_text()


def _execute(program: Path, printed: Path, errors: Path) -> None:
    for number, path in ((1, printed), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    # As -W error, which the processes of a cluster inherit.
    sys.warnoptions.append("error")
    warnings.simplefilter("error")
    runpy.run_path(str(program), run_name="__main__")
