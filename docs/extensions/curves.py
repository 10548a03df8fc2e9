"""Pictures of batches larger than memory: beside a thread pool, and what a graph costs."""

import math

from pictures import ACCENT, svg
from plot import (
    BRIGHT,
    DASHED,
    DOTTED,
    HEIGHT,
    PLAIN,
    WIDTH,
    Axes,
    Marks,
    curve,
    frame,
    is_number,
    legend,
    numbers,
    path,
    powers,
)
from saved import Table


def pool(table: Table) -> str:
    """Draw the ratio of two times: median, quartiles and bound."""
    blocks = numbers(table.column("blocks"))
    names = "lower quartile", "median", "upper quartile", "bound"
    low, median, high, bound = (numbers(table.column(name)) for name in names)
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
    heights = marks([i * step for i in range(count + 1)])
    return svg(
        WIDTH,
        HEIGHT,
        *frame(axes, marks(blocks), heights, ("blocks", "time / time of the pool")),
        f'<polygon points="{around}" fill="{ACCENT}" fill-opacity="0.2"/>',
        *curve(axes, zip(blocks, median, strict=True), BRIGHT),
        *(
            path([axes.place(x / 1.4, y), axes.place(x * 1.4, y)], PLAIN + DASHED)
            for x, y in zip(blocks, bound, strict=True)
        ),
        *legend(("median, quartiles", BRIGHT), ("bound", PLAIN + DASHED)),
    )


def graph(table: Table) -> str:
    """Draw µs for a block: to build a graph and to run it, on threads and on a cluster."""
    blocks = numbers(table.column("blocks"))
    looks = {"build": BRIGHT, "threads": PLAIN, "cluster": PLAIN + DOTTED}
    # The cluster's times end earlier.
    lines = {
        name: [
            (x, float(y))
            for x, y in zip(blocks, table.column(name), strict=True)
            if is_number(y)
        ]
        for name in looks
    }
    times = [y for points in lines.values() for _, y in points]
    heights = powers(min(times), max(times))
    axes = Axes((blocks[0] / 1.6, blocks[-1] * 1.6), (heights[0], heights[-1]), log=True)
    shapes = frame(axes, marks(blocks), marks(heights), ("blocks", "µs for a block"))
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


def marks(values: list[float]) -> Marks:
    """Write numbers in full."""
    return [(value, f"{value:,.10g}") for value in values]
