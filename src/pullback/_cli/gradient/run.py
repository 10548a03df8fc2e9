"""How `pullback gradient` carries out a plan: compute, write, and give the output its name."""

import shlex
import sys
import time
from math import nan
from typing import Any, NamedTuple

import dask
import numpy as np
import zarr

import pullback
from pullback._cli.gradient.atomic import MADE_BY, output
from pullback._cli.gradient.plan import Job
from pullback._cli.signals import Signals
from pullback.dask import compute


class Done(NamedTuple):
    """What is to be said of a run at its end."""

    seconds: float
    loss: float | None
    """The loss, where that was computed."""
    left: str
    """A line about what could not be removed."""


def compute_gradients(job: Job, signals: Signals, /, *, progress: bool) -> Done:
    """Compute the gradients and write them.

    A signal interrupts the computation only: Zarr writes metadata in threads of its own, which would go on.
    """
    start = time.perf_counter()
    # With all chunks stored, whoever reads the output can tell it from half a copy.
    every_chunk = zarr.config.set({"array.write_empty_chunks": True})
    with every_chunk, signals.held(), output(job.options.output, overwrite=job.options.overwrite) as draft:
        group = zarr.create_group(draft.folder, attributes=_attributes(job))
        store = []
        if job.lazy.dz is not None:
            z = job.files["z"]
            chunks = tuple(max(size, 1) for size in (min(job.block_rows, z.shape[0]), *z.shape[1:]))
            store = [(job.lazy.dz, group.create_array("dz", shape=z.shape, dtype=z.dtype, chunks=chunks))]
        sums = {name: x for name, x in job.outputs.items() if name != "dz"}
        with signals.allowed():
            computed = compute(*sums.values(), store=store, progress=progress)
        arrays = dict(zip(sums, computed, strict=True))
        if "loss" in arrays and job.options.is_mean and not job.examples:
            arrays["loss"] = np.asarray(nan)
        for name, x in arrays.items():
            group.create_array(name, data=x, chunks=tuple(max(size, 1) for size in x.shape))
        for file in job.files.values():
            file.check_unchanged()
    loss = float(arrays["loss"]) if "loss" in arrays else None
    return Done(time.perf_counter() - start, loss, draft.left)


def _attributes(job: Job, /) -> dict[str, Any]:
    """Say what the output was made of and by."""
    return {
        "made_by": MADE_BY,
        "command": shlex.join(["pullback", *sys.argv[1:]]),
        "versions": {module.__name__: module.__version__ for module in (pullback, np, dask, zarr)},
        "inputs": {
            name: {"path": str(file.path), "shape": list(file.shape), "dtype": str(file.dtype)}
            for name, file in job.files.items()
        },
    }
