"""Tables of the benchmarks, which `python -m benchmarks --save FOLDER` has written.

What a page says of a measurement is read from benchmarks/results, and none of it is typed.
"""

import html
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from curves import graph, pool
from docutils import nodes
from docutils.parsers.rst import Directive
from peers import accuracy, growth, speed
from plot import power
from saved import Table, read
from sphinx.application import Sphinx

# What draws a picture, and the tables that it is drawn from.
CURVES: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "pool": (pool, ("pool",)),
    "graph": (graph, ("graph",)),
    "speed": (speed, ("affine float32", "affine float64", "means")),
    "speed beside advect": (
        speed,
        (
            "affine float32 beside advect",
            "affine float64 beside advect",
            "means beside advect",
        ),
    ),
    **{f"growth {letter}": (growth, (f"growth {letter}",)) for letter in "mkn"},
    **{
        f"accuracy of {gradient}": (partial(accuracy, gradient), ("accuracy 64 x 64",))
        for gradient in ("dw", "db")
    },
}
# With more columns, a table is scrolled in its own box: as cards, its rows would not end.
NARROW = 8


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("results", Results)
    app.add_directive("curve", Curve)
    app.add_directive("block-size", BlockSize)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Saved(Directive):
    """Something made of a saved table, and made again when that changes."""

    required_arguments = 1
    final_argument_whitespace = True

    def table(self, name: str) -> Table:
        """Read a table."""
        table = read(name)
        self.state.document.settings.env.note_dependency(str(table.path))
        return table


class Results(Saved):
    """A table by its name, with its title above, and below what it was measured on."""

    def run(self) -> list[nodes.Node]:
        """Write it; each cell knows its column, which a phone shows beside it."""
        name = self.arguments[0]
        table = self.table(name)
        columns, rows = table.columns, table.rows
        kind, box = "results", ""
        if len(columns) > NARROW:
            kind = "results wide"
            box = f' role="region" aria-label="{html.escape(name)}" tabindex="0"'
            columns, *rows = (self.joined(columns, row) for row in (columns, *rows))
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
        body = "".join(f"<tr>{self.cells(columns, row)}</tr>" for row in rows)
        if box:
            # What is in brackets has a line of its own.
            body = re.sub(r" (\([^()]*\))</td>", r" <small>\1</small></td>", body)
        # The titles are written for a terminal, with the marks of code.
        title = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(table.title))
        machine = "\n".join(map(html.escape, table.machine))
        written = (
            f'<div class="{kind}"><p class="title">{title}</p><div class="scrolled"{box}>'
            f'<table class="docutils"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
            "<details><summary>What it was measured on</summary>"
            f"<pre>{machine}</pre></details></div>"
        )
        return [nodes.raw("", written, format="html")]

    @staticmethod
    def joined(columns: list[str], row: list[str]) -> list[str]:
        """Put a second column that has no name into the first, which is always in sight."""
        if columns[1]:
            return row
        first, second, *others = row
        return [f"{first} ({second})" if second else first, *others]

    @staticmethod
    def cells(columns: list[str], row: list[str]) -> str:
        """Write a row."""
        named = zip(columns, row, strict=True)
        cells = [
            f'<td data-column="{html.escape(name)}">{html.escape(cell)}</td>'
            for name, cell in named
        ]
        return "".join(cells)


class Curve(Saved):
    """Tables as a picture, with a caption, which is also what a screen reader says."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        draw, names = CURVES[self.arguments[0]]
        drawing, caption = draw(*map(self.table, names)), " ".join(self.content)
        figure = (
            f'<figure class="picture">{drawing}<figcaption>{caption}</figcaption></figure>'
        )
        return [nodes.raw("", figure, format="html")]


class BlockSize(Saved):
    """What the longest graph in the table `graph` costs; its blocks of 10ⁿ rows in all."""

    def run(self) -> list[nodes.Node]:
        """Write the sentences."""
        rows = float(self.arguments[0])
        graph = self.table("graph")
        blocks = int(graph.column("blocks")[-1].split()[0].replace(",", ""))
        build, threads = (float(graph.column(name)[-1]) for name in ("build", "threads"))
        building, running = (x * blocks / 1e6 for x in (build, threads))
        said = (
            f"By these lines, building a graph of {blocks:,} blocks takes {building:,.0f}"
            f" seconds, and running it {running:,.0f} seconds, though no task has anything"
            f" to do. Of {power(rows)} rows, a block then has {rows / blocks:,.0f}, and"
            f" their work should take much longer than the {build + threads:,.0f} µs that"
            " a block costs."
        )
        return [nodes.paragraph("", said)]
