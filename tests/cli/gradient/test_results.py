"""What the command computes: right for every layout, dtype and choice, and each part read once."""

from collections import Counter
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr

import pullback.dask
from pullback._cli.gradient import files
from tests.harness.gradient_command import arguments, check, finish, gradient, save, start, to_zarr


@pytest.mark.parametrize("shape", [(7,), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("options", [(), ("--block-rows", "300", "--workers", "2")], ids=["chosen", "given"])
def test_result(shape: tuple[int, ...], options: tuple[str, ...]) -> None:
    save(shape=shape)
    result = gradient(*options)
    assert result.stdout.startswith("out.zarr now holds dz, dw, db: 1,000 rows in ")
    assert result.stdout.endswith(" rows/s\n")
    assert (result.status, result.stderr) == (0, "")
    check("dz", "dw", "db")


@pytest.mark.parametrize("order", ["fortran", "big-endian", "wide header"])
def test_npy(order: str) -> None:
    save(shape=(2, 5))
    z = np.load("z.npy")
    if order == "fortran":
        np.save("z.npy", np.asfortranarray(z))
    elif order == "big-endian":
        np.save("z.npy", z.astype(">f4"))
    else:
        with Path("z.npy").open("wb") as file:
            np.lib.format.write_array(file, z, version=(2, 0))
    assert gradient("--block-rows", "300").status == 0
    check("dz", "dw", "db")


@pytest.mark.parametrize("dtype", ["f8", "f2"])
def test_dtype(dtype: str) -> None:
    save(dtype=dtype)
    assert gradient().status == 0
    check("dz", "dw", "db", bound=1e-14 if dtype == "f8" else 1e-3)


@pytest.mark.parametrize(
    "options",
    [{"chunks": (100, 4)}, {"chunks": (10, 7), "shards": (100, 7)}, {"chunks": (100, 7), "zarr_format": 2}],
    ids=["features", "shards", "version 2"],
)
def test_zarr(options: dict[str, Any]) -> None:
    save()
    to_zarr("z", **options)
    result = gradient(z="z.zarr")
    assert (result.status, result.stderr) == (0, "")
    check("dz", "dw", "db")


@pytest.mark.parametrize("wrt", ["z", "b", "w, b"])
def test_wrt(wrt: str) -> None:
    save()
    assert gradient("--wrt", wrt).status == 0
    check(*(f"d{name.strip()}" for name in wrt.split(",")))


def test_zero_rows() -> None:
    save(m=0)
    assert gradient().status == 0
    check("dz", "dw", "db")


def test_nan_and_infinity_are_numbers() -> None:
    save()
    z = np.load("z.npy")
    z[3, 1], z[500, 2] = np.nan, np.inf
    np.save("z.npy", z)
    np.save("da.npy", np.zeros((1_000, 3), "f4"))
    result = gradient()
    assert (result.status, result.stderr) == (0, "")
    dw: Any = zarr.open_array("out.zarr/dw", mode="r")
    np.testing.assert_equal(dw[...], [[0] * 3, [np.nan] * 3, [np.nan] * 3, *[[0] * 3] * 4])


def test_output_says_how_it_was_made() -> None:
    save()
    to_zarr("da", chunks=(100, 3))
    result = finish(start("--block-rows", "500", upstream="da.zarr"))
    assert result.status == 0
    group = zarr.open_group("out.zarr", mode="r")
    dz: Any = group["dz"]
    assert dz.chunks == (500, 7)
    attributes = dict(group.attrs)
    assert attributes["command"] == "pullback " + " ".join(arguments("--block-rows", "500", upstream="da.zarr"))
    modules = {"pullback": pullback, "numpy": np, "dask": dask, "zarr": zarr}
    assert attributes["versions"] == {name: module.__version__ for name, module in modules.items()}
    assert attributes["inputs"] == {
        "z": {"path": str(Path.cwd() / "z.npy"), "shape": [1_000, 7], "dtype": "float32"},
        "upstream": {"path": str(Path.cwd() / "da.zarr"), "shape": [1_000, 3], "dtype": "float32"},
        "weights": {"path": str(Path.cwd() / "w.npy"), "shape": [7, 3], "dtype": "float32"},
    }


@pytest.mark.parametrize("options", [(), ("--block-rows", "600"), ("--block-rows", "30000")], ids=" ".join)
def test_each_part_is_read_once(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    save(m=30_000, shape=(120,))
    to_zarr("z", chunks=(200, 60))
    read: Counter[object] = Counter()
    get, read_rows = zarr.storage.LocalStore.get, files.NpyFile.read

    def count_chunk(store: Any, key: str, *others: Any, **options: Any) -> Any:
        read["/c/" in f"/{key}" and "out.zarr" not in str(store.root) and key] += 1
        return get(store, key, *others, **options)

    def count_rows(array: Any, file: Any, *where: Any) -> Any:
        first, start, stop, _ = where
        read.update((array.path.name, first + row) for row in range(start, stop))
        return read_rows(array, file, *where)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", count_chunk)
    monkeypatch.setattr(files.NpyFile, "read", count_rows)
    assert gradient(*options, z="z.zarr").status == 0
    del read[False]
    assert len(read) == 2 * 150 + 30_000 + 120
    assert set(read.values()) == {1}
    check("dz", "dw", "db")


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = gradient()
    assert result.status == 0
    assert "100%" in result.stderr
    assert gradient("--no-progress", "--overwrite").stderr == ""
