"""The plan of the command, and the memory that it predicts and takes."""

from typing import Any

import numpy as np
import pytest
import zarr

from tests.harness.gradient_command import FILL, check, fault, finish, gradient, left, ones, rows, save, start


def test_plan() -> None:
    save(m=3_000, shape=(2, 5))
    result = gradient("--plan", "--block-rows", "1000", "--workers", "2", "--wrt", "w,b")
    assert (result.status, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    table = rows(result.stdout)
    assert table.pop("memory").endswith(" MiB of 1.00 GiB")
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
    ones("z.zarr", (1_000_000, 128), (1_000, 128))
    ones("da.zarr", (1_000_000, 64), (1_500, 64))
    np.save("w.npy", np.ones((128, 64), "f4"))
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    plans = {
        size: rows(gradient(FILL, "--plan", "--workers", "2", "--memory", size, **files).stdout)
        for size in ("1GiB", "180_000_000", "110MB")
    }
    sizes = [int(table["rows a block"].replace(",", "")) for table in plans.values()]
    # 32 MiB are 43,690 rows, and 3,000 the least that split no chunk of either.
    assert sizes[0] == 42_000
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(size % 3_000 == 0 for size in sizes)
    needed = float(plans["180_000_000"]["memory"].split()[0]) * 2**20
    assert 0.9 * 180e6 < needed <= 180e6


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
