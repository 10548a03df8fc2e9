"""Print every number that the project answers for, beside its bound: ``python -m benchmarks``."""

import argparse
import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PARTS = ("accuracy", "speed", "memory", "layers")
# Takes minutes and tens of gigabytes on disk, so that it has to be asked for.
LARGE = "scale"
NEEDED = {
    **dict.fromkeys(PARTS, ("numpy", "rich", "threadpoolctl", "torch", "pullback")),
    "layers": ("autograd", "numpy", "rich", "threadpoolctl", "torch", "pullback"),
    LARGE: ("dask", "distributed", "numpy", "pullback", "rich", "sklearn", "threadpoolctl", "torch", "typer", "zarr"),
}
# OpenBLAS reads these when NumPy loads it. A kernel or a cache size that is not the machine's slows NumPy down, the
# plain expressions and ours, but not to the same degree.
MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def main() -> int:
    """Run the benchmarks; return 0 where every number holds, 1 where one does not, 2 where they cannot run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure accuracy, speed and memory of the affine pair on NumPy, beside NumPy's plain expressions "
        "and PyTorch's, and of layers beside PyTorch and HIPS autograd, and print each number with its bound. "
        "Exits with 1 when a number misses its bound. "
        "`--only scale` measures batches larger than memory, and takes minutes and 30 GB of disk.",
    )
    parser.add_argument("--quick", action="store_true", help="batches of up to 10⁶ rows for accuracy, fewer samples")
    parser.add_argument("--only", action="append", choices=(*PARTS, LARGE), help="one part; may be given several times")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the results to a JSON file, too")
    options = parser.parse_args()
    parts = options.only or PARTS
    missing = sorted({name for part in parts for name in NEEDED[part] if find_spec(name) is None})
    if missing:
        parser.exit(
            2,
            f'cannot import {", ".join(missing)}; pip install -e ".[demo,cluster]" --group bench installs them\n',
        )
    unset = [f"{name}={os.environ.pop(name)}" for name in MISLEADING if name in os.environ]
    return _run(parts, unset, options.save, quick=options.quick)


def _run(parts: list[str] | tuple[str, ...], unset: list[str], save: Path | None, *, quick: bool) -> int:
    """Print the machine and the tables; return the exit status."""
    # Here and not above: NumPy must not be loaded before the environment is right.
    from rich.console import Console  # noqa: PLC0415

    from benchmarks import machine  # noqa: PLC0415
    from benchmarks.report import as_table, show  # noqa: PLC0415

    # A pipe has no width: tables that wrap at 80 columns are hard to read in a log.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    described = list(machine.describe())
    if unset:
        described.append(f"note      removed from the environment, for they slow NumPy down: {', '.join(unset)}")
    if quick:
        described.append("note      quick: batches of up to 10⁶ rows for accuracy, and few samples of each time")
    console.print(*described, "", sep="\n")
    tables, holds = {}, []
    for part in parts:
        for section in import_module(f"benchmarks.{part}").sections(quick=quick):
            rows = show(section, console)
            tables[section.name] = as_table(section, rows)
            holds += [row.holds for row in rows]
    console.print(f"{sum(holds)} of {len(holds)} bounds hold", style="bold green" if all(holds) else "bold red")
    if save:
        results = {"machine": described, "tables": tables}
        save.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
