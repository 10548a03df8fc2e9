"""Axes, lines and labels of the pictures of numbers: SVG in the site's colours."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pictures import ACCENT

Points = list[tuple[float, float]]
# Where a line of the scale lies, and what is written there.
Marks = list[tuple[float, str]]

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
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP
    bottom: float = BOTTOM

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies in the picture."""
        across = math.log(x / self.x[0]) / math.log(self.x[1] / self.x[0])
        low, high = self.y
        up = (
            math.log(y / low) / math.log(high / low)
            if self.log
            else (y - low) / (high - low)
        )
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )


def numbers(cells: Sequence[str]) -> list[float]:
    """Return the numbers that cells begin with: "8,000", "≤ 1.25", "= 1.0 (0.9 to 1.1)"."""
    return [
        float(cell.lstrip("≤= ").split()[0].rstrip(";").replace(",", "")) for cell in cells
    ]


def is_number(cell: str) -> bool:
    """Return whether a cell has a number, or says that there is none."""
    return cell.replace(",", "").replace(".", "", 1).isdigit()


def powers(low: float, high: float) -> list[float]:
    """Return the powers of ten around two numbers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**i for i in range(first, last + 1)]


def power(number: float) -> str:
    """Write a power of ten."""
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + f"{math.log10(number):.0f}".translate(digits)


def frame(axes: Axes, across: Marks, up: Marks, titles: tuple[str, str]) -> list[str]:
    """Draw the lines behind the curves, and what they stand for."""
    shapes = []
    for y, said in up:
        _, at = axes.place(axes.x[0], y)
        shapes += [
            path([(axes.left, at), (axes.right, at)], QUIET),
            text(axes.left - 8, at, said, "end"),
        ]
    for x, said in across:
        at, _ = axes.place(x, axes.y[1])
        shapes += [
            path([(at, axes.bottom), (at, axes.bottom + 6)], PLAIN),
            text(at, axes.bottom + 20, said),
        ]
    middle = (axes.left + axes.right) / 2
    return [
        *shapes,
        text(middle, axes.bottom + 44, titles[0]),
        text(4, 10, titles[1], "start"),
    ]


def curve(axes: Axes, points: Iterable[tuple[float, float]], look: str) -> list[str]:
    """Draw a curve, and a dot for each number that was measured."""
    places = [axes.place(*point) for point in points]
    ink = ACCENT if look == BRIGHT else "currentColor"
    return [path(places, look), *(dot(place, 4, f'fill="{ink}"') for place in places)]


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


def dot(place: tuple[float, float], radius: float, look: str) -> str:
    """Draw a dot."""
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius}" {look}/>'


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """Write a text beside a point or around it."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" dominant-baseline="central"'
    return f'<text {place} font-size="16" fill="currentColor">{words}</text>'
