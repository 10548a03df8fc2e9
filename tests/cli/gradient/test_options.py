"""The options of the command, and what it says of wrong ones."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import pullback.dask
from tests.harness.gradient_command import check, fault, gradient, left, save, to_zarr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--wrt", "a"], ["wrt must be a tuple of names out of ('z', 'w', 'b'); got ('a',)", "z is /"]),
        (["--workers", "2", "--scheduler", "tcp://here"], ["--workers are threads here, and --scheduler is a cluster"]),
        (["--scheduler", "nowhere"], ["missing port number in address 'nowhere'"]),
        (["--output", "none/out.zarr"], ["none/out.zarr cannot be made in /", "there is no such folder"]),
    ],
    ids=lambda x: x[0] if x[0].startswith("-") else "",
)
def test_options_are_wrong(options: list[str], words: list[str]) -> None:
    save()
    fault(gradient(*options), 2, *words)
    assert left() == set()


@pytest.mark.parametrize("size", ["", "GiB", "-1", "1e400", "much", "0", "nan", "1 parsec"])
def test_rejects_a_memory_that_is_no_size(size: str) -> None:
    save()
    fault(gradient("--memory", size), 2, f"--memory must be a size such as 512MiB or 2GB; got {size!r}")


def test_options_may_exceed_the_batch() -> None:
    save()
    assert gradient("--block-rows", "9" * 23, "--workers", "9" * 23).status == 0
    check("dz", "dw", "db")


@pytest.mark.parametrize("option", ["--z", "--upstream", "--weights", "--output"])
def test_rejects_a_url(option: str) -> None:
    save()
    fault(gradient(option, "s3://bucket/z.zarr"), 2, "s3:/bucket/z.zarr is a URL, and only paths of this machine")


def test_block_rows_split_no_chunk_of_the_larger_array() -> None:
    save()
    to_zarr("z", chunks=(100, 4))
    to_zarr("da", chunks=(150, 3))
    files = {"z": "z.zarr", "upstream": "da.zarr"}
    line = (
        f"--block-rows must be a multiple of 100, the rows of a chunk of {Path.cwd()}/z.zarr, which would be read twice"
    )
    fault(gradient("--block-rows", "250", **files), 2, line, "got 250; give 200 or 300")
    fault(gradient("--block-rows", "20", **files), 2, line, "got 20; give 100")
    for rows in ("500", "1000"):
        assert gradient("--block-rows", rows, "--overwrite", **files).status == 0
        check("dz", "dw", "db")


@pytest.mark.parametrize(
    ("name", "package", "options"),
    [
        ("dask", "dask[array]>=2025.1", []),
        ("zarr", "dask[array]>=2025.1", []),
        ("distributed", "distributed>=2025.1", ["--scheduler", "tcp://127.0.0.1:1"]),
    ],
)
def test_extra_is_missing(name: str, package: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save()

    def find_spec(module: str, *_: object) -> None:
        if module == name:
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)

    for module in list(sys.modules):
        if module.partition(".")[0] == name or module in {
            "pullback._cli.gradient.plan",
            "pullback._cli.gradient.files",
        }:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(pullback, "_gradient", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    fault(gradient(*options), 2, f'{name} is not installed; get it with: pip install "{package}"')


@pytest.mark.parametrize("name", ["pullback", None])
def test_module_is_missing_on_the_cluster(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "No module named 'pullback'"
        raise ModuleNotFoundError(msg, name=name)

    save()
    monkeypatch.setattr("pullback._cli.gradient.run.compute", fail)
    assert gradient() == (2, "", "pullback gradient: the cluster lacks a module: No module named 'pullback'\n")


def test_threads_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    save()
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", fail)
    fault(gradient(), 1, "can't start new thread. out.zarr was not written: put that right, and run the command again")
    assert left() == set()
