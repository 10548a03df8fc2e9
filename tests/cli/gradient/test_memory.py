"""The plan of the command, and the memory that it predicts and takes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from pullback._cli.gradient import files, heap
from pullback.dask._plan import REUSED_BYTES
from tests.harness.gradient_command import FILL, check, fault, finish, gradient, left, ones, rows, save, start, to_zarr


def test_plan() -> None:
    save(m=3_000, shape=(2, 5))
    result = gradient("--plan", "--block-rows", "1000", "--workers", "2", "--wrt", "w,b")
    assert (result.status, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    table = rows(result.stdout)
    assert table.pop("memory").endswith("iB of 1.00 GiB")
    assert table == {
        # Small blocks go several to a task.
        "blocks": "1",
        "rows a block": "3,000",
        "tasks": "1",
        "read": "187.56 kiB",
        "written": "72 B",
        "operations": f"{2 * 6_000 * 5 * 3 + 6_000 * 3:,}",
    }
    assert left() == set()


def test_memory_decides_the_blocks() -> None:
    ones("z.zarr", (4_000_000, 128), (1_000, 128))
    ones("da.zarr", (4_000_000, 64), (1_500, 64))
    np.save("w.npy", np.ones((128, 64), "f4"))
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    plans = {
        size: rows(gradient(FILL, "--plan", "--workers", "2", "--memory", size, **files).stdout)
        for size in ("1GiB", "110_000_000", "90MB")
    }
    sizes = [int(table["rows a block"].replace(",", "")) for table in plans.values()]
    # 32 MiB are 43,690 rows, and 3,000 the least that split no chunk of either.
    assert sizes[0] == 42_000
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(size % 3_000 == 0 for size in sizes)
    needed = float(plans["110_000_000"]["memory"].split()[0]) * 2**20
    assert 0.9 * 110e6 < needed <= 110e6


@pytest.mark.parametrize("options", [(), ("--block-rows", "60000")], ids=["chosen", "given"])
def test_memory_is_too_small(options: tuple[str, ...]) -> None:
    save(m=60_000, shape=(64,), n=8)
    more = ["--workers", "2", *options]
    result = gradient(*more, "--memory", "1MB")
    fault(
        result, 2, "with 2 at a time" if not options else "60,000 rows", "--memory allows 0.95 MiB", "is the smallest"
    )
    assert ("fewer --workers (now 2)" in result.stderr) == (not options)
    assert ("a smaller --block-rows" in result.stderr) == bool(options)
    smallest = int(result.stderr.split("--memory ")[2].split("MiB")[0])
    assert gradient(*more, "--memory", f"{smallest - 1}MiB").status == 2
    assert left() == set()
    assert gradient(*more, "--memory", f"{smallest}MiB").status == 0
    check("dz", "dw", "db")


def test_memory_stays_within_its_limit() -> None:
    # 1.8 GB that take no room, and a limit of 120 MB.
    ones("z.zarr", (6_000_000, 64), (10_000, 64))
    ones("da.zarr", (6_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    more = [FILL, "--workers", "2", "--memory", "120MB", "--wrt", "w,b"]
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    before, after = (finish(start(*more, *plan, **files)) for plan in (["--plan"], []))
    assert (before.status, after.status) == (0, 0)
    took = [int(result.stdout.split()[-1]) * 1024 for result in (before, after)]
    assert took[1] - took[0] < 120e6
    db: Any = zarr.open_array("out.zarr/db", mode="r")
    assert db[...].tolist() == [6_000_000] * 8


def test_blocks_do_not_depend_on_the_number_of_workers() -> None:
    ones("z.zarr", (1_000_000, 128), (1_000, 128))
    ones("da.zarr", (1_000_000, 64), (1_000, 64))
    np.save("w.npy", np.ones((128, 64), "f4"))
    plans = [gradient(FILL, "--plan", "--workers", n, z="z.zarr", upstream="da.zarr").stdout for n in ("1", "3", "7")]
    assert len({rows(plan)["blocks"] for plan in plans}) == 1


def test_blocks_follow_the_larger_array_where_chunks_do_not_fit() -> None:
    save(m=30_000, shape=(128,), n=4)
    to_zarr("z", chunks=(1_000, 128))
    to_zarr("da", chunks=(999, 4))
    options = ["--workers", "1", "--memory", "50MB"]
    table = rows(gradient(*options, "--plan", z="z.zarr", upstream="da.zarr").stdout)
    assert int(table["rows a block"].replace(",", "")) % 1_000 == 0
    assert int(table["blocks"]) > 1
    assert gradient(*options, z="z.zarr", upstream="da.zarr").status == 0
    check("dz", "dw", "db")


def test_freed_memory_goes_back_where_the_system_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    library = SimpleNamespace(mallopt=lambda *limit: calls.append(limit))
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    heap.return_freed_memory()
    assert calls == [(-3, REUSED_BYTES), (-1, heap.HELD_BYTES)]
    del library.mallopt
    heap.return_freed_memory()
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({"compressors": None}, 1),
        ({}, 2),
        ({"compressors": zarr.codecs.GzipCodec()}, 3),
        ({"zarr_format": 2, "compressors": numcodecs.Blosc(), "filters": [numcodecs.Shuffle(4)]}, 3),
    ],
    ids=["plain", "compressed", "in pieces", "filtered"],
)
def test_plan_counts_what_codecs_hold(options: dict[str, Any], copies: int) -> None:
    np.save("z.npy", np.random.default_rng(0).integers(0, 2**31, (1_000, 8), "i4").view("f4"))
    to_zarr("z", chunks=(100, 8), **options)
    file = files.open_file(Path("z.zarr"))
    chunk = 100 * 8 * 4
    # Random bits compress to about what they were.
    assert file.reading_bytes(100) == pytest.approx(copies * chunk, rel=0.05)
    assert file.reading_bytes(1_000) == pytest.approx(10 * copies * chunk, rel=0.05)
    assert file.held_bytes(1_000, 10) == 1_000 * 8 * 4


def test_plan_counts_small_chunks_as_kept() -> None:
    """The threads that decode them do not give their memory back before the block is computed."""
    rng = np.random.default_rng(0)
    np.save("z.npy", rng.integers(0, 2**31, (40_000, 128), "i4").view("f4"))
    np.save("da.npy", np.ones((40_000, 4), "f4"))
    np.save("w.npy", np.ones((128, 4), "f4"))
    took = []
    for rows_of_chunk in (40_000, 4_000):
        to_zarr("z", chunks=(rows_of_chunk, 128), overwrite=True)
        table = rows(gradient("--plan", "--workers", "1", "--block-rows", "40000", z="z.zarr").stdout)
        took.append(float(table["memory"].split()[0]) * 2**20)
    # Reading takes as much as computing here, dz and its compressed copy.
    assert took[1] - took[0] == pytest.approx(files.open_file(Path("z.zarr")).reading_bytes(40_000), rel=0.01)


def test_plan_counts_whole_shards() -> None:
    np.save("z.npy", np.random.default_rng(0).integers(0, 2**31, (1_000, 8), "i4").view("f4"))
    to_zarr("z", chunks=(10, 8), shards=(500, 8))
    assert files.open_file(Path("z.zarr")).reading_bytes(500) == pytest.approx((500 + 100) * 8 * 4, rel=0.2)
