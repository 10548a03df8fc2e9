"""How `pullback gradient` carries out a plan: compute, write, and give the output its name."""

import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import nan
from typing import Any, NamedTuple

import dask
import numpy as np
import zarr

import pullback
from pullback._cli.gradient.atomic import output
from pullback._cli.gradient.plan import Job
from pullback._cli.signals import Signals
from pullback._core.typing import Array
from pullback.dask import compute


class Done(NamedTuple):
    """The report of a run."""

    names: str
    """The arrays that it wrote."""
    text: str
    """The loss, if there is one, the rows and the time."""
    notes: tuple[str, ...]
    """Warnings; an empty one is none."""


def compute_gradients(job: Job, signals: Signals, /, *, progress: bool) -> Done:
    """Compute the gradients and write them.

    A signal interrupts the computation only: Zarr writes metadata in threads of its own, which would go on.
    """
    start = time.perf_counter()
    with signals.held(), draft_of(job) as draft:
        store = []
        if job.lazy.dz is not None:
            z = job.files["z"]
            chunks = tuple(max(size, 1) for size in (min(job.block_rows, z.shape[0]), *z.shape[1:]))
            store = [(job.lazy.dz, draft.group.create_array("dz", shape=z.shape, dtype=z.dtype, chunks=chunks))]
        sums = {name: x for name, x in job.outputs.items() if name != "dz"}
        with signals.allowed():
            computed = compute(*sums.values(), store=store, progress=progress)
        arrays = dict(zip(sums, computed, strict=True))
        if "loss" in arrays and job.options.is_mean and not job.examples:
            arrays["loss"] = np.asarray(nan)
        finish(job, draft, arrays)
    loss = f"loss {arrays['loss']:.6g}, " if "loss" in arrays else ""
    rows, seconds = job.files["z"].shape[0], time.perf_counter() - start
    rate = f"{rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s"
    return Done(", ".join(job.outputs), f"{loss}{rate}", (draft.left,))


class Draft:
    """The group that becomes the output."""

    def __init__(self, group: zarr.Group) -> None:
        self.group = group
        self.left = ""
        """A line about what could not be removed once the group has its name."""


@contextmanager
def draft_of(job: Job, /) -> Iterator[Draft]:
    """Yield a group that becomes the output when all went well, in place of an earlier one."""
    # With all chunks stored, a reader can tell the output from half a copy.
    every_chunk = zarr.config.set({"array.write_empty_chunks": True})
    with every_chunk:
        with output(job.options.output, job.options.made_by, overwrite=job.options.overwrite) as made:
            draft = Draft(zarr.create_group(made.folder))
            yield draft
        draft.left = made.left and (
            f"{job.options.output} is the new output, and a part of the earlier one is still there: {made.left}"
        )


def finish(job: Job, draft: Draft, arrays: dict[str, Array], /, *, versions: Iterable[Any] = (), **more: Any) -> None:  # noqa: ANN401
    """Write arrays, and what the output was made of and by; check that no input has changed."""
    for name, x in arrays.items():
        draft.group.create_array(name, data=x, chunks=tuple(max(size, 1) for size in x.shape))
    draft.group.update_attributes({**_attributes(job, versions), **more})
    for file in job.files.values():
        file.check_unchanged()


def _attributes(job: Job, versions: Iterable[Any], /) -> dict[str, Any]:
    """Say what the output was made of and by."""
    return {
        "made_by": job.options.made_by,
        "command": shlex.join(["pullback", *sys.argv[1:]]),
        "versions": {module.__name__: module.__version__ for module in (pullback, np, dask, zarr, *versions)},
        "inputs": {
            name: {"path": str(file.path), "shape": list(file.shape), "dtype": str(file.dtype)}
            for name, file in job.files.items()
        },
    }
