"""Tables of the benchmarks, which `python -m benchmarks --save FILE` has written.

What a page says of a measurement is read from benchmarks/results, and none of it is typed.
"""

import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from curves import graph, pool
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("results", Results)
    app.add_directive("curve", Curve)
    app.add_directive("block-size", BlockSize)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Table(NamedTuple):
    """A saved table."""

    path: Path
    machine: list[str]
    title: str
    columns: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column, the uppermost first."""
        if name not in self.columns:
            msg = f"results: {self.title!r} must have a column {name!r}; got {self.columns}"
            raise ExtensionError(msg)
        return [row[self.columns.index(name)] for row in self.rows]


def read(name: str, folder: Path = FOLDER) -> Table:
    """Return a table out of the one file that has it."""
    found = []
    for path in sorted(folder.glob("*.json")):
        saved = json.loads(path.read_text(encoding="utf-8"))
        if name in saved["tables"]:
            found.append(Table(path, saved["machine"], **saved["tables"][name]))
    if len(found) != 1:
        places = ", ".join(table.path.name for table in found) or "none"
        msg = f"results: one file of {folder} must have the table {name!r}; got {places}. "
        msg += "python -m benchmarks --save FILE writes it"
        raise ExtensionError(msg)
    return found[0]


class Saved(Directive):
    """Something made of a saved table, and made again when that changes."""

    required_arguments = 1

    def table(self, name: str) -> Table:
        """Read a table."""
        table = read(name)
        self.state.document.settings.env.note_dependency(str(table.path))
        return table


class Results(Saved):
    """A table by its name, with its title above, and below what it was measured on."""

    def run(self) -> list[nodes.Node]:
        """Write it; each cell knows its column, which a phone shows beside it."""
        table = self.table(self.arguments[0])
        head = "".join(
            f'<th scope="col">{html.escape(name)}</th>' for name in table.columns
        )
        body = "".join(f"<tr>{self.cells(table.columns, row)}</tr>" for row in table.rows)
        # The titles are written for a terminal, with the marks of code.
        title = re.sub("`(.*?)`", r"<code>\1</code>", html.escape(table.title))
        machine = "\n".join(map(html.escape, table.machine))
        written = (
            f'<div class="results"><table class="docutils"><caption>{title}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            "<details><summary>What it was measured on</summary>"
            f"<pre>{machine}</pre></details></div>"
        )
        return [nodes.raw("", written, format="html")]

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
    """A table as a picture, with a caption, which is also what a screen reader says."""

    has_content = True
    curves: ClassVar[dict[str, Callable[[Callable[[str], list[str]]], str]]] = {
        "pool": pool,
        "graph": graph,
    }

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        name = self.arguments[0]
        drawing, caption = (
            self.curves[name](self.table(name).column),
            " ".join(self.content),
        )
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


def power(number: float) -> str:
    """Write a power of ten."""
    return "10" + f"{math.log10(number):.0f}".translate(
        str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    )
