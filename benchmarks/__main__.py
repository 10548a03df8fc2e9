"""Measure speed, accuracy and memory, compared with other libraries and with bounds: ``python -m benchmarks``."""

import argparse
import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PARTS = ("affine", "accuracy", "consumers", "digits", "losses", "memory", "plan", "pool", "scale", "tape")
# Compares with the saved run; run before each change.
GUARD = "guard"
# Needs a GPU.
GPU = "gpu"
# The parts that measure peers.
COMPARING = {"affine", "accuracy", "losses", "memory", "tape"}
PEERS = ("torch", "jax", "autograd", "dask")
# All parts need these, and some of them more.
NEEDED = ("numpy", "pullback", "rich", "threadpoolctl")
NEEDED_MORE = {
    GPU: ("cupy", "dask", "jax", "torch"),
    "consumers": ("array_api_extra", "array_api_strict", "einops", "pytest", "scipy", "sklearn", "torch"),
    "digits": ("mparray", "mpmath"),
    "plan": ("dask", "zarr"),
    "pool": ("dask", "zarr"),
    "scale": ("dask", "distributed", "sklearn", "typer", "zarr"),
}
# OpenBLAS reads these when NumPy loads it. A kernel or a cache size that is not the machine's slows NumPy down, the
# plain expressions and ours, but not to the same degree.
MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
# Idle threads of OpenBLAS wait so many cycles, as a power of two, before they sleep. By themselves they would take a
# core from the library whose turn comes next for a tenth of a second, and PyTorch would wait for its own threads.
WAIT = "OPENBLAS_THREAD_TIMEOUT", "24"
# SciPy reads this when it is loaded: without it, it converts all arrays to NumPy's.
DISPATCH = "SCIPY_ARRAY_API", "1"


def main() -> int:
    """Run the benchmarks; return 0 where every number holds, 1 where one does not, 2 where they cannot run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed, accuracy and memory, compared with other libraries in one process, and print each "
        "number with its bound. Exits with 1 when a number misses its bound. All of it takes most of an hour, and "
        "30 GB of disk for the part `scale`.",
    )
    parser.add_argument("--quick", action="store_true", help="batches of up to 10⁶ rows, few samples of each time")
    parser.add_argument(
        "--only", action="append", choices=(*PARTS, GUARD, GPU), help="one part; may be given several times"
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=(*PEERS, "advect"),
        help="a library to compare with; may be given several times (all but advect, which has no wheels for the "
        "Python that PyTorch is installed on)",
    )
    parser.add_argument("--save", metavar="FOLDER", type=Path, help="write each part's results to a JSON file, too")
    options = parser.parse_args()
    parts = tuple(dict.fromkeys(options.only or PARTS))
    peers = tuple(dict.fromkeys(options.peer or PEERS)) if COMPARING.intersection(parts) else ()
    needed = {*NEEDED, *peers, *(name for part in parts for name in NEEDED_MORE.get(part, ()))}
    missing = sorted(name for name in needed if find_spec(name) is None)
    if missing:
        parser.exit(
            2,
            f'cannot import {", ".join(missing)}; pip install -e ".[demo,cluster]" --group bench --group consumers '
            "--group test installs them\n",
        )
    unset = [f"{name}={os.environ.pop(name)}" for name in MISLEADING if name in os.environ]
    os.environ.setdefault(*WAIT)
    if "consumers" in parts:
        os.environ.setdefault(*DISPATCH)
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    return _run(parts, peers, unset, options.save, quick=options.quick)


def _run(parts: tuple[str, ...], peers: tuple[str, ...], unset: list[str], save: Path | None, *, quick: bool) -> int:
    """Print the machine and the tables; return the exit status."""
    # Here and not above: NumPy must not be loaded before the environment is right.
    from rich.console import Console  # noqa: PLC0415

    from benchmarks import machine  # noqa: PLC0415
    from benchmarks.peers import apart  # noqa: PLC0415
    from benchmarks.report import as_table, show  # noqa: PLC0415

    # A pipe has no width: tables that wrap at 80 columns are hard to read in a log.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    machine.share_threads(peers)
    described = list(machine.describe(peers))
    described.append(f"threads   {WAIT[0]}={os.environ[WAIT[0]]}, for OpenBLAS to leave the cores to the next library")
    if unset:
        described.append(f"note      removed from the environment, for they slow NumPy down: {', '.join(unset)}")
    if quick:
        described.append("note      quick: batches of up to 10⁶ rows, and few samples of each time")
    console.print(*described, "", sep="\n")
    held = []
    for part in parts:
        named_after = apart(peers) if part in COMPARING else ()
        beside = f" beside {', '.join(named_after)}" if named_after else ""
        tables = {}
        module = import_module(f"benchmarks.{part}")
        if part == GPU:
            more = list(module.described())
            console.print(*more, "", sep="\n")
            described += more
        for section in module.sections(peers, quick=quick):
            rows = show(section, console)
            tables[section.name + beside] = as_table(section, rows)
            held += [row.holds for row in rows if row.holds is not None]
        if save:
            name = "-".join((part, *named_after))
            written = json.dumps({"machine": described, "tables": tables}, indent=1, ensure_ascii=False)
            (save / f"{name}.json").write_text(written + "\n", encoding="utf-8")
    console.print(f"{sum(held)} of {len(held)} bounds hold", style="bold green" if all(held) else "bold red")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
