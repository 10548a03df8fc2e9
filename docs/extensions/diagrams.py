"""Diagrams: what a pair saves, the record of a function, the tasks of `accumulate`, the levels of the package."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from drawing import ACCENT, INK

Point = tuple[float, float]


def pair(figure: Figure) -> None:
    """Draw the data flow of a pair: forward down the left, backward up the right."""
    axes = canvas(figure, 500, 296)
    left, right = 130, 370
    code(axes, (left, 20), "z, w, b")
    arrow(axes, (left, 36), (left, 70))
    box(axes, (left, 100), (210, 58), "affine_forward\na = z w + b")
    arrow(axes, (left, 130), (left, 164))
    code(axes, (left, 180), "a")
    arrow(axes, (left, 196), (left, 230))
    box(axes, (250, 260), (450, 58), "loss\nits value, and its gradient for a")
    arrow(axes, (right, 230), (right, 196))
    code(axes, (right, 180), "da")
    arrow(axes, (right, 164), (right, 130))
    box(axes, (right, 100), (210, 58), "affine_backward\nthree products")
    arrow(axes, (right, 70), (right, 36))
    code(axes, (right, 20), "dz, dw, db")
    # What the backward needs of the forward's inputs goes from one to the other.
    arrow(axes, (left + 58, 22), (right - 66, 68), linestyle="--")
    code(axes, (272, 26), "z, w")


def record(figure: Figure) -> None:
    """Draw the record of mean((tanh(z w) - y)**2): values to the right above, gradients to the left below."""
    axes = canvas(figure, 500, 120)
    places = [20, 110, 210, 300, 390, 480]
    code(axes, (places[0], 60), "w")
    for x, name in zip(places[1:-1], ("z @ w", "tanh", "- y", "**2"), strict=True):
        box(axes, (x, 60), (62, 40), name)
    code(axes, (places[-1], 60), "mean")
    edges = [10, *(31 for _ in places[1:-1]), 22]
    for before, after, right, left in zip(places, places[1:], edges, edges[1:], strict=False):
        arrow(axes, (before + right + 3, 50), (after - left - 3, 50))
        arrow(axes, (after - left - 3, 70), (before + right + 3, 70), linestyle="--")
    axes.text(250, 18, "values, recorded", ha="center", va="center")
    axes.text(250, 104, "gradients, by the chain rule", ha="center", va="center")


def accumulate(figure: Figure) -> None:
    """Draw the tasks of `accumulate`: one for a block of rows, one for each eight sums."""
    axes = canvas(figure, 490, 272)
    axes.text(245, 14, "the batch: blocks of rows of z and da", ha="center", va="center")
    blocks = [20 + 30 * i for i in range(16)]
    for x in blocks:
        axes.add_patch(Rectangle((x - 9, 32), 18, 26, facecolor=INK, edgecolor="none", alpha=0.25))
        arrow(axes, (x, 58), (x, 83))
        box(axes, (x, 96), (24, 24))
    for middle, group in ((125, blocks[:8]), (365, blocks[8:])):
        for x in group:
            axes.plot([x, middle], [109, 151], color=INK, linewidth=1)
        box(axes, (middle, 170), (130, 36), "sum of eight")
        axes.plot([middle, 245], [189, 225], color=INK, linewidth=1)
    box(axes, (245, 246), (180, 40), "dw, db")


def levels(figure: Figure) -> None:
    """Draw the packages of the four levels, and what each may import."""
    axes = canvas(figure, 490, 290)
    box(axes, (245, 264), (250, 44), "_core")
    box(axes, (245, 184), (250, 44), "_ops")
    for x, name in ((85, "_autodiff"), (245, "_testing"), (405, "dask")):
        box(axes, (x, 104), (140, 44), name)
        arrow(axes, (x, 82 + 44), (165 + x / 3, 162))
        arrow(axes, (165 + x / 3, 46), (x, 82))
    box(axes, (245, 24), (250, 44), "_cli")
    arrow(axes, (245, 206), (245, 242))


def canvas(figure: Figure, width: float, height: float) -> Axes:
    """Return axes without a scale, y downwards."""
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    return axes


def code(axes: Axes, place: Point, text: str) -> None:
    """Write names of arrays around a point."""
    axes.text(*place, text, ha="center", va="center", family="monospace")


def box(axes: Axes, middle: Point, size: Point, text: str = "") -> None:
    """Draw a box around a point."""
    corner = middle[0] - size[0] / 2 + 4, middle[1] - size[1] / 2 + 4
    look = {
        "boxstyle": "round,pad=4,rounding_size=7",
        "edgecolor": ACCENT,
        "linewidth": 1.5,
    }
    axes.add_patch(FancyBboxPatch(corner, size[0] - 8, size[1] - 8, facecolor="none", **look))
    axes.text(*middle, text, ha="center", va="center", linespacing=1.4)


def arrow(axes: Axes, start: Point, end: Point, linestyle: str = "-") -> None:
    """Draw an arrow."""
    look = {
        "arrowstyle": "-|>",
        "facecolor": INK,
        "linestyle": linestyle,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", end, start, arrowprops=look)
