"""Tables of the benchmarks, which `python -m benchmarks --save FOLDER` has written.

What a page says of a measurement is read from benchmarks/results, and none of it is typed.
"""

import html
import re
from collections.abc import Callable
from typing import Any

from benchmarks import readme
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from charts import accuracy, graph, pool, speed
from diagrams import accumulate, levels, pair, record
from drawing import svg
from fits import deconvolution, threshold
from saved import Table, read

# Each picture: its function, the tables that it draws, other arguments, and its height in inches.
PICTURES: dict[str, tuple[Callable[..., None], tuple[str, ...], tuple[str, ...], float]] = {
    "pair": (pair, (), (), 3.67),
    "accumulate": (accumulate, (), (), 3.44),
    "record": (record, (), (), 1.5),
    "levels": (levels, (), (), 3.67),
    "threshold": (threshold, (), (), 3.4),
    "deconvolution": (deconvolution, (), (), 3.4),
    "pool": (pool, ("pool",), (), 3.6),
    "graph": (graph, ("graph",), (), 3.6),
    "speed": (speed, ("affine float32", "affine float64", "means"), (), 4.6),
    "speed beside advect": (
        speed,
        tuple(f"{name} beside advect" for name in ("affine float32", "affine float64", "means")),
        (),
        3.2,
    ),
    **{f"accuracy of {name}": (accuracy, ("accuracy 64 x 64",), (name,), 3.8) for name in ("dw", "db")},
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("results", Results)
    app.add_directive("summary", Summary)
    app.add_directive("picture", Picture)
    app.add_directive("block-size", BlockSize)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Saved(Directive):
    """A part of a page that is written from a saved table, and rebuilt when that changes."""

    required_arguments = 1
    final_argument_whitespace = True

    def table(self, name: str) -> Table:
        """Read a table."""
        table = read(name)
        self.state.document.settings.env.note_dependency(str(table.path))
        return table


class Results(Saved):
    """A table by its name: its title above, the machine below; a wide one scrolls sideways."""

    def run(self) -> list[nodes.Node]:
        """Write it."""
        name = self.arguments[0]
        table = self.table(name)
        columns, *rows = (self.joined(table.columns, row) for row in (table.columns, *table.rows))
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        # What is in brackets has a line of its own.
        body = re.sub(r" (\([^()]*\))</td>", r" <small>\1</small></td>", body)
        # The titles are written for a terminal, with the marks of code.
        title = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(table.title))
        machine = "\n".join(map(html.escape, table.machine))
        written = (
            f'<div class="results"><p class="title">{title}</p>'
            f'<div class="scrolled" role="region" aria-label="{html.escape(name)}" tabindex="0">'
            f'<table class="docutils"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
            "<details><summary>Machine and versions</summary>"
            f"<pre>{machine}</pre></details></div>"
        )
        return [nodes.raw("", written, format="html")]

    @staticmethod
    def joined(columns: list[str], row: list[str]) -> list[str]:
        """Put a second column that has no name into the first, which is always in sight."""
        if columns[1]:
            return row
        first, second, *others = row
        return [f"{first} {second}".rstrip(), *others]


class Summary(Directive):
    """The lines of the README on speed, accuracy and batches larger than memory."""

    def run(self) -> list[nodes.Node]:
        """Write them."""
        written = nodes.Element()
        self.state.nested_parse(StringList(readme.lines(), source=readme.__name__), 0, written)
        return written.children


class Picture(Saved):
    """A picture by its name, with a caption, which a screen reader reads too."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        name = self.arguments[0]
        draw, tables, values, height = PICTURES[name]
        drawing = svg(name, draw, *map(self.table, tables), *values, height=height)
        caption = nodes.caption()
        self.state.nested_parse(self.content, self.content_offset, caption)
        figure = nodes.raw("", f'<figure class="picture">{drawing}<figcaption>', format="html")
        return [
            figure,
            *caption.children,
            nodes.raw("", "</figcaption></figure>", format="html"),
        ]


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
            f" to do. Of {rows:,.0f} rows, a block then has {rows / blocks:,.0f}, and"
            f" their work should take much longer than the {build + threads:,.0f} µs that"
            " a block costs."
        )
        return [nodes.paragraph("", said)]
