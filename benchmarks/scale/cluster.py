"""A cluster of two workers, whose memory a batch outgrows."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

from benchmarks.report import Row, Section
from benchmarks.scale.files import ROW_BYTES, K, N, seconds, write_zarr
from pullback import affine_backward
from pullback.dask import accumulate, compute

BYTES = 4_000_000_000
WORKER_BYTES = 600_000_000
MOVED = 0.02
step = partial(affine_backward, wrt=("w", "b"))


def section(*, quick: bool) -> Section:
    """Return the table; a quick one is of a tenth of the rows."""
    return Section(
        name="cluster",
        title=f"Cluster of two workers of {WORKER_BYTES // 10**6} MB, from Zarr",
        columns=("input, GB", "", "seconds", "moved / input", "workers lost", "bound"),
        rows=_rows(BYTES // 10 if quick else BYTES),
        length=2,
    )


def _rows(size: int) -> Iterator[Row]:
    """Compare plain expressions and the library on a cluster."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - starts threads of its own

    with tempfile.TemporaryDirectory(prefix="pullback-") as name:
        folder = Path(name)
        for part, n in (("z", K), ("da", N)):
            write_zarr(folder / part, size // ROW_BYTES, n)
        calls: dict[str, Callable[[], object]] = {
            "ours": partial(_ours, folder),
            "plain expressions": partial(_plain, folder),
        }
        for title, call in calls.items():
            with (
                LocalCluster(
                    n_workers=2, threads_per_worker=1, memory_limit=WORKER_BYTES, dashboard_address=":0"
                ) as cluster,
                Client(cluster) as client,
            ):
                first = set(client.run(_received))
                took = seconds(call)
                received = client.run(_received)
                lost = len(first - set(received))
                moved = sum(received.values()) / size
            cells = (f"{size / 1e9:g}", title, f"{took:.1f}", f"{moved:.4f}", str(lost))
            if title == "ours":
                yield Row((*cells, f"≤ {MOVED}; 0"), holds=moved <= MOVED and lost == 0)
            else:
                yield Row((*cells, "none"), holds=None)


def _received(dask_worker: Any) -> int:
    """Return the bytes that other workers sent to this one."""
    total: int = (
        dask_worker.transfer_incoming_bytes_total
        if hasattr(dask_worker, "transfer_incoming_bytes_total")
        else sum(entry["total"] for entry in dask_worker.transfer_incoming_log)
    )
    return total


def _ours(folder: Path) -> None:
    """Compute dw and db."""
    z, upstream = (da.from_zarr(folder / name) for name in ("z", "da"))
    compute(*accumulate(step, upstream, z, shared=(np.ones((K, N), np.float32),))[1:])


def _plain(folder: Path) -> None:
    """Compute dw and db as array code writes them."""
    z, upstream = (da.from_zarr(folder / name) for name in ("z", "da"))
    dask.compute(z.T @ upstream, upstream.sum(axis=0))
