"""The README's lines of benchmarks, out of the saved results: ``python -m benchmarks.readme`` rewrites them."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- what follows is written by: python -m benchmarks.readme -->\n"
END = "<!-- end of what is written -->\n"
WIDTH = 120


def lines() -> list[str]:
    """Return the lines: the machine, and a bullet each for speed, accuracy and batches larger than memory."""
    speed, accuracy, scale = (_load(part) for part in ("affine", "accuracy", "scale"))
    machines = sorted({saved["machine"][0].removeprefix("machine").strip() for saved in (speed, accuracy, scale)})
    paragraphs = (f"Measured on {' and '.join(machines)}:", _speed(speed), _accuracy(accuracy), _scale(scale))
    head, *bullets = (textwrap.wrap(said, WIDTH, subsequent_indent="  ") for said in paragraphs)
    return [*head, "", *(line for bullet in bullets for line in bullet)]


def _speed(saved: dict[str, Any]) -> str:
    """Say the geometric means, and what small calls cost."""
    means, small = _rows(saved, "means"), _rows(saved, "small")
    return (
        f"- **Speed.** Plain NumPy takes {means['NumPy']['mean']} times our time, and PyTorch "
        f"{means['PyTorch']['mean']} times, by the geometric mean over all shapes, dtypes and directions. Forward and "
        f"backward of 8 × 8 matrices take PyTorch's tape {small['PyTorch']['median']} times our time, and HIPS autograd "
        f"{small['HIPS autograd']['median']} times."
    )


def _accuracy(saved: dict[str, Any]) -> str:
    """Say the errors of the longest batch."""
    rows = _rows(saved, "accuracy 64 x 64")
    m, row = list(rows.items())[-1]
    errors = (
        f"{row[f'{name}, pullback']} in {name}, where NumPy has {row[f'{name}, NumPy']} and PyTorch "
        f"{row[f'{name}, PyTorch']}"
        for name in ("dw", "db")
    )
    return f"- **Accuracy.** The float32 gradients of {m} rows of 64 → 64 have an error of {'; '.join(errors)}."


def _scale(saved: dict[str, Any]) -> str:
    """Say the times of the pool, and the memory of the command."""
    pool = _rows(saved, "pool")
    first, *middle, last = ((blocks, row["median"]) for blocks, row in pool.items())
    times = ", ".join(f"{ratio} times at {blocks}" for blocks, ratio in middle)
    gigabytes, command = list(_rows(saved, "command").items())[-1]
    return (
        f"- **Larger than memory.** `pullback.dask` takes {first[1]} times the time of a thread pool written by hand "
        f"at {first[0]} blocks, {times} and {last[1]} times at {last[0]}. `pullback gradient` reads {gigabytes} GB with "
        f"{command['peak, MiB']} MiB at its peak, besides the interpreter's own."
    )


def _load(part: str) -> dict[str, Any]:
    """Return what a part has saved."""
    saved: dict[str, Any] = json.loads((RESULTS / f"{part}.json").read_text(encoding="utf-8"))
    return saved


def _rows(saved: dict[str, Any], name: str) -> dict[str, dict[str, str]]:
    """Return the rows of a table by their first cells, each by its columns."""
    table = saved["tables"][name]
    return {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}


def main() -> None:
    """Write the lines into the README."""
    path = ROOT / "README.md"
    pattern = f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})"
    written = "".join(f"{line}\n" for line in ("", *lines(), ""))
    path.write_text(re.sub(pattern, lambda _: written, path.read_text(encoding="utf-8"), flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
