"""Divide a batch into blocks that fit into memory, for `pullback gradient` and `pullback fit`."""

from bisect import bisect_right
from functools import partial
from math import ceil, isfinite, lcm, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dask.utils import format_bytes, parse_bytes

from pullback import AffineGradients, affine_backward
from pullback._cli.console import CommandError
from pullback._cli.gradient import model
from pullback._cli.gradient.atomic import check_output
from pullback._cli.gradient.budget import Budget
from pullback._cli.gradient.files import File, open_file
from pullback._cli.gradient.team import Team
from pullback._core.typing import Array, DaskArray, DType
from pullback.dask import accumulate
from pullback.dask._graph import blocks_of
from pullback.dask._plan import TASK_BYTES, TASK_GROWTH, Plan

# Smaller blocks go several to a task in any case; larger ones save nothing more.
_BLOCK_BYTES = TASK_BYTES, TASK_GROWTH * TASK_BYTES
# At least this many blocks, where they are not too small: enough for 16 workers to end at about the same time.
_BLOCKS = 64

# The options that name files: those that are divided into blocks, in the order of reading, and those that are not.
_BATCH = "upstream", "z", "targets", "example_weights"
_INPUTS = *_BATCH, "weights", "bias"
_OF_LOSS = "targets", "loss", "bias", "example_weights", "reduction"


class Options(NamedTuple):
    """What the command was asked for."""

    z: Path
    weights: Path
    output: Path
    memory: str
    block_rows: int | None
    workers: int | None
    scheduler: str | None
    overwrite: bool
    fill_missing: bool
    wrt: str | None = None
    upstream: Path | None = None
    targets: Path | None = None
    loss: str | None = None
    bias: Path | None = None
    example_weights: Path | None = None
    reduction: str | None = None
    iterations: int | None = None
    """The most iterations of a fit; None for a gradient."""
    l2: float = 0.0

    @property
    def is_fit(self) -> bool:
        """Whether weights and bias are fitted."""
        return self.iterations is not None

    @property
    def made_by(self) -> str:
        """Return the name of the command."""
        return "pullback fit" if self.is_fit else "pullback gradient"

    @property
    def names(self) -> tuple[str, ...]:
        """Return the inputs to differentiate for."""
        wrt = ("w,b" if self.loss else "z,w,b") if self.wrt is None else self.wrt
        return tuple(name.strip() for name in wrt.split(","))

    @property
    def is_mean(self) -> bool:
        """Whether the loss is a mean over the examples."""
        return self.loss is not None and self.reduction != "sum"


class Point(NamedTuple):
    """Where a loss is computed: in memory, or lazy."""

    w: Any
    b: Any
    """Perhaps None, for zero."""
    divisor: Any
    """Divisor of the sum over the examples: their number or total weight for a mean, 1 for a sum."""


class Job(NamedTuple):
    """Gradients that are laid out, and not computed yet."""

    options: Options
    files: dict[str, File]
    lazy: AffineGradients | model.LossGradients
    plan: Plan
    block_rows: int
    """The rows of a chunk of dz; where these are few, a task does several."""
    memory: int
    """What it takes at most, as predicted, and `limit` what it may take."""
    limit: int
    gaps: list[str]
    """A line for each input of which some chunks are not stored."""

    @property
    def outputs(self) -> dict[str, DaskArray]:
        """Return the gradients that were asked for."""
        return {name: x for name, x in self.lazy._asdict().items() if x is not None}

    @property
    def tasks(self) -> int:
        """Return the number of blocks, and of sums of up to eight of them."""
        return sum(layer.tasks for layer in blocks_of(*self.lazy))

    @property
    def examples(self) -> int:
        """Return the number of examples, which each have a row of z of their own."""
        return prod(self.files["z"].shape[:-1])

    @property
    def operations(self) -> int:
        """Return the number of additions and multiplications."""
        k, n = self.files["z"].shape[-1], prod(self.files["weights"].shape[1:])
        each = {"loss": 2 * k * n, "dz": 2 * k * n, "dw": 2 * k * n, "db": n}
        return self.examples * sum(each[name] for name in self.outputs)


def plan(options: Options, team: Team, /) -> Job:
    """Open the files and divide them into blocks that fit into the memory, or say why that cannot be."""
    limit = _bytes(options.memory)
    files = _open(options)
    check_output(options.output, options.made_by, files.values(), overwrite=options.overwrite)
    gaps = [file.check_whole(fill_missing=options.fill_missing) for file in files.values()]
    batch = tuple(file for name, file in files.items() if name in _BATCH)
    try:
        lazy, whole_batch = lay(options, files, max(*(file.shape[0] for file in batch), 1))
    except (TypeError, ValueError) as error:
        error.add_note(", ".join(f"{name} is {file.path} {file.shape}" for name, file in files.items()))
        raise

    dtype = _dtype(options, files)
    outputs = prod(model.output_shape(files["z"], files["weights"])[1:]) if options.loss else 0
    budget = Budget(
        plan=whole_batch,
        batch=batch,
        shared=tuple(file for name, file in files.items() if name not in _BATCH),
        z=files["z"],
        stores_rows=lazy.dz is not None,
        output_row_bytes=outputs * dtype.itemsize,
        dtype=dtype,
        threads=team.each,
        parameters=sum(prod(x.shape) for x in (lazy.dw, lazy.db) if x is not None) if options.is_fit else 0,
    )
    rows = options.block_rows or _best_rows(budget, limit)
    rows = min(rows, max(files["z"].shape[0], 1))
    _check_rows(rows, budget)
    lazy, plan = lay(options, files, rows)
    memory = budget.process(max(*plan.chunks, 1))
    job = Job(options, files, lazy, plan, rows, memory, limit, [gap for gap in gaps if gap])
    if job.memory > limit:
        at_once = min(team.each, len(plan.blocks))
        ways = [f"--memory {ceil(job.memory / 2**20)}MiB is the smallest that would do"]
        if at_once > 1:
            fewer = "threads to a worker of the cluster" if options.scheduler else "--workers"
            ways.append(f"fewer {fewer} (now {team.each}) need less")
        if options.block_rows:
            ways.append("a smaller --block-rows needs less")
        msg = (
            f"blocks of {max(plan.chunks):,} rows take {format_bytes(job.memory)} with {at_once} at a time, "
            f"and --memory allows {format_bytes(limit)}; {', '.join(ways)}"
        )
        raise CommandError(msg)
    return job


def _bytes(size: str, /) -> int:
    """Return the bytes of a size such as 512MiB."""
    try:
        count = int(parse_bytes(size)) if size.strip()[:1].isdigit() else 0
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        msg = f"--memory must be a size such as 512MiB or 2GB; got {size!r}"
        raise CommandError(msg)
    return count


def _open(options: Options, /) -> dict[str, File]:
    """Open the files that were given, and check that the options and the shapes of a loss fit each other."""
    _check_options(options)
    names = [name for name in _INPUTS if getattr(options, name) is not None]
    files = {name: open_file(getattr(options, name), model.kind(name, loss=bool(options.loss))) for name in names}
    if options.loss:
        model.check_shapes(options.loss, files)
    return files


def _check_options(options: Options, /) -> None:
    """Check that the options name a loss and its targets, or its gradient."""
    of_loss = {f"--{name.replace('_', '-')}": getattr(options, name) for name in _OF_LOSS}
    given = [name for name, value in of_loss.items() if value is not None]
    way = "give --upstream, the gradient of a loss that you have, or --targets and --loss, which compute it"
    if options.upstream is not None and given:
        msg = f"--upstream and {given[0]} exclude each other"
        raise CommandError(msg, advice=way)
    if options.upstream is None and (options.targets is None or options.loss is None):
        has = f"{given[0]} is there without " if given else "there is neither --upstream nor "
        msg = f"{has}{'--loss' if options.targets is not None else '--targets'}"
        raise CommandError(msg, advice=way)
    if options.is_fit and not set(options.names) <= {"w", "b"}:
        msg = f"--wrt of {options.made_by} must name w, b or both; got {options.wrt!r}"
        raise CommandError(msg)
    if not isfinite(options.l2):
        msg = f"--l2 must be a finite number; got {options.l2}"
        raise CommandError(msg)
    for name, choices in (("loss", tuple(model.LOSSES)), ("reduction", model.REDUCTIONS)):
        value = getattr(options, name)
        if value is not None and value not in choices:
            msg = f"--{name} must be one of {', '.join(choices)}; got {value!r}"
            raise CommandError(msg)


def _dtype(options: Options, files: dict[str, File], /) -> DType:
    """Return the dtype that a step computes in; a fit needs the digits of float64 to find the least loss."""
    return np.dtype(np.float64) if options.is_fit else model.computed_dtype(*files.values())


def start_of(options: Options, files: dict[str, File], rows: int, /) -> Point:
    """Return the point that the files hold, lazily."""
    dtype = np.dtype(np.float64) if options.is_fit else None
    w = model.whole(files["weights"], dtype)
    b = model.whole(files["bias"], dtype) if "bias" in files else None
    return Point(w, b, model.divisor(files, rows) if options.is_mean else 1.0)


def lay(
    options: Options, files: dict[str, File], rows: int, point: Point | None = None, /
) -> tuple[AffineGradients | model.LossGradients, Plan]:
    """Lay the gradients at a point, or at that of the files, out on blocks of this number of rows."""
    if options.scheduler:
        files = {name: file.unchecked() for name, file in files.items()}
    point = point or start_of(options, files, rows)
    lazy: AffineGradients | model.LossGradients
    if options.loss:
        lazy = model.lay(options.loss, options.names, files, rows, _dtype(options, files), tuple(point))
    else:
        z, upstream = (files[name].lazy(rows) for name in ("z", "upstream"))
        step = partial(_step, options.names)
        kept = ("dz",) if "z" in options.names else ()
        lazy = accumulate(step, upstream, z, shared=(point.w,), rows=kept)
    # The layer before it, if there is one, sums the example weights.
    return lazy, blocks_of(*lazy)[-1].plan


def _step(wrt: tuple[str, ...], upstream: Array, z: Array, weights: Array, /) -> AffineGradients:
    """Return the gradients for a block; NaN and infinity in it are for who reads the result, and no warning."""
    with np.errstate(all="ignore"):
        return affine_backward(upstream, z, weights, wrt=wrt)


def _best_rows(budget: Budget, limit: int, /) -> int:
    """Return the rows of a block: of those that are worth a task the most that fit, else the least.

    A block that is a number of chunks of each array is read once. If that is too large, blocks follow the largest
    array, and chunks of another one are read by each block that they lie in.
    """
    all_of_them = lcm(*(file.chunk_rows for file in budget.batch))
    for unit in (all_of_them, _largest(budget).chunk_rows):
        candidates = _candidates(budget.plan, unit)
        rows = candidates[max(bisect_right(candidates, limit, key=budget.process) - 1, 0)]
        if budget.process(rows) <= limit:
            return rows
    return rows


def _largest(budget: Budget, /) -> File:
    """Return the largest of the arrays that are divided into blocks."""
    return max(budget.z, *budget.batch, key=lambda file: file.nbytes)


def _candidates(plan: Plan, unit: int, /) -> range:
    """Return the numbers of rows that a block may have: whole chunks, and neither too few nor too many of them.

    They do not depend on the number of workers, so that a run gives the same bits on every computer.
    """
    rows, unit_bytes = sum(plan.chunks), unit * max(plan.row_bytes, 1)
    low, high = (size // unit_bytes for size in _BLOCK_BYTES)
    least = max(min(low + 1, ceil(rows / unit)), 1)
    most = max(min(high, rows // (_BLOCKS * unit)), least)
    return range(least * unit, most * unit + 1, unit)


def _check_rows(rows: int, budget: Budget, /) -> None:
    """Check that no chunk of the largest array lies in two blocks."""
    largest = _largest(budget)
    unit = largest.chunk_rows
    if rows % unit and rows < largest.shape[0]:
        lower = rows // unit * unit
        near = f"{lower:,} or {lower + unit:,}" if lower else f"{unit:,}"
        msg = (
            f"--block-rows must be a multiple of {unit:,}, the rows of a chunk of {largest.path}, which would be read "
            f"twice otherwise; got {rows:,}"
        )
        raise CommandError(msg, advice=f"give {near}")
