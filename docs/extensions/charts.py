"""Charts of the saved benchmarks."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from drawing import ACCENT, INK, written
from saved import Table, is_number, numbers

# A library looks the same in every chart, and is told apart without colours too.
LOOKS = {
    # Wide enough to show on both sides of a line that lies on it.
    "pullback": {"color": ACCENT, "linewidth": 5},
    "NumPy": {},
    "PyTorch": {"dashes": (10, 3)},
    "PyTorch, no tape": {"dashes": (2, 2)},
    "JAX": {"dashes": (10, 3, 2, 3)},
    "HIPS autograd": {"dashes": (5, 3)},
    "Dask": {"dashes": (10, 3, 2, 3, 2, 3)},
    "bound": {"linewidth": 1, "alpha": 0.6, "drawstyle": "steps-pre"},
}
Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def pool(figure: Figure, table: Table) -> None:
    """Draw the time relative to the thread pool: median, quartiles and bound."""
    names = "blocks", "lower quartile", "median", "upper quartile", "bound"
    blocks, low, median, high, bound = (numbers(table.column(name)) for name in names)
    axes = figure.subplots()
    axes.fill_between(blocks, low, high, color=ACCENT, alpha=0.2, label="quartiles")
    axes.plot(blocks, median, color=ACCENT, linewidth=3, marker="o", label="median")
    axes.plot(blocks, bound, color=INK, linestyle="none", marker="_", markersize=30, label="bound")
    axes.set(xscale="log", xticks=blocks, xlabel="blocks", ylabel="time / time of the pool")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(written("{:,.0f}".format))
    axes.minorticks_off()
    axes.grid(axis="y")
    figure.legend(loc="outside upper right", ncols=3, markerscale=0.5)


def graph(figure: Figure, table: Table) -> None:
    """Draw the microseconds that building and running a graph take for each block."""
    blocks = numbers(table.column("blocks"))
    looks = {
        "build": ("build", {"color": ACCENT, "linewidth": 3}),
        "threads": ("run on threads", {"color": INK}),
        "cluster": ("run on a cluster", {"color": INK, "dashes": (2, 2)}),
    }
    axes = figure.subplots()
    for name, (label, look) in looks.items():
        cells = table.column(name)
        points = [(x, float(y)) for x, y in zip(blocks, cells, strict=True) if is_number(y)]
        measured = [point for point in points if point[0] < blocks[-1]]
        axes.plot(*zip(*measured, strict=True), **look, marker="o", label=label)
        extrapolated = points[len(measured) - 1 :]
        axes.plot(
            *zip(*extrapolated, strict=True),
            color=look["color"],
            linestyle="--",
            label=f"_{name}",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xticks=blocks,
        xlabel="blocks",
        ylabel="µs for each block",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(written("{:,.0f}".format))
    axes.minorticks_off()
    axes.grid(axis="y")
    figure.legend(loc="outside upper right", ncols=3)


def accuracy(figure: Figure, table: Table, gradient: str) -> None:
    """Draw the error of each library's dw or db over the number of rows."""
    m = numbers(table.column("m"))
    columns = {
        name.removeprefix(f"{gradient}, "): numbers(table.column(name))
        for name in table.columns
        if name.startswith(f"{gradient}, ")
    }
    columns["bound"] = numbers(table.column("bounds"))
    # The db of a single row has no error, and a logarithmic scale has no zero.
    positive = {name: [(x, y) for x, y in zip(m, errors, strict=True) if y > 0] for name, errors in columns.items()}
    axes = compare(figure, {name: tuple(zip(*xy, strict=True)) for name, xy in positive.items()})
    axes.set(xlabel="rows", ylabel=f"relative error of {gradient}")


def speed(figure: Figure, single: Table, double: Table, means: Table) -> None:
    """Draw a dot for each shape and dtype: the time of a peer divided by that of pullback."""
    directions = list(dict.fromkeys(single.column("")))
    lane = 0.6 / len(directions)
    axes = figure.subplots()
    peers = means.column("peer")
    for i, (peer, mean) in enumerate(zip(peers, numbers(means.column("mean")), strict=True)):
        for table in (single, double):
            ratios = numbers(table.column(peer))
            heights = [i + lane * (directions.index(x) - 1) for x in table.column("")]
            axes.plot(ratios, heights, "o", color=INK, alpha=0.35, markeredgewidth=0, markersize=6)
        axes.plot([mean, mean], [i - 0.32, i + 0.32], color=ACCENT, linewidth=4)
    labels = [f"{x}\nmean {mean}" for x, mean in zip(peers, means.column("mean"), strict=True)]
    axes.set_yticks(range(len(peers)), labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.axvline(1, color=INK, linewidth=1.5)
    axes.set(xscale="log", xlabel="time of the other library / time of pullback")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(written("{:g}".format))
    axes.minorticks_off()
    axes.grid(axis="x")
    axes.set_title("← the other is faster")
    axes.set_title("pullback is faster →", loc="right")


def compare(figure: Figure, lines: Lines) -> Axes:
    """Draw a line for each library on logarithmic scales, named in the order of their ends."""
    axes = figure.subplots()
    for name, (x, y) in sorted(lines.items(), key=lambda line: -line[1][1][-1]):
        axes.plot(x, y, **{"color": INK, "label": name, **LOOKS[name]})
    axes.set(xscale="log", yscale="log")
    axes.grid(which="major")
    axes.minorticks_off()
    figure.legend(loc="outside right upper")
    return axes
