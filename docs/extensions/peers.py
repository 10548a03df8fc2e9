"""Pictures of the peers: speed, growth and accuracy, a library told apart by its dashes."""

from collections.abc import Callable, Mapping

from pictures import ACCENT, svg
from plot import (
    BRIGHT,
    DASHED,
    DOTTED,
    PLAIN,
    QUIET,
    WIDTH,
    Axes,
    Points,
    dot,
    frame,
    is_number,
    numbers,
    path,
    power,
    powers,
    text,
)
from saved import Table

# A library looks the same in every picture, on paper and without colours, too.
LOOKS = {
    # Wide enough to show on both sides of a line that lies on it.
    "pullback": f'stroke="{ACCENT}" stroke-width="5"',
    "NumPy": PLAIN,
    "PyTorch": PLAIN + ' stroke-dasharray="12 4"',
    "PyTorch, no tape": PLAIN + DOTTED,
    "JAX": PLAIN + ' stroke-dasharray="12 4 2 4"',
    "HIPS autograd": PLAIN + DASHED,
    "Dask": PLAIN + ' stroke-dasharray="12 4 2 4 2 4"',
    "bound": 'stroke="currentColor" stroke-width="1" stroke-opacity="0.6"',
}
UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}
# To the right of the curves are their names.
LEFT, RIGHT, TOP, BOTTOM = 72, 308, 36, 330
NAMES, LINE = 366, 20
# Each peer has its name, and below it a lane of dots for each direction.
HEAD, LANE, GAP = 20, 12, 24
FAINT = 'fill="currentColor" fill-opacity="0.4"'


def growth(table: Table) -> str:
    """Draw the time of each library over the size of what grows."""
    letter = table.columns[0]
    # The last row is an exponent, and no size.
    rows = [i for i, cell in enumerate(table.column(letter)) if is_number(cell)]
    libraries = [name for name in table.columns if name in LOOKS and name != "bound"]
    sizes = numbers([table.column(letter)[i] for i in rows])
    lines = {
        name: list(zip(sizes, (seconds(table.column(name)[i]) for i in rows), strict=True))
        for name in libraries
    }
    return beside(lines, (letter, "time"), duration)


def accuracy(gradient: str, table: Table) -> str:
    """Draw the error of each library's dw or db over the number of rows."""
    m = numbers(table.column("m"))
    columns = {
        name.removeprefix(f"{gradient}, "): table.column(name)
        for name in table.columns
        if name.startswith(f"{gradient}, ")
    }
    # A single row has no error of db at all, and a logarithmic scale has no place for that.
    lines = {
        name: [(x, y) for x, y in zip(m, numbers(cells), strict=True) if y > 0]
        for name, cells in columns.items()
    }
    bounds = list(zip(m, numbers(table.column("bounds")), strict=True))
    # A bound holds up to the length where the next one begins.
    lines["bound"] = [
        point
        for (_, before), (x, y) in zip(bounds[:1] + bounds, bounds, strict=False)
        for point in ((x, before), (x, y))
    ]
    return beside(lines, ("m", f"error of {gradient}"), power)


def speed(single: Table, double: Table, means: Table) -> str:
    """Draw a dot for each shape and dtype: the time of a peer divided by ours."""
    peers = means.column("peer")
    directions = list(dict.fromkeys(single.column("")))
    ratios = {
        (peer, direction): numbers(
            [
                cell
                for table in (single, double)
                for cell, its in zip(table.column(peer), table.column(""), strict=True)
                if its == direction
            ]
        )
        for peer in peers
        for direction in directions
    }
    everything = [x for found in ratios.values() for x in found]
    low, high = min(*everything, 0.5) / 1.2, max(*everything, 2.0) * 1.2
    lanes = LANE * len(directions)
    top, margin = 70, 16
    bottom = top + (HEAD + lanes + GAP) * len(peers)
    # Only x counts: the peers are below each other.
    axes = Axes(
        (low, high), (0, 1), log=False, left=margin, right=WIDTH - margin, bottom=bottom
    )
    scale = [x * ten for ten in powers(low, high) for x in (1, 2, 5)]
    at = {x: axes.place(x, 0)[0] for x in scale if low <= x <= high}
    marks = [(x, f"{x:g}") for x in at]
    shapes = [
        *frame(axes, marks, [], ("time of a peer / time of pullback", "")),
        *(
            path([(x, top - 16), (x, bottom)], PLAIN if r == 1 else QUIET)
            for r, x in at.items()
        ),
        text(at[1], top - 28, "equal"),
        text(margin, top - 52, "peer is faster", "start"),
        text(WIDTH - margin, top - 52, "pullback is faster", "end"),
    ]
    for i, (peer, mean) in enumerate(zip(peers, means.column("mean"), strict=True)):
        y = top + (HEAD + lanes + GAP) * i
        for j, direction in enumerate(directions):
            height = y + HEAD + LANE * (j + 0.5)
            shapes += [
                dot((axes.place(x, 0)[0], height), 4, FAINT)
                for x in ratios[peer, direction]
            ]
        middle, _ = axes.place(float(mean), 0)
        shapes += [
            path([(middle, y + HEAD - 3), (middle, y + HEAD + lanes + 3)], BRIGHT),
            *on_ground(margin, y + 8, peer, "start"),
            *on_ground(WIDTH - margin, y + 8, f"mean {mean}", "end"),
        ]
    return svg(WIDTH, bottom + 60, *shapes)


def beside(
    lines: Mapping[str, Points], titles: tuple[str, str], say: Callable[[float], str]
) -> str:
    """Draw a line for each library, on logarithmic scales, with its name at its end."""
    across, up = zip(*(point for line in lines.values() for point in line), strict=True)
    axes = Axes(
        (min(across), max(across)),
        (min(up) / 1.3, max(up) * 1.3),
        log=True,
        left=LEFT,
        right=RIGHT,
        top=TOP,
        bottom=BOTTOM,
    )
    widths, heights = (
        [x for x in powers(*ends) if ends[0] <= x <= ends[1]] for ends in axes[:2]
    )
    shapes = frame(
        axes,
        [(x, f"{x:.0f}" if x < 1000 else power(x)) for x in widths],
        [(y, say(y)) for y in heights],
        titles,
    )
    ends = {name: axes.place(*line[-1]) for name, line in lines.items()}
    for name, line in lines.items():
        shapes.append(path([axes.place(*point) for point in line], LOOKS[name]))
    for name, y in apart({name: y for name, (_, y) in ends.items()}).items():
        sample = [(NAMES - 38, y), (NAMES - 6, y)]
        shapes += [
            path([ends[name], (NAMES - 40, y)], QUIET),
            path(sample, LOOKS[name]),
            text(NAMES, y, name, "start"),
        ]
    return svg(WIDTH, BOTTOM + 56, *shapes)


def apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Move names apart that would lie on each other, each group around its middle."""
    groups: list[list[str]] = []
    starts: list[float] = []
    for name in sorted(heights, key=heights.__getitem__):
        group = [name]
        while True:
            middle = sum(heights[x] for x in group) / len(group)
            start = middle - LINE * (len(group) - 1) / 2
            start = max(TOP, min(start, BOTTOM - LINE * (len(group) - 1)))
            if not groups or starts[-1] + LINE * len(groups[-1]) <= start:
                break
            group = groups.pop() + group
            starts.pop()
        groups.append(group)
        starts.append(start)
    return {
        name: start + LINE * i
        for group, start in zip(groups, starts, strict=True)
        for i, name in enumerate(group)
    }


def on_ground(x: float, y: float, words: str, anchor: str) -> list[str]:
    """Write on the page's ground, which hides the lines behind the words."""
    ground = 'stroke="var(--color-background-primary)" stroke-width="6"'
    written = text(x, y, words, anchor)
    return [written.replace("<text ", f'<text {ground} stroke-linejoin="round" '), written]


def seconds(cell: str) -> float:
    """Return the time that a cell says: "17.5 µs"."""
    number, unit = cell.split()
    return float(number) * UNITS[unit]


def duration(time: float) -> str:
    """Write a time in the largest unit of which there is one."""
    unit = next(
        unit for unit in ("s", "ms", "µs") if time >= 0.999 * UNITS[unit] or unit == "µs"
    )
    return f"{time / UNITS[unit]:,.3g} {unit}"
