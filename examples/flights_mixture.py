"""Two kinds of flights, on time and late: a mixture model whose likelihood is written down and differentiated.

The data are those of `flights.py`. A flight is late with a chance that depends on its airport, its hour of departure,
its airline and its distance. The delays at arrival of each kind are normally distributed. Nobody knows which flight is
of which kind, so the likelihood of a delay is a sum over both kinds. It is no function of this package: it is array
code of ten lines, differentiated by `value_and_grad` and summed over blocks on disk by `accumulate`. L-BFGS of SciPy
maximises it; `hessian` gives the standard errors.

The EM algorithm fits the same model without a derivative of the likelihood. Both fits must agree within a hundredth of
each standard error, and the memory in use must stay under the limit; else the exit status is 1.

    pip install ".[examples]"
    python examples/flights_mixture.py
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from array_api_compat import array_namespace
from flights import LIMIT, MIB, THREADS, Levels, peak, read, write
from rich.console import Console
from rich.table import Table
from scipy.linalg import block_diag
from scipy.optimize import minimize

from pullback import hessian, ravel_tree, value_and_grad
from pullback.dask import accumulate, compute

CATEGORIES = "departure", "airline"
ROWS = 16_384  # in a block
TOLERANCE = 0.01  # how far a parameter may lie from the EM algorithm's, in standard errors
MOST_ITERATIONS = 200


class Mixture(NamedTuple):
    """The parameters. The log-odds that a flight is late are z w + b."""

    w: Any
    b: Any
    means: Any
    """The mean delay of the flights on time, and of the late ones, in minutes."""
    log_spreads: Any
    """The logarithms of the two standard deviations."""


class Problem(NamedTuple):
    """What is fitted: the columns and the delays of all flights, where to start, and the parameters of a vector."""

    z: Any
    y: Any
    start: Any
    unravel: Callable[[Any], Mixture]


class Fit(NamedTuple):
    """The parameters as a vector, and the passes over the matrix that they took."""

    vector: Any
    passes: int


def main() -> int:
    """Read, write, fit, compare and report; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw the result: an .svg, .pdf or .png")
    output = parser.parse_args().output
    out, begin = Console(highlight=False), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(num_workers=THREADS),
        Console(stderr=True).status("reading the flights") as line,  # shown on a terminal only
    ):
        flights, _ = read()
        levels = {name: Levels(*np.unique(flights[name], return_counts=True)) for name in CATEGORIES}
        delays = flights["delay"]
        line.update("writing the matrix")
        write(Path(folder), flights, levels, block=ROWS)
        del flights
        z, y = da.from_zarr(Path(folder) / "z"), da.from_zarr(Path(folder) / "y")[:, 0]
        out.print(f"{z.shape[0]:,} flights; {z.shape[1]} columns in {z.numblocks[0]} blocks on disk")
        spread = float(np.std(delays))
        quartiles = np.quantile(delays, [0.25, 0.75])
        start = Mixture(w=np.zeros(z.shape[1]), b=np.zeros(()), means=quartiles, log_spreads=np.log([spread, spread]))
        problem = Problem(z, y, *ravel_tree(start))
        (moments,) = compute(*accumulate(second_moments, z))
        fit = maximum_likelihood(problem, scaling(moments, spread), line.update)
        line.update("computing the standard errors")
        covariance = inverse_hessian(problem, fit.vector)
        errors = np.sqrt(np.diag(covariance))
        other = expectation_maximization(problem, errors, line.update)
        apart = float(np.max(np.abs(fit.vector - other.vector) / errors))
    memory, found = peak(), problem.unravel(fit.vector)
    chances = chances_of(found, covariance, moments, levels)
    out.print(table(found, problem.unravel(errors), chances))
    out.print(f"{fit.passes} passes of L-BFGS, {other.passes} of EM, {time.perf_counter() - begin:.0f} s in all")
    out.print(f"from the EM algorithm: {apart:.1e} standard errors; {TOLERANCE:.0e} is allowed")
    out.print(f"largest resident memory: {memory / MIB:.0f} MiB; {LIMIT / MIB:.0f} MiB is allowed")
    if output:
        draw(output, delays, found, chances)
    return int(not apart <= TOLERANCE or memory > LIMIT)


def joint(z: Any, y: Any, p: Mixture, /) -> tuple[Any, Any]:
    """Return log P(on time) f(y | on time) and log P(late) f(y | late), without the constant of normal densities f."""
    xp = array_namespace(y)
    logits = z @ p.w + p.b
    scores = (y[:, None] - p.means) / xp.exp(p.log_spreads)
    density = -0.5 * scores**2 - p.log_spreads
    nothing = xp.zeros_like(logits)
    return density[:, 0] - xp.logaddexp(nothing, logits), density[:, 1] - xp.logaddexp(nothing, -logits)


def loss(z: Any, y: Any, p: Mixture, /) -> Any:
    """Return the negative log-likelihood of some flights."""
    xp = array_namespace(y)
    return -xp.sum(xp.logaddexp(*joint(z, y, p)))


def second_moments(z: Any, /) -> tuple[Any]:
    """Return ``xᵀx`` for x = (z, 1): sums of products, of columns, and the number of rows."""
    x = np.concat([z, np.ones((len(z), 1))], axis=1)
    return (x.T @ x,)


def scaling(moments: Any, spread: float, /) -> Any:
    """Return the matrix from scaled parameters, in which L-BFGS takes its steps, to the model's.

    The loss curves in w, b about as ``xᵀx / m`` does, whose Cholesky factor makes all directions alike; and means are
    measured in standard deviations.
    """
    factor = np.linalg.cholesky(moments / moments[-1, -1])
    return block_diag(np.linalg.inv(factor).T, spread * np.eye(2), np.eye(2))


def maximum_likelihood(problem: Problem, scale: Any, show: Callable[[str], None], /) -> Fit:
    """Minimise the mean loss by L-BFGS, each value and gradient one pass over the blocks."""
    z, y, start, unravel = problem
    m, passes = z.shape[0], 0
    step = value_and_grad(loss, argnums=2)

    def value_and_gradient(scaled: Any) -> tuple[float, Any]:
        nonlocal passes
        value, gradient = accumulate(step, z, y, shared=(unravel(scale @ scaled),))
        value, *parts = compute(value, *gradient)
        passes += 1
        show(f"fitting: pass {passes}, mean loss {float(value) / m:.6f}")
        return float(value) / m, ravel_tree(parts)[0] @ scale / m

    options = {"ftol": 0, "gtol": 1e-6, "maxcor": 30}
    first = np.linalg.solve(scale, start)
    found = minimize(value_and_gradient, first, jac=True, method="L-BFGS-B", options=options)
    return Fit(scale @ found.x, passes)


def inverse_hessian(problem: Problem, vector: Any, /) -> Any:
    """Return the covariance of the parameters: the inverse of the Hessian, which is one more pass."""

    def of_vector(z: Any, y: Any, vector: Any) -> Any:
        return loss(z, y, problem.unravel(vector))

    (matrix,) = compute(accumulate(hessian(of_vector, argnums=2), problem.z, problem.y, shared=(vector,)))
    return np.linalg.inv(matrix)


def expectation_maximization(problem: Problem, errors: Any, show: Callable[[str], None], /) -> Fit:
    """Fit by the EM algorithm, until a step is below a tenth of the tolerance.

    Means and spreads have closed forms. The log-odds take one Newton step of a logistic regression on the chances that
    each flight is late, given its delay.
    """
    z, y, vector, unravel = problem

    def sums(z: Any, y: Any, p: Mixture) -> tuple[Any, ...]:
        on_time, late = joint(z, y, p)
        weights = np.exp(np.stack([on_time, late]) - np.logaddexp(on_time, late))
        chance = 1 / (1 + np.exp(-(z @ p.w + p.b)))
        x = np.concat([z, np.ones((len(z), 1))], axis=1)
        newton = x.T @ (weights[1] - chance), (x.T * (chance * (1 - chance))) @ x
        return weights.sum(axis=1), weights @ y, weights @ y**2, *newton

    for i in range(MOST_ITERATIONS):
        counts, first, second, slope, curvature = compute(*accumulate(sums, z, y, shared=(unravel(vector),)))
        means = first / counts
        spreads = np.sqrt(second / counts - means**2)
        log_odds = vector[: len(slope)] + np.linalg.solve(curvature, slope)
        before, vector = vector, np.concat([log_odds, means, np.log(spreads)])
        change = float(np.max(np.abs(vector - before) / errors))
        show(f"comparing: pass {i + 1} of EM, a step of {change:.1e} standard errors")
        if change <= TOLERANCE / 10:
            break
    return Fit(vector, i + 1)


def chances_of(p: Mixture, covariance: Any, moments: Any, levels: dict[str, Levels], /) -> dict[str, dict[Any, Any]]:
    """Return the chance of being late for each value of a category, all else as on average, with its 95 % interval."""
    average = moments[-1] / moments[-1, -1]
    log_odds, n, chances, first = np.append(p.w, p.b), len(average), {}, 0
    for name, (values, _) in levels.items():
        last = first + len(values) - 1
        x = np.tile(average, (len(values), 1))
        x[:, first:last] = np.eye(len(values))[:, :-1]
        error = np.sqrt(np.sum((x @ covariance[:n, :n]) * x, axis=1))
        logits = x @ log_odds + np.asarray([[0], [-1.96], [1.96]]) * error
        chances[name] = dict(zip(values.tolist(), (1 / (1 + np.exp(-logits))).T.tolist(), strict=True))
        first = last
    return chances


def table(p: Mixture, errors: Mixture, chances: dict[str, dict[Any, Any]], /) -> Table:
    """Show both kinds of flights, and the most and the least reliable values of each category."""
    shown = Table("feature", "value", box=None, pad_edge=False)
    shown.add_column("", justify="right")
    for i, kind in enumerate(("on time", "late")):
        shown.add_row("mean delay", kind, f"{p.means[i]:+.1f} ± {1.96 * errors.means[i]:.1f} minutes")
        shown.add_row("spread", kind, f"{np.exp(p.log_spreads[i]):.1f} minutes")
    for feature, found in chances.items():
        order = sorted(found, key=found.__getitem__, reverse=True)
        for value in (*order[:3], *order[-3:]):
            chance, low, high = found[value]
            shown.add_row(f"late, by {feature}", value, f"{chance:.1%} ({low:.1%} to {high:.1%})")
    return shown


def draw(path: Path, delays: Any, p: Mixture, chances: dict[str, dict[Any, Any]], /) -> None:
    """Draw the delays with both kinds of flights, and the chance of being late, in colours for light and dark pages."""
    import matplotlib as mpl  # noqa: PLC0415 - half of the memory would be gone
    from matplotlib.figure import Figure  # noqa: PLC0415

    gray = "#808080"
    look = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], gray)
    with mpl.rc_context({**look, "svg.fonttype": "none", "svg.hashsalt": "flights_mixture"}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        both, hours = figure.subplots(2)
        x = np.linspace(-70, 240, 311)
        both.hist(delays, bins=x[::5], density=True, color=gray, alpha=0.4)
        # At the maximum of the likelihood the mean of the mixture is that of the delays.
        share = (np.mean(delays) - p.means[0]) / (p.means[1] - p.means[0])
        densities = np.exp(-0.5 * ((x[:, None] - p.means) / np.exp(p.log_spreads)) ** 2 - p.log_spreads)
        densities = densities / np.sqrt(2 * np.pi) * np.asarray([1 - share, share])
        both.plot(x, densities, label=["on time", "late"])
        both.plot(x, densities.sum(axis=1), color=gray, label="both")
        both.set(xlabel="delay at arrival, minutes", ylabel="density", xlim=(-70, 240))
        both.legend(frameon=False)
        for airport in ("EWR", "JFK", "LGA"):
            found = {int(name[4:6]): chance for name, chance in chances["departure"].items() if name[:3] == airport}
            middle, low, high = np.asarray(list(found.values())).T
            hours.plot(list(found), middle, marker=".", label=airport)
            hours.fill_between(list(found), low, high, alpha=0.3)
        hours.set(xlabel="hour of departure", ylabel="chance of being late", xticks=range(5, 24, 3))
        hours.legend(frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    raise SystemExit(main())
