"""Curves of numbers that the benchmarks saved: SVG in the site's colours."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pictures import ACCENT, svg

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 500, 320
LEFT, RIGHT, TOP, BOTTOM = 84, 480, 58, 262
QUIET = 'stroke="currentColor" stroke-opacity="0.2"'
BRIGHT = f'stroke="{ACCENT}" stroke-width="3"'
PLAIN = 'stroke="currentColor" stroke-width="2"'
DASHED = ' stroke-dasharray="6 5"'
DOTTED = ' stroke-dasharray="2 4"'


class Axes(NamedTuple):
    """What the picture's edges stand for: x on a logarithmic scale, y on either."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies in the picture."""
        across = math.log(x / self.x[0]) / math.log(self.x[1] / self.x[0])
        low, high = self.y
        up = (
            math.log(y / low) / math.log(high / low)
            if self.log
            else (y - low) / (high - low)
        )
        return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)


def pool(column: Callable[[str], list[str]]) -> str:
    """Draw the ratio of two times: median, quartiles and bound."""
    blocks = numbers(column("blocks"))
    names = "lower quartile", "median", "upper quartile", "bound"
    low, median, high, bound = (numbers(column(name)) for name in names)
    top = max(*high, *bound)
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if top / step < 6)
    count = math.floor(top / step) + 1
    axes = Axes((blocks[0] / 1.6, blocks[-1] * 1.6), (0, count * step), log=False)
    around = " ".join(
        "{:.1f},{:.1f}".format(*axes.place(x, y))
        for x, y in [
            *zip(blocks, low, strict=True),
            *zip(blocks[::-1], high[::-1], strict=True),
        ]
    )
    return svg(
        WIDTH,
        HEIGHT,
        *frame(
            axes, blocks, [i * step for i in range(count + 1)], "time / time of the pool"
        ),
        f'<polygon points="{around}" fill="{ACCENT}" fill-opacity="0.2"/>',
        *curve(axes, zip(blocks, median, strict=True), BRIGHT),
        *(
            path([axes.place(x / 1.4, y), axes.place(x * 1.4, y)], PLAIN + DASHED)
            for x, y in zip(blocks, bound, strict=True)
        ),
        *legend(("median, quartiles", BRIGHT), ("bound", PLAIN + DASHED)),
    )


def graph(column: Callable[[str], list[str]]) -> str:
    """Draw µs for a block: to build a graph and to run it, on threads and on a cluster."""
    blocks = numbers(column("blocks"))
    looks = {"build": BRIGHT, "threads": PLAIN, "cluster": PLAIN + DOTTED}
    # The cluster's times end earlier.
    lines = {
        name: [
            (x, float(y)) for x, y in zip(blocks, column(name), strict=True) if is_number(y)
        ]
        for name in looks
    }
    times = [y for points in lines.values() for _, y in points]
    first, last = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    axes = Axes((blocks[0] / 1.6, blocks[-1] * 1.6), (10.0**first, 10.0**last), log=True)
    shapes = frame(
        axes, blocks, [10.0**i for i in range(first, last + 1)], "µs for a block"
    )
    for name, points in lines.items():
        measured = [point for point in points if point[0] < blocks[-1]]
        shapes += curve(axes, measured, looks[name])
        shapes += [
            path(
                [axes.place(*point) for point in points[len(measured) - 1 :]],
                looks[name] + DASHED,
            )
        ]
    names = {"build": "build", "threads": "run on threads", "cluster": "run on a cluster"}
    return svg(
        WIDTH,
        HEIGHT,
        *shapes,
        *legend(*((names[name], look) for name, look in looks.items())),
    )


def numbers(cells: Sequence[str]) -> list[float]:
    """Return the numbers in cells: "8,000", "≤ 1.25" or "10 (extrapolated)"."""
    return [float(cell.removeprefix("≤ ").split()[0].replace(",", "")) for cell in cells]


def is_number(cell: str) -> bool:
    """Return whether a cell has a number, or says that there is none."""
    return cell.replace(".", "", 1).isdigit()


def frame(axes: Axes, blocks: list[float], heights: list[float], title: str) -> list[str]:
    """Draw the lines behind the curves, and what they stand for."""
    shapes = []
    for y in heights:
        _, at = axes.place(blocks[0], y)
        shapes += [
            path([(LEFT, at), (RIGHT, at)], QUIET),
            text(LEFT - 8, at, f"{y:,.10g}", "end"),
        ]
    for x in blocks:
        at, _ = axes.place(x, axes.y[1])
        shapes += [
            path([(at, BOTTOM), (at, BOTTOM + 6)], PLAIN),
            text(at, BOTTOM + 20, f"{x:,.0f}"),
        ]
    middle = (LEFT + RIGHT) / 2
    return [*shapes, text(middle, HEIGHT - 14, "blocks"), text(4, 10, title, "start")]


def curve(
    axes: Axes, points: Iterator[tuple[float, float]] | Points, look: str
) -> list[str]:
    """Draw a curve, and a dot for each number that was measured."""
    places = [axes.place(*point) for point in points]
    ink = ACCENT if look == BRIGHT else "currentColor"
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{ink}"/>' for x, y in places]
    return [path(places, look), *dots]


def legend(*entries: tuple[str, str]) -> list[str]:
    """Name the curves, above them."""
    shapes, x = [], 0.0
    for name, look in reversed(entries):
        x = (x or RIGHT) - 9 * len(name) - 8
        shapes += [text(x, 32, name, "start"), path([(x - 32, 32), (x - 6, 32)], look)]
        x -= 44
    return shapes


def path(places: Points, look: str) -> str:
    """Draw a line through points."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" {look}/>'


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """Write a text beside a point or around it."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="central"'
    return f'<text {place} font-size="16" fill="currentColor">{words}</text>'
