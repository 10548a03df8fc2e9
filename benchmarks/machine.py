"""Where the numbers come from: processor, versions, BLAS and threads."""

import os
import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def share_threads(peers: Collection[str]) -> None:
    """Give PyTorch as many threads as NumPy's BLAS has, which it does by itself only where nobody has set either."""
    if "torch" in peers:
        import torch  # noqa: PLC0415 - not there for every peer

        torch.set_num_threads(threads())


@contextmanager
def one_thread(peers: Collection[str]) -> Iterator[None]:
    """Have NumPy's BLAS and PyTorch compute on one thread; XLA cannot be told to."""
    try:
        with threadpool_limits(1, user_api="blas"):
            share_threads(peers)
            yield
    finally:
        share_threads(peers)


def describe(peers: Collection[str]) -> Iterator[str]:
    """Yield one line for each thing that the numbers depend on."""
    yield f"machine   {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    # A BLAS whose threads wait for a busy core stalls for milliseconds: times mean little on a machine that works.
    yield f"load      {os.getloadavg()[0]:.1f} processes running on average over the last minute: 0 is best"
    names = ["numpy", *(DISTRIBUTIONS.get(name, name) for name in peers)]
    yield f"software  Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}"
    yield f"NumPy     {_blas()}; so have the peers that are written in it"
    if "torch" in peers:
        yield _torch()
    if "jax" in peers:
        yield f"JAX       XLA on the CPU, a thread for each of {os.cpu_count()} cores"


def threads() -> int:
    """Return the threads of NumPy's BLAS, which all peers are to have."""
    return max((pool["num_threads"] for pool in _pools()), default=os.cpu_count() or 1)


def _processor() -> str:
    """Return the processor's name, which `platform` does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _pools() -> list[dict[str, Any]]:
    """Return the thread pools of NumPy's BLAS, and of SciPy's where a peer has loaded it; PyTorch has its own."""
    pools = threadpool_info()
    return [pool for pool in pools if pool["user_api"] == "blas" and "torch" not in Path(pool["filepath"]).parts]


def _blas() -> str:
    """Return library, version, kernel and threads of NumPy's BLAS."""
    loaded = [
        f"{pool['internal_api']} {pool['version']}, {pool.get('architecture', 'unnamed')} kernel, "
        f"{pool['num_threads']} threads"
        for pool in _pools()
    ]
    if loaded:
        return "; ".join(loaded)
    # Not every BLAS can be asked about its threads (Apple's cannot).
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{built['name']} {built['version']}, threads not known"


def _torch() -> str:
    """Return the library of PyTorch's products: most wheels carry it inside, where nothing else can see it."""
    import torch  # noqa: PLC0415

    settings = torch.__config__.show()
    lines = (line.strip(" -").partition(" for ")[0] for line in settings.splitlines() if "Math Kernel" in line)
    return f"PyTorch   {next(lines, 'BLAS not named')}, {torch.get_num_threads()} threads"
