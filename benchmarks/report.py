"""What a benchmark hands over, and how it is printed."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A line of a table, and whether its number meets the bound in it; None where there is no bound."""

    cells: tuple[str, ...]
    holds: bool | None

    @property
    def written(self) -> tuple[str, ...]:
        """The cells, and in the last column, `holds`, whether the number meets its bound."""
        return *self.cells, {True: "yes", False: "NO", None: "–"}[self.holds]


@dataclass(frozen=True)
class Section:
    """A table of `length` rows, which are measured while it is printed."""

    name: str
    """What the results are saved under, and beside which peers where the run is not the main one."""
    title: str
    columns: tuple[str, ...]
    rows: Iterator[Row]
    length: int


def as_table(section: Section, rows: list[Row]) -> dict[str, object]:
    """Return a section and its rows in the form in which they are saved."""
    return {"title": section.title, "columns": (*section.columns, "holds"), "rows": [row.written for row in rows]}


def show(section: Section, console: Console) -> list[Row]:
    """Measure and print a section; return its rows."""
    table = Table(*section.columns, "holds", title=section.title, title_justify="left", title_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = []
    progress = Console(stderr=True)
    for row in track(section.rows, section.title.split(":")[0], section.length, console=progress, transient=True):
        table.add_row(*row.written, style="bold red" if row.holds is False else "")
        rows.append(row)
    console.print(table)
    console.print()
    return rows


def sizes(m: int, k: int, n: int) -> str:
    """Write the sizes of an affine map, by which its row in a saved table is found again."""
    return f"({m:,}, {k:,}, {n:,})"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    unit, factor = next(
        ((unit, factor) for unit, factor in (("s", 1), ("ms", 1e3)) if seconds * factor >= 1), ("µs", 1e6)
    )
    return f"{seconds * factor:.3g} {unit}"
