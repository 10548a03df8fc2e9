"""Carry out a plan of `pullback fit` by SciPy's L-BFGS: each evaluation is one pass over the batch."""

import json
import time
from collections.abc import Callable
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import scipy
from scipy.optimize import minimize

from pullback._cli.console import CommandError
from pullback._cli.gradient.checkpoint import Checkpoint, Vector, checkpoint
from pullback._cli.gradient.plan import Job, Point, lay, start_of
from pullback._cli.gradient.run import Done, draft_of, finish
from pullback._cli.signals import Signals
from pullback.dask import compute
from pullback.dask._threads import one_blas_thread

# Of SciPy: the fit ends where no partial derivative is larger, or where an iteration lowers the loss by a smaller part.
_GRADIENT, _DECREASE = 1e-6, 1e-12
_MOST_EVALUATIONS = 10**9


class _Loss(NamedTuple):
    """The penalized loss, as a function of a vector of all that is fitted."""

    job: Job
    signals: Signals
    past: Checkpoint
    start: Point

    @property
    def fitted(self) -> dict[str, Any]:
        """Return the arrays that are fitted, at the start."""
        return {name: getattr(self.start, name) for name in self.job.options.names}

    def at(self, vector: Vector, /) -> Point:
        """Return the point of a vector."""
        fitted = self.fitted
        parts = np.split(vector, np.cumsum([x.size for x in fitted.values()])[:-1])
        arrays = (part.reshape(x.shape) for part, x in zip(parts, fitted.values(), strict=True))
        return self.start._replace(**dict(zip(fitted, arrays, strict=True)))

    def __call__(self, vector: Vector, /) -> tuple[float, Vector]:
        """Return the value and the gradient: from the checkpoint, or by a pass over the batch."""
        known = self.past.recall(vector)
        if known is not None:
            return known
        point, options = self.at(vector), self.job.options
        lazy: Any = lay(options, self.job.files, self.job.block_rows, point)[0]
        with self.signals.allowed():
            loss, dw, db = compute(lazy.loss, lazy.dw, lazy.db)
        value = float(loss) + options.l2 / 2 * float(np.sum(point.w**2))
        gradients = {"w": dw if dw is None else dw + options.l2 * point.w, "b": db}
        gradient = np.concatenate([np.ravel(gradients[name]) for name in self.fitted])
        if not (self.past.done or isfinite(value)):
            msg = f"the loss at the start is {value}"
            causes = "NaN and infinity in the inputs, and for example weights whose sum is 0"
            raise CommandError(msg, advice=f"look for {causes}, or start at smaller weights")
        self.past.append(vector, value, gradient)
        return value, gradient


def fit(job: Job, signals: Signals, /, *, progress: bool, note: Callable[[str], None]) -> Done:
    """Fit the weights and the bias, and write them; a signal interrupts a pass only."""
    began, options = time.perf_counter(), job.options
    if not job.examples:
        msg = f"there are no examples in {job.files['z'].path}, which has shape {job.files['z'].shape}"
        raise CommandError(msg)
    saved = options.output.absolute().with_name(f"{options.output.name}.checkpoint")
    with signals.held(), draft_of(job) as draft:
        with signals.allowed():
            start = _read(job)
        size = sum(getattr(start, name).size for name in options.names)
        with checkpoint(saved, _identity(job), size) as past:
            note(f"goes on after pass {past.count}, as {saved} holds what came of it" if past.count else "")
            loss = _Loss(job, signals, past, start)

            def tell(intermediate_result: Any) -> None:  # noqa: ANN401 - SciPy's, which asks for this name
                note(f"loss {intermediate_result.fun:.10g} after {past.done} passes" if progress else "")

            with one_blas_thread():
                found = minimize(
                    loss,
                    np.concatenate([np.ravel(x) for x in loss.fitted.values()]),
                    jac=True,
                    method="L-BFGS-B",
                    callback=tell,
                    options={
                        "maxiter": options.iterations,
                        "maxfun": _MOST_EVALUATIONS,
                        "ftol": _DECREASE,
                        "gtol": _GRADIENT,
                    },
                )
        point = loss.at(found.x)
        arrays = {"loss": np.asarray(found.fun), **{name: getattr(point, name) for name in options.names}}
        finish(job, draft, arrays, versions=[scipy], iterations=int(found.nit), stopped=str(found.message))
    saved.unlink()
    rows, seconds = job.files["z"].shape[0], time.perf_counter() - began
    text = (
        f"loss {found.fun:.6g} after {found.nit} iterations, {past.done} passes over {rows:,} rows in {seconds:.1f} s"
    )
    return Done(", ".join(arrays), text, (draft.left, _unfinished(job, found)))


def _unfinished(job: Job, found: Any, /) -> str:  # noqa: ANN401 - SciPy's
    """Say what a fit that did not converge is, and what to do; nothing for one that did."""
    if found.success:
        return ""
    at = job.options.output
    if found.nit >= (job.options.iterations or 0):
        bias = f" --bias {at}/b" if "b" in job.options.names else ""
        return (
            f"stopped at --max-iterations {found.nit}, before the fit converged; go on from there with --weights {at}/w"
            f"{bias} and another --output"
        )
    return f"stopped where no step lowers the loss, before its gradient was small: {found.message}"


def _read(job: Job, /) -> Point:
    """Read the start, in memory."""
    start = start_of(job.options, job.files, job.block_rows)
    lazy = [x if isinstance(x, da.Array) else None for x in start]
    read = [x if y is None else y for x, y in zip(start, compute(*lazy), strict=True)]
    point = Point(*read)
    if point.b is None and "b" in job.options.names:
        point = point._replace(b=np.zeros(point.w.shape[1:]))
    return point


def _identity(job: Job, /) -> str:
    """Return all that the bits of a fit depend on, but the libraries."""
    options = job.options
    files = {
        name: (str(file.path), file.shape, str(file.dtype), sha256(file.stamps.tobytes()).hexdigest())
        for name, file in job.files.items()
    }
    return json.dumps([options.loss, options.is_mean, options.l2, options.names, job.block_rows, files])
