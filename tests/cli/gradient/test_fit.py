"""`pullback fit`: the least loss, its checkpoint, and the bits of a fit that was interrupted."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

import pullback.dask
from pullback import affine_backward, affine_forward
from pullback._cli.gradient.fit import _unfinished
from pullback._cli.gradient.model import LOSSES
from tests.cli.gradient.test_losses import ALL, SOFTMAX, draw
from tests.harness.gradient_command import FILL, Outcome, fault, finish, gradient, left, ones, rows, start, to_zarr

COMPUTE = "pullback._cli.gradient.fit.compute"
CHECKPOINT = Path("out.zarr.checkpoint")


def fit(loss: str, *more: str, **paths: str) -> Outcome:
    return gradient("--loss", loss, *more, **{"command": "fit", "upstream": "", "targets": "y.npy", **paths})


def wrong(result: Outcome, status: int, *words: str) -> None:
    fault(result, status, *words, command="fit")


def fitted(*names: str) -> dict[str, Any]:
    """Return the output."""
    group: Any = zarr.open_group("out.zarr", mode="r")
    assert sorted(group.array_keys()) == sorted(names)
    return {name: group[name][...] for name in names}


def bits() -> bytes:
    """Return the bits of the output."""
    return b"".join(x.tobytes() for x in fitted("loss", "w", "b").values())


@pytest.mark.parametrize("options", [(), ("--l2", "0.1"), ("--reduction", "sum")], ids=" ".join)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_zero_at_the_fit(loss: str, options: tuple[str, ...]) -> None:
    draw(loss)
    result = fit(loss, *options, "--max-iterations", "1000", **ALL)
    assert (result.status, result.stderr) == (0, "")
    found = fitted("loss", "w", "b")
    assert result.stdout.startswith(f"out.zarr now holds loss, w, b: loss {found['loss']:.6g} after ")
    assert result.stdout.endswith(" s\n")
    assert {x.dtype for x in found.values()} == {np.dtype("f8")}
    z, s = (np.load(f"{name}.npy").astype("f8") for name in "zs")
    reduction: Any = "sum" if "sum" in options else "mean"
    l2 = 0.1 if "--l2" in options else 0.0
    a = affine_forward(z, found["w"], found["b"])
    value, da = LOSSES[loss](a, np.load("y.npy"), weights=s, reduction=reduction)
    gradients: Any = affine_backward(da, z, found["w"])
    assert found["loss"] == pytest.approx(float(value) + l2 / 2 * np.sum(found["w"] ** 2), rel=1e-12)
    # A part of 1e-12 of the loss is its change over the root of that in the parameters.
    bound = 1e-6 + 1e-5 * (s.sum() if reduction == "sum" else 1)
    dw, db = gradients.dw + l2 * found["w"], gradients.db
    assert max(np.abs(dw).max(), np.abs(db).max()) < bound
    assert left() == {"out.zarr"}


def test_ridge_regression_has_the_closed_form() -> None:
    draw("squared_error", n=None, dtype="f8")
    assert fit("squared_error", "--l2", "0.5", "--wrt", "w").status == 0
    z, y = np.load("z.npy"), np.load("y.npy")
    expected = np.linalg.solve(z.T @ z / 1_000 + 0.5 * np.eye(7), z.T @ y / 1_000)
    np.testing.assert_allclose(fitted("loss", "w")["w"], expected, atol=2e-6)


@pytest.mark.parametrize(("wrt", "names"), [("b", ("loss", "b")), ("b, w", ("loss", "b", "w"))])
def test_what_is_fitted(wrt: str, names: tuple[str, ...]) -> None:
    draw("squared_error", dtype="f8")
    assert fit("squared_error", "--wrt", wrt, bias="b.npy").status == 0
    b = fitted(*names)["b"]
    z, w, y = (np.load(f"{name}.npy") for name in "zwy")
    if "w" in names:
        w = np.linalg.lstsq(np.c_[z, np.ones(1_000)], y)[0]
        np.testing.assert_allclose(b, w[-1], atol=1e-5)
    else:
        np.testing.assert_allclose(b, (y - z @ w).mean(axis=0), atol=2e-6)


def test_output_is_a_start() -> None:
    draw("logistic", n=None)
    result = fit("logistic", "--max-iterations", "2")
    line = "pullback fit: stopped at --max-iterations 2, before the fit converged; go on from there with "
    assert (result.status, result.stderr) == (
        0,
        f"{line}--weights out.zarr/w --bias out.zarr/b and another --output\n",
    )
    Path("out.zarr").rename("first.zarr")
    result = fit("logistic", weights="first.zarr/w", bias="first.zarr/b")
    assert (result.status, result.stderr) == (0, "")
    fault(
        gradient("--overwrite", weights="out.zarr/w", targets="y.npy", upstream="", loss="logistic"),
        2,
        "out.zarr was not written by pullback gradient, and so --overwrite does not replace it",
    )


@pytest.mark.parametrize("number", range(5))
def test_interrupted_fit_has_the_same_bits(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(SOFTMAX, m=3_000)
    more = ["--l2", "1e-3", "--block-rows", "1000", "--overwrite"]
    assert fit(SOFTMAX, *more, **ALL).status == 0
    expected = bits()
    calls: list[int] = []

    def compute(*results: Any) -> Any:
        calls.append(1)
        if len(calls) == number + 1:
            signal.raise_signal(signal.SIGTERM)
        return pullback.dask.compute(*results)

    monkeypatch.setattr(COMPUTE, compute)
    again = "interrupted. out.zarr is as it was: run the command again, which goes on where this run ended"
    wrong(fit(SOFTMAX, *more, **ALL), 128 + signal.SIGTERM, again)
    # The first call reads the start.
    assert CHECKPOINT.exists() == (number > 0)
    whole = len(calls)
    result = fit(SOFTMAX, *more, **ALL)
    here = f"pullback fit: goes on after pass {number - 1}, as {CHECKPOINT.absolute()} holds what came of it\n"
    assert (result.status, result.stderr) == (0, here if number > 1 else "")
    passes = int(result.stdout.split(" passes")[0].split()[-1])
    assert len(calls) - whole == 1 + passes - max(number - 1, 0)
    assert bits() == expected
    assert left() == {"out.zarr"}


def interrupt(monkeypatch: pytest.MonkeyPatch, *more: str, number: int = 4) -> None:
    """Leave a checkpoint."""
    left_to_do = [None] * number

    def compute(*results: Any) -> Any:
        if not left_to_do:
            msg = "no more"
            raise RuntimeError(msg)
        left_to_do.pop()
        return pullback.dask.compute(*results)

    with monkeypatch.context() as patched:
        patched.setattr(COMPUTE, compute)
        wrong(fit(SOFTMAX, *more), 1, "no more. out.zarr was not written: put that right, and run the command again")
    assert CHECKPOINT.stat().st_size == 65 + (number - 1) * 8 * (2 * 24 + 2)


@pytest.mark.parametrize("damage", ["torn", "torn header", "other parameters", "other value"])
def test_damaged_checkpoint_is_used_up_to_the_damage(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(SOFTMAX)
    assert fit(SOFTMAX, "--overwrite").status == 0
    expected = bits()
    Path("out.zarr").rename("first.zarr")
    interrupt(monkeypatch)
    if damage == "torn":
        os.truncate(CHECKPOINT, CHECKPOINT.stat().st_size - 5)
    elif damage == "torn header":
        os.truncate(CHECKPOINT, 30)
    else:
        with CHECKPOINT.open("r+b") as file:
            file.seek(65 + 8 * (50 + 24 * (damage == "other value")))
            file.write(np.float64(7).tobytes())
    result = fit(SOFTMAX)
    assert result.status == 0
    held = {"torn": "goes on after pass 2,", "torn header": ""}.get(damage, "goes on after pass 3,")
    assert held in result.stderr
    assert bool(held) == bool(result.stderr)
    assert bits() == expected


def test_checkpoint_of_another_fit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(SOFTMAX)
    interrupt(monkeypatch)
    before = CHECKPOINT.read_bytes()
    words = "out.zarr.checkpoint holds the evaluations of another fit, of other inputs or options. out.zarr was not"
    advice = "written: give the options of that fit, or remove the file, and run the command again"
    wrong(fit(SOFTMAX, "--l2", "1"), 1, f"{words} {advice}")
    np.save("y.npy", np.load("y.npy"))
    wrong(fit(SOFTMAX), 1, words)
    assert CHECKPOINT.read_bytes() == before
    CHECKPOINT.write_text("precious")
    wrong(fit(SOFTMAX), 1, words)
    assert CHECKPOINT.read_text() == "precious"


@pytest.mark.slow
def test_killed_fit_has_the_same_bits(here: Path) -> None:
    draw(SOFTMAX, m=100_000, shape=(40,))
    paths = {"command": "fit", "upstream": "", "targets": "y.npy"}
    more = ["--loss", SOFTMAX, "--l2", "1e-3"]
    assert finish(start(*more, **paths)).status == 0
    expected = bits()
    Path("out.zarr").rename("first.zarr")
    process = start(*more, **paths)
    checkpoint = here / CHECKPOINT
    while not checkpoint.exists() or checkpoint.stat().st_size < 65 + 3 * 8 * (2 * 123 + 2):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    finish(process)
    assert {"out.zarr.checkpoint", ".out.zarr.partial"} <= left()
    result = finish(start(*more, **paths))
    assert result.status == 0
    assert "pullback fit: goes on after pass " in result.stderr
    assert bits() == expected
    assert left() == {"first.zarr", "out.zarr"}


def test_blocks_and_threads_give_the_same_bits() -> None:
    draw(SOFTMAX, m=30_000, shape=(40,))
    found = set()
    for workers in ("1", "4"):
        more = ["--workers", workers, "--block-rows", "3000", "--overwrite", "--max-iterations", "5"]
        assert fit(SOFTMAX, *more, **ALL).status == 0
        found.add(bits())
    assert len(found) == 1


def test_start_has_no_loss() -> None:
    draw("squared_error")
    z = np.load("z.npy")
    z[3, 2] = np.nan
    np.save("z.npy", z)
    words = "the loss at the start is nan. out.zarr was not written: look for NaN and infinity in the inputs, and for"
    wrong(fit("squared_error"), 1, words)


def test_there_are_no_examples() -> None:
    draw("huber", m=0)
    wrong(fit("huber"), 1, "there are no examples in ", "z.npy, which has shape (0, 7). out.zarr was not written")
    assert left() == set()


def test_no_step_lowers_the_loss() -> None:
    options: Any = SimpleNamespace(iterations=100, names=("w",), output=Path("out.zarr"))
    job: Any = SimpleNamespace(options=options)
    stopped = SimpleNamespace(success=False, nit=7, message="ABNORMAL")
    assert _unfinished(job, stopped) == (
        "stopped where no step lowers the loss, before its gradient was small: ABNORMAL"
    )
    assert _unfinished(job, SimpleNamespace(success=False, nit=100)).endswith(
        "--weights out.zarr/w and another --output"
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--wrt", "z,w"], "--wrt of pullback fit must name w, b or both; got 'z,w'"),
        (["--l2", "inf"], "--l2 must be a finite number; got inf"),
        (["--loss", "hinge"], "--loss must be one of squared_error"),
        (["--reduction", "none"], "--reduction must be one of mean, sum; got 'none'"),
    ],
)
def test_options_are_wrong(more: list[str], words: str) -> None:
    draw("huber")
    wrong(fit("huber", *more), 2, words)
    assert left() == set()


def test_scipy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw("huber")

    def find_spec(module: str, *_: object) -> None:
        if module == "scipy":
            msg = "No module named 'scipy'"
            raise ModuleNotFoundError(msg, name="scipy")

    for module in list(sys.modules):
        if module.partition(".")[0] == "scipy" or module == "pullback._cli.gradient.fit":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("pullback._cli.gradient.fit", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    wrong(fit("huber"), 2, 'scipy is not installed; get it with: pip install "scipy>=1.15"')


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    draw("huber")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = fit("huber", "--overwrite").stderr.splitlines()
    assert lines
    assert all(line.startswith("pullback fit: loss ") and line.endswith(" passes") for line in lines)
    assert fit("huber", "--overwrite", "--no-progress").stderr == ""


def test_plan_says_what_a_pass_takes() -> None:
    draw("huber")
    table = rows(fit("huber", "--plan", bias="b.npy").stdout)
    assert table["read in a pass"] == "39.16 kiB"
    # In float64.
    assert table["written"] == f"{8 * (1 + 21 + 3)} B"
    assert left() == set()


def test_memory_stays_within_its_limit() -> None:
    # 0.5 GB that take no room, and a limit of 120 MB.
    ones("z.zarr", (2_000_000, 64), (10_000, 64))
    zarr.create_array("y.zarr", shape=(2_000_000,), chunks=(10_000,), dtype="u1", fill_value=1)
    np.save("w.npy", np.zeros((64, 8), "f4"))
    more = [FILL, "--workers", "2", "--memory", "120MB", "--loss", SOFTMAX, "--max-iterations", "1"]
    paths = {"command": "fit", "z": "z.zarr", "targets": "y.zarr", "upstream": ""}
    before, after = (finish(start(*more, *plan, **paths)) for plan in (["--plan"], []))
    assert (before.status, after.status) == (0, 0)
    took = [int(result.stdout.split()[-1]) * 1024 for result in (before, after)]
    assert took[1] - took[0] < 120e6


def test_inputs_change_during_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw("huber")
    to_zarr("z", chunks=(100, 7))
    calls: list[int] = []

    def compute(*results: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            np.save("y.npy", np.load("y.npy"))
        return pullback.dask.compute(*results)

    monkeypatch.setattr(COMPUTE, compute)
    wrong(fit("huber", z="z.zarr"), 1, "y.npy was replaced or written to while the command ran", "out.zarr was not")
    assert left() == {"z.zarr", "out.zarr.checkpoint"}
