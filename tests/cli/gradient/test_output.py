"""The output of the command: the old one or the new one at any moment, and nothing left beside it."""

import os
import resource
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr

from pullback._cli.console import CommandError
from pullback._cli.gradient import atomic
from tests.harness.gradient_command import (
    POWERLESS,
    Outcome,
    check,
    fault,
    finish,
    gradient,
    left,
    save,
    start,
    to_zarr,
)


def test_output_exists() -> None:
    save()
    assert gradient().status == 0
    before = Path("out.zarr/zarr.json").read_text()
    fault(gradient(), 2, "out.zarr exists already; name another --output", "with --overwrite")
    assert Path("out.zarr/zarr.json").read_text() == before
    save(n=5)
    assert gradient("--overwrite").status == 0
    check("dz", "dw", "db")
    assert left() == {"out.zarr"}


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5"])
def test_output_is_no_file_of_another_kind(suffix: str) -> None:
    """A Zarr group of that name could not be opened by what opens such files."""
    save()
    name = f"out.{suffix}"
    fault(gradient("--output", name), 2, f"{name} is the name of another kind of file; name it out.zarr")
    assert left() == set()


def test_overwrite_replaces_nothing_else() -> None:
    save()
    output = Path("out.zarr")
    for make in (output.mkdir, output.touch, partial(zarr.create_group, output), partial(output.symlink_to, "w.npy")):
        make()
        fault(gradient("--overwrite"), 2, "out.zarr was not written by pullback gradient", "name another --output")
        assert output.exists()
        shutil.rmtree(output) if output.is_dir() else output.unlink()
    assert gradient().status == 0
    (output / "dz").rename("z.zarr")
    (output / "dz").symlink_to(Path.cwd() / "z.zarr")
    result = gradient("--overwrite", upstream="out.zarr/dw")
    fault(result, 2, "out.zarr/dw is a part of /", "which would be replaced")


def test_overwrite_keeps_the_old_output_when_the_run_fails() -> None:
    save()
    to_zarr("z", chunks=(100, 7))
    assert gradient().status == 0
    Path("z.zarr/c/4/0").write_bytes(b"no chunk")
    fault(gradient("--overwrite", z="z.zarr"), 1, "cannot be read", "out.zarr is as it was: put that right")
    check("dz", "dw", "db")
    assert left() == {"z.zarr", "out.zarr"}


def test_overwrite_keeps_what_took_the_place_of_the_old_output() -> None:
    save()
    assert gradient().status == 0
    output = Path("out.zarr")

    def run() -> None:
        with atomic.output(output, "pullback gradient", overwrite=True):
            shutil.rmtree(output)
            output.write_text("precious")

    with pytest.raises(CommandError, match="was not written by"):
        run()
    assert output.read_text() == "precious"
    assert left() == {"out.zarr"}


def powerless(*more: str) -> Outcome:
    """Run the command with no more rights than the permissions give it."""
    return finish(start(*more, limit=POWERLESS))


def test_overwrite_says_so_when_the_old_output_cannot_be_removed() -> None:
    save()
    assert gradient().status == 0
    save(n=5)
    kept = Path("out.zarr/dz")
    kept.chmod(0o500)
    result = powerless("--overwrite")
    assert result.status == 0
    assert result.stdout.startswith("out.zarr now holds dz, dw, db: ")
    partial = Path.cwd() / ".out.zarr.partial"
    line = "out.zarr is the new output, and a part of the earlier one is still there: "
    assert result.stderr == f"pullback gradient: {line}{partial} could not be removed: Permission denied\n"
    check("dz", "dw", "db")
    next(partial.glob("*/dz")).chmod(0o700)
    result = gradient("--overwrite")
    line = f"pullback gradient: removed {Path.cwd()}/.out.zarr.partial, which a killed run had left\n"
    assert (result.status, result.stderr) == (0, line)
    assert left() == {"out.zarr"}


def test_overwrite_checks_first_that_the_old_output_may_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    assert gradient().status == 0
    before = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "out.zarr" and before(path, mode))
    result = gradient("--overwrite", "--plan")
    fault(result, 2, "out.zarr may not be changed, and so --overwrite cannot replace it; name another --output")


def test_output_may_be_read_again_without_gaps() -> None:
    save()
    np.save("da.npy", np.zeros((1_000, 3), "f4"))
    assert gradient("--block-rows", "300").status == 0
    Path("out.zarr").rename("first.zarr")
    assert gradient(z="first.zarr/dz").status == 0


@pytest.mark.parametrize("length", [210, 255])
def test_output_may_have_a_long_name(length: int) -> None:
    save()
    name = "x" * length
    for more in ([], ["--overwrite"]):
        assert gradient("--output", name, *more).status == 0
    assert left() == {name}


def test_output_has_the_group_of_its_folder(here: Path) -> None:
    save()
    here.chmod(0o2755)
    assert gradient().status == 0
    assert Path("out.zarr").stat().st_mode & 0o2000


def test_second_run_with_one_output_stops_at_once() -> None:
    save()
    with atomic.output(Path("out.zarr"), "pullback gradient", overwrite=False):
        Path("z.npy").unlink()
        fault(gradient(), 2, f"another run is writing {Path.cwd()}/out.zarr, in {Path.cwd()}/.out.zarr.partial")


def test_disk_is_full() -> None:
    save(m=10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses what grows past 20 kB, as it refuses all on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        result = gradient()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    fault(result, 1, "File too large", "out.zarr was not written: free up to 273.", f" in {Path.cwd()}, and run")
    assert left() == set()


def test_output_may_not_be_written(here: Path) -> None:
    save()
    here.chmod(0o500)
    try:
        result = finish(start(limit=POWERLESS))
    finally:
        here.chmod(0o700)
    fault(result, 2, f"out.zarr cannot be made in {here}: nothing may be written there")
    assert left() == set()
