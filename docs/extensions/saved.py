"""What the benchmarks have saved: tables, each in one file of benchmarks/results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sphinx.errors import ExtensionError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"


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
        msg += "python -m benchmarks --save=benchmarks/results writes it"
        raise ExtensionError(msg)
    return found[0]


def numbers(cells: Sequence[str]) -> list[float]:
    """Return the numbers that cells begin with: "8,000", "≤ 1.25", "= 1.0 (0.9 to 1.1)"."""
    return [float(cell.lstrip("≤≥= ").split()[0].rstrip(";").replace(",", "")) for cell in cells]


def is_number(cell: str) -> bool:
    """Return whether a cell is a number."""
    return cell.replace(",", "").replace(".", "", 1).isdigit()
