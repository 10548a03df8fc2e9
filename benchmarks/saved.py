"""What runs have saved, read again: with the standard library alone, for the README is checked where no more is."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def machine(part: str) -> list[str]:
    """Return the lines on what a part was measured on."""
    lines: list[str] = _load(part)["machine"]
    return lines


def rows(part: str, name: str) -> list[dict[str, str]]:
    """Return the rows of a part's table, each by its columns."""
    table = _load(part)["tables"][name]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _load(part: str) -> Any:
    """Read a part's file."""
    return json.loads((FOLDER / f"{part}.json").read_text(encoding="utf-8"))
