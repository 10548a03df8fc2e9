"""Write the benchmark results into the README, from the saved runs: ``python -m benchmarks.readme``."""

import re
import textwrap
from pathlib import Path

from benchmarks.saved import machine, rows

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- what follows is written by: python -m benchmarks.readme -->\n"
END = "<!-- end of what is written -->\n"
WIDTH = 120


def lines() -> list[str]:
    """Return the lines: the machines, and one bullet each for speed, where it is slower, accuracy and large batches."""
    parts = "affine", "accuracy", "pool", "scale", "tape"
    machines = sorted({machine(part)[0].removeprefix("machine").strip() for part in parts})
    paragraphs = (f"Measured on {' and '.join(machines)}:", _speed(), _slower(), _accuracy(), _larger_than_memory())
    head, *bullets = (textwrap.wrap(said, WIDTH, subsequent_indent="  ") for said in paragraphs)
    return [*head, "", *(line for bullet in bullets for line in bullet)]


def _speed() -> str:
    """Return the geometric means, and the ratios of small calls."""
    mean = {row["peer"]: row["mean"] for row in rows("affine", "means")}
    small = {row["peer"]: row["median"] for row in rows("affine", "small")}
    return (
        f"- **Speed.** {mean['NumPy']} times as fast as plain NumPy and {mean['PyTorch']} times as fast as PyTorch, by "
        "the geometric mean over all shapes, dtypes and directions. Forward and backward of 8 × 8 matrices are "
        f"{small['PyTorch']} times as fast as PyTorch's tape and {small['HIPS autograd']} times as fast as HIPS "
        "autograd."
    )


def _slower() -> str:
    """Return the least ratios of all shapes, and what recording a function costs."""
    least = {row["peer"]: row["least"] for row in rows("affine", "means")}
    small = {row["peer"]: row["median"] for row in rows("affine", "small")}
    by_hand = [
        f"{row['median']} times for the {row['program'].partition(',')[0]}"
        for row in rows("tape", "tape")
        if row["times compared"] == "pullback / NumPy by hand"
    ]
    return (
        f"- **Where it is slower.** Forward and backward of 8 × 8 matrices are {small['NumPy']} times as fast as plain "
        f"NumPy. The least ratio of any shape is {least['NumPy']} to NumPy, {least['PyTorch']} to PyTorch and "
        f"{least['JAX']} to JAX. `value_and_grad` takes longer than a gradient written by hand in NumPy: "
        f"{', '.join(by_hand[:-1])} and {by_hand[-1]}."
    )


def _accuracy() -> str:
    """Return the errors of the longest batch."""
    row = rows("accuracy", "accuracy 64 x 64")[-1]
    errors = ", and of ".join(
        f"{row[f'{name}, pullback']} in {name}, where NumPy's is {row[f'{name}, NumPy']} and PyTorch's "
        f"{row[f'{name}, PyTorch']}"
        for name in ("dw", "db")
    )
    return f"- **Accuracy.** The float32 gradients of {row['m']} rows, 64 → 64, have an error of {errors}."


def _larger_than_memory() -> str:
    """Return the times relative to the thread pool, and the memory of the command."""
    (blocks, first), *others = ((row["blocks"], row["median"]) for row in rows("pool", "pool"))
    more = " and ".join(f"{ratio} times at {blocks}" for blocks, ratio in others)
    command = rows("scale", "command")[-1]
    return (
        f"- **Larger than memory.** `pullback.dask` takes {first} times as long as a hand-written thread pool at "
        f"{blocks} blocks, {more}. `pullback gradient` has a peak of {command['peak, MiB']} MiB, the interpreter's "
        f"own memory excluded, for an input of {command['input, GB']} GB."
    )


def main() -> None:
    """Write the lines into the README."""
    path = ROOT / "README.md"
    pattern = f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})"
    written = "".join(f"{line}\n" for line in ("", *lines(), ""))
    path.write_text(re.sub(pattern, lambda _: written, path.read_text(encoding="utf-8"), flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
