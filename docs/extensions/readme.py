"""Draw the picture of the README from the saved benchmarks: ``python docs/extensions/readme.py``."""

import hashlib
from pathlib import Path

from charts import accuracy
from drawing import ALONE, svg
from saved import Table, read

PICTURE = Path(__file__).parents[1] / "static" / "float32-error.svg"


def comment(table: Table) -> str:
    """Return a comment that changes with the numbers, by which a test sees that the picture is old."""
    return f"<!-- drawn from numbers with the digest {hashlib.sha256(repr(table[2:]).encode()).hexdigest()} -->\n"


def main() -> None:
    """Write the picture."""
    table = read("accuracy 64 x 64")
    drawing = svg("float32 error", accuracy, table, "dw", height=3.8)
    start, end = len("<svg "), drawing.index(">") + 1
    alone = f'<svg width="560" {drawing[start:end]}\n{ALONE}{drawing[end:]}'
    PICTURE.write_text(comment(table) + alone, encoding="utf-8")


if __name__ == "__main__":
    main()
