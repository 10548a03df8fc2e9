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
    speed, accuracy, pool, scale = (_load(part) for part in ("affine", "accuracy", "pool", "scale"))
    machines = sorted({saved["machine"][0].removeprefix("machine").strip() for saved in (speed, accuracy, pool, scale)})
    paragraphs = (f"Measured on {' and '.join(machines)}:", _speed(speed), _accuracy(accuracy), _scale(pool, scale))
    head, *bullets = (textwrap.wrap(said, WIDTH, subsequent_indent="  ") for said in paragraphs)
    return [*head, "", *(line for bullet in bullets for line in bullet)]


def _speed(saved: dict[str, Any]) -> str:
    """Say the geometric means, and what small calls cost."""
    mean = {peer: row["mean"] for peer, row in _rows(saved, "means").items()}
    small = {peer: row["median"] for peer, row in _rows(saved, "small").items()}
    return (
        f"- **Speed.** Plain NumPy takes {mean['NumPy']} times our time, and PyTorch {mean['PyTorch']} times, by the "
        "geometric mean over all shapes, dtypes and directions. Forward and backward of 8 × 8 matrices take PyTorch's "
        f"tape {small['PyTorch']} times our time, and HIPS autograd {small['HIPS autograd']} times."
    )


def _accuracy(saved: dict[str, Any]) -> str:
    """Say the errors of the longest batch."""
    m, row = list(_rows(saved, "accuracy 64 x 64").items())[-1]
    errors = (
        f"{row[f'{name}, pullback']} in {name}, where NumPy's is {row[f'{name}, NumPy']} and PyTorch's "
        f"{row[f'{name}, PyTorch']}"
        for name in ("dw", "db")
    )
    return f"- **Accuracy.** The float32 gradients of {m} rows, 64 → 64, have an error of {', and of '.join(errors)}."


def _scale(pool: dict[str, Any], scale: dict[str, Any]) -> str:
    """Say the times beside the pool, and the memory of the command."""
    (blocks, first), *others = ((blocks, row["median"]) for blocks, row in _rows(pool, "pool").items())
    more = " and ".join(f"{ratio} times at {blocks}" for blocks, ratio in others)
    gigabytes, command = list(_rows(scale, "command").items())[-1]
    return (
        "- **Larger than memory.** Beside a thread pool that was written by hand, `pullback.dask` takes "
        f"{first} times as long at {blocks} blocks, {more}. `pullback gradient` holds {command['peak, MiB']} MiB at "
        f"its peak, besides the interpreter's own, for an input of {gigabytes} GB."
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
