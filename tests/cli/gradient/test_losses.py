"""Losses of targets in files: the values of the library's functions, and what is wrong with inputs in one line."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import pullback.dask
from pullback import affine_backward, affine_forward
from pullback._cli.gradient import files
from pullback._cli.gradient.budget import LOSS_ARRAYS
from pullback._cli.gradient.model import LOSSES, LossStep
from tests.harness.gradient_command import (
    FILL,
    POWERLESS,
    Outcome,
    fault,
    finish,
    follow,
    gradient,
    left,
    ones,
    rows,
    start,
    to_zarr,
)

SOFTMAX = "softmax_cross_entropy"
ALL = {"bias": "b.npy", "example_weights": "s.npy"}


def draw(loss: str, m: int = 1_000, shape: tuple[int, ...] = (7,), n: int | None = 3, dtype: str = "f4") -> None:
    """Write a batch, targets, weights, a bias and example weights; one output without an axis of its own for no n."""
    rng = np.random.default_rng(0)
    *middle, k = shape
    last = () if n is None else (n,)
    a = (m, *middle, *last)
    labels = {"logistic": rng.integers(0, 2, a), SOFTMAX: rng.integers(0, n or 1, a[:-1])}
    s = rng.integers(0, 3, a if n is None else a[:-1]).astype(dtype)
    arrays = {
        "z": rng.standard_normal((m, *shape)).astype(dtype),
        "w": rng.standard_normal((k, *last)).astype(dtype),
        "b": rng.standard_normal(last).astype(dtype),
        "y": labels.get(loss, rng.random(a).astype(dtype)),
        "s": s,
    }
    for name, x in arrays.items():
        np.save(f"{name}.npy", x)


def run(loss: str, *more: str, **paths: str) -> Outcome:
    return gradient("--loss", loss, *more, **{"upstream": "", "targets": "y.npy", **paths})


def compare(loss: str, *names: str, bias: bool = False, weighted: bool = False, reduction: Any = "mean") -> None:
    """Compare the output with what the library's functions return in float64, within rounding of the files' dtype."""
    loaded: dict[str, Any] = {name: np.load(f"{name}.npy") for name in "zwbys"}
    dtype = np.dtype(loaded["z"].dtype)
    z, w, b, s = (loaded[name].astype("f8") for name in "zwbs")
    a = affine_forward(z, w, b if bias else None)
    value, da = LOSSES[loss](a, loaded["y"], weights=s if weighted else None, reduction=reduction)
    expected = {"loss": value, **affine_backward(da, z, w)._asdict()}
    # What the terms are before they cancel: an output is off by as many ulps as there are terms in it.
    size = affine_forward(np.abs(z), np.abs(w), np.abs(b))
    each = (1 + size) ** 2 * (np.exp(size) if loss == "poisson" else 1)
    if reduction == "mean":
        each /= max(a[..., 0].size if w.ndim == 2 else a.size, 1)
    spread = affine_backward(each, np.abs(z), np.abs(w))._asdict()
    scale = {"loss": each.sum(), **spread}
    group = zarr.open_group("out.zarr", mode="r")
    assert sorted(group.array_keys()) == sorted(names)
    for name in names:
        got: Any = group[name]
        assert got.shape == expected[name].shape
        assert got.dtype == ("f8" if name == "loss" else dtype)
        error = np.abs(got[...] - expected[name]).max(initial=0)
        assert error <= 2 * np.finfo(dtype).eps * np.max(scale[name], initial=0), name


@pytest.mark.parametrize("loss", LOSSES)
def test_mean(loss: str) -> None:
    draw(loss)
    result = run(loss)
    value: Any = zarr.open_array("out.zarr/loss", mode="r")
    assert result.stdout.startswith(f"out.zarr now holds loss, dw, db: loss {float(value[()]):.6g}, 1,000 rows in ")
    assert (result.status, result.stderr) == (0, "")
    compare(loss, "loss", "dw", "db")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_bias_and_rows(loss: str, reduction: str) -> None:
    draw(loss, m=3_000)
    options = ["--reduction", reduction, "--block-rows", "700", "--workers", "2", "--wrt", "z,w,b"]
    assert run(loss, *options, **ALL).status == 0
    compare(loss, "loss", "dz", "dw", "db", bias=True, weighted=True, reduction=reduction)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
@pytest.mark.parametrize("loss", ["squared_error", SOFTMAX])
def test_dtypes(loss: str, dtype: str) -> None:
    draw(loss, dtype=dtype)
    assert run(loss, "--wrt", "z,w,b", **ALL).status == 0
    compare(loss, "loss", "dz", "dw", "db", bias=True, weighted=True)


def test_mean_of_narrow_numbers_overflows_only_where_it_is_too_large() -> None:
    draw("squared_error", m=30_000, dtype="f2")
    np.save("y.npy", np.full((30_000, 3), 200, "f2"))
    assert run("squared_error").status == 0
    compare("squared_error", "loss", "dw", "db")


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("loss", ["huber", SOFTMAX])
def test_axes_between(loss: str, shape: tuple[int, ...]) -> None:
    draw(loss, shape=shape)
    assert run(loss, "--wrt", "z,w,b", **ALL).status == 0
    compare(loss, "loss", "dz", "dw", "db", bias=True, weighted=True)


@pytest.mark.parametrize("shape", [(7,), (4, 7)], ids=str)
def test_one_output_without_an_axis(shape: tuple[int, ...]) -> None:
    draw("logistic", shape=shape, n=None)
    if shape != (7,):
        np.save("s.npy", np.load("s.npy")[:, 0])
    assert run("logistic", "--wrt", "z,w,b", **ALL).status == 0
    compare("logistic", "loss", "dz", "dw", "db", bias=True, weighted=True)


def test_upstream_of_one_output_without_an_axis() -> None:
    draw("squared_error", n=None)
    np.save("da.npy", np.load("y.npy"))
    assert gradient().status == 0
    db: Any = zarr.open_array("out.zarr/db", mode="r")
    assert db.shape == ()
    np.testing.assert_allclose(db[()], np.load("da.npy").sum(dtype="f8"), rtol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_output_is_an_input(kind: str) -> None:
    draw("squared_error", n=None)
    to_zarr("b")
    assert run("squared_error", bias=f"b.{kind}").status == 0
    compare("squared_error", "loss", "dw", "db", bias=True)


def test_weights_of_outputs() -> None:
    draw("squared_error")
    s = np.random.default_rng(1).integers(0, 3, (1_000, 3))
    y = np.load("y.npy")
    y[s == 0] = np.nan
    for name, x in {"s": s, "y": y}.items():
        np.save(f"{name}.npy", x)
    assert run("squared_error", "--block-rows", "300", example_weights="s.npy").status == 0
    compare("squared_error", "loss", "dw", "db", weighted=True)


@pytest.mark.parametrize("dtype", ["u1", "i8", "?", "f4"])
def test_labels_of_all_dtypes(dtype: str) -> None:
    draw("logistic")
    np.save("y.npy", np.load("y.npy").astype(dtype))
    to_zarr("y", chunks=(100, 3))
    assert run("logistic", targets="y.zarr").status == 0
    compare("logistic", "loss", "dw", "db")


@pytest.mark.parametrize("dtype", ["?", "f4"])
def test_probabilities_of_classes(dtype: str) -> None:
    draw(SOFTMAX)
    one_hot: Any = np.eye(3)[np.load("y.npy")]
    np.save("y.npy", one_hot.astype(dtype))
    assert run(SOFTMAX).status == 0
    compare(SOFTMAX, "loss", "dw", "db")


def test_weights_of_zero_have_no_mean() -> None:
    draw("squared_error")
    np.save("s.npy", np.zeros(1_000, "f4"))
    assert run("squared_error", example_weights="s.npy").status == 0
    value: Any = zarr.open_array("out.zarr/loss", mode="r")
    assert np.isnan(value[()])


@pytest.mark.parametrize("paths", [{}, ALL], ids=["", "weighted"])
def test_no_rows(paths: dict[str, str]) -> None:
    draw(SOFTMAX, m=0)
    result = run(SOFTMAX, "--wrt", "z,w,b", **paths)
    assert (result.status, result.stderr) == (0, "")
    assert "loss nan" in result.stdout
    for name, shape in {"dz": (0, 7), "dw": (7, 3), "db": (3,)}.items():
        x: Any = zarr.open_array(f"out.zarr/{name}", mode="r")
        assert x.shape == shape
        assert not np.any(x[...])
    assert run(SOFTMAX, "--reduction", "sum", "--overwrite", **paths).stdout.startswith(
        "out.zarr now holds loss, dw, db: loss 0,"
    )


def test_blocks_and_threads_give_the_same_bits() -> None:
    draw(SOFTMAX, m=30_000, shape=(40,))
    bits = set()
    for workers in ("1", "4"):
        assert run(SOFTMAX, "--workers", workers, "--block-rows", "3000", "--overwrite", **ALL).status == 0
        arrays: Any = [zarr.open_array(f"out.zarr/{name}", mode="r")[...] for name in ("loss", "dw", "db")]
        bits.add(b"".join(x.tobytes() for x in arrays))
    assert len(bits) == 1


def test_plan_is_the_run() -> None:
    draw(SOFTMAX, m=300_000, shape=(20,))
    to_zarr("z", chunks=(10_000, 20))
    more = ["--workers", "2", "--memory", "120MB", "--wrt", "z,w,b"]
    table = rows(run(SOFTMAX, "--plan", *more, z="z.zarr", **ALL).stdout)
    assert left() == {"z.zarr"}
    assert table["operations"] == f"{300_000 * (3 * 2 * 20 * 3 + 3):,}"
    assert int(table["blocks"]) > 1
    assert run(SOFTMAX, *more, z="z.zarr", **ALL).status == 0
    dz: Any = zarr.open_array("out.zarr/dz", mode="r")
    assert f"{dz.chunks[0]:,}" == table["rows a block"]


def test_memory_stays_within_its_limit() -> None:
    # 1.6 GB that take no room, and a limit of 120 MB.
    ones("z.zarr", (6_000_000, 64), (10_000, 64))
    zarr.create_array("y.zarr", shape=(6_000_000,), chunks=(10_000,), dtype="u1", fill_value=1)
    for name, shape in {"w": (64, 8), "b": (8,)}.items():
        np.save(f"{name}.npy", np.ones(shape, "f4"))
    more = [FILL, "--workers", "2", "--memory", "120MB", "--loss", SOFTMAX]
    paths = {"z": "z.zarr", "targets": "y.zarr", "bias": "b.npy", "upstream": ""}
    before, after = (finish(start(*more, *plan, **paths)) for plan in (["--plan"], []))
    assert (before.status, after.status) == (0, 0)
    took = [int(result.stdout.split()[-1]) * 1024 for result in (before, after)]
    assert took[1] - took[0] < 120e6
    value: Any = zarr.open_array("out.zarr/loss", mode="r")
    assert value[()] == pytest.approx(np.log(8), rel=1e-6)


def test_many_classes_take_short_strips() -> None:
    rng = np.random.default_rng(0)
    draws: dict[str, Any] = {
        "z": rng.random((40_000, 4), "f4"),
        "w": rng.random((4, 2_000), "f4"),
        "y": rng.integers(0, 2_000, 40_000),
    }
    for name, x in draws.items():
        np.save(f"{name}.npy", x)
    more = ["--workers", "1", "--memory", "120MB", "--loss", SOFTMAX]
    paths = {"targets": "y.npy", "upstream": ""}
    before, after = (finish(start(*more, *plan, **paths)) for plan in (["--plan"], []))
    assert (before.status, after.status) == (0, 0)
    took = [int(result.stdout.split()[-1]) * 1024 for result in (before, after)]
    assert took[1] - took[0] < 120e6


@pytest.mark.parametrize("each", [(), (1,), (1, 1)], ids=["none", "examples", "outputs"])
@pytest.mark.parametrize("loss", LOSSES)
def test_step_holds_what_the_plan_counts(loss: str, each: tuple[int, ...]) -> None:
    z, w = np.ones((20_000, 1), "f4"), np.ones((1, 40), "f4")
    a = np.ones((20_000, 40), "f4")
    y = np.ones(20_000, int) if loss == SOFTMAX else a
    weights = [np.ones(a.shape[: len(each)], "f4")] if each and (loss != SOFTMAX or len(each) == 1) else []
    step = LossStep(loss, ("w", "b"), 0)
    tracemalloc.start()
    try:
        step(z, y, *weights, w, None, 1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # And blocks of the sums.
    assert peak <= LOSS_ARRAYS * a.nbytes + 2**18


@pytest.mark.parametrize(
    ("more", "paths", "words"),
    [
        (
            ["--loss", "huber"],
            {},
            ["--upstream and --loss exclude each other; give --upstream, the gradient of a loss"],
        ),
        ([], {"bias": "b.npy"}, ["--upstream and --bias exclude each other"]),
        (["--reduction", "sum"], {}, ["--upstream and --reduction exclude each other"]),
        ([], {"upstream": ""}, ["there is neither --upstream nor --targets; give --upstream"]),
        ([], {"upstream": "", "targets": "y.npy"}, ["--targets is there without --loss; give --upstream"]),
        (["--loss", "huber"], {"upstream": ""}, ["--loss is there without --targets; give --upstream"]),
        (
            ["--loss", "hinge"],
            {"upstream": "", "targets": "y.npy"},
            ["--loss must be one of squared_error, logistic, softmax_cross_entropy, poisson, huber; got 'hinge'"],
        ),
        (
            ["--loss", "huber", "--reduction", "none"],
            {"upstream": "", "targets": "y.npy"},
            ["--reduction must be one of mean, sum; got 'none'"],
        ),
    ],
)
def test_options_contradict(more: list[str], paths: dict[str, str], words: list[str]) -> None:
    draw("huber")
    fault(gradient(*more, **paths), 2, *words)
    assert left() == set()


def saved(name: str, *shape: int, dtype: str = "f4") -> Callable[[], None]:
    """Return what writes ones of a shape."""
    return lambda: np.save(f"{name}.npy", np.ones(shape, dtype))


@pytest.mark.parametrize(
    ("loss", "spoil", "words"),
    [
        ("huber", saved("w", 6, 3), ["--weights must have shape (7, n), or (7,) for one output, as --z has shape"]),
        ("huber", saved("w", 7, 3, 1), ["--weights must have shape (7, n)", "got (7, 3, 1)"]),
        ("huber", saved("w", 7, 3, dtype="c8"), ["w.npy must hold real floating numbers, float16", "got complex64"]),
        ("huber", saved("b", 4), ["--bias must have shape (3,), as --weights has shape (7, 3); got (4,)"]),
        (
            "huber",
            saved("y", 999, 3),
            ["--targets of huber must have shape (1000, 3), as --z and --weights give outputs", "got (999, 3)"],
        ),
        ("huber", saved("y", 1_000, 3, 1), ["got (1000, 3, 1); save the targets without its last axis"]),
        ("huber", saved("y", 1_000, 3, dtype="c8"), ["y.npy must hold real numbers or booleans", "got complex64"]),
        (
            "huber",
            saved("s", 999),
            ["--example-weights must have one number for each example, shape (1000,), or for each"],
        ),
        ("huber", saved("s", 1_000, dtype="?"), ["s.npy must hold real numbers, float16", "got bool; cast them first"]),
        (
            SOFTMAX,
            saved("s", 1_000, 3),
            ["--example-weights must have one number for each example, shape (1000,); got"],
        ),
        (
            SOFTMAX,
            saved("w", 7),
            ["--weights of softmax_cross_entropy must have a column for each class, shape (7, n)"],
        ),
        (
            SOFTMAX,
            saved("y", 1_000, 3, dtype="i8"),
            ["must have shape (1000,), as --z and --weights give outputs of shape (1000, 3)"],
        ),
        (SOFTMAX, saved("y", 1_000, 1, dtype="i8"), ["got (1000, 1); save the targets without its last axis"]),
    ],
)
def test_inputs_are_wrong(loss: str, spoil: Callable[[], None], words: list[str]) -> None:
    draw(loss)
    spoil()
    fault(run(loss, **ALL), 2, *words)
    assert left() == set()


def test_targets_of_one_output() -> None:
    draw("huber", n=1)
    np.save("y.npy", np.load("y.npy")[:, 0])
    fault(run("huber"), 2, "got (1000,); save the targets with an axis of size 1 at the end")


def test_class_indices_of_floats_name_the_cast() -> None:
    draw(SOFTMAX)
    np.save("y.npy", np.load("y.npy").astype("f4"))
    result = run(SOFTMAX)
    fault(result, 2, "got (1000,); class indices are integers; cast them first: python -c ")
    follow(result.stderr)
    assert run(SOFTMAX, targets="y-int64.zarr").status == 0
    np.save("y.npy", np.load("y.npy").astype("i8"))
    compare(SOFTMAX, "loss", "dw", "db")


@pytest.mark.parametrize(
    ("loss", "label", "rule"),
    [
        (SOFTMAX, 3, "class indices from 0 to 2, as --weights has 3 columns; got 3"),
        (SOFTMAX, -1, "class indices from 0 to 2, as --weights has 3 columns; got -1"),
        ("logistic", -1, "0 and 1 or probabilities; got -1"),
        ("logistic", 1.5, "0 and 1 or probabilities; got 1.5"),
        ("poisson", -0.5, "counts of at least 0; got -0.5"),
    ],
)
def test_label_is_out_of_range(loss: str, label: float, rule: str) -> None:
    draw(loss)
    y: Any = np.load("y.npy").astype("i8" if label % 1 == 0 else "f8")
    y[500] = label
    np.save("y.npy", y)
    more = "; accumulate: while the step ran on rows [0:1000]. out.zarr was not written: correct the targets, or give"
    fault(run(loss, "--workers", "1"), 1, f"--targets of {loss} must be {rule}{more}")
    assert left() == set()
    s = np.ones(1_000)
    s[500] = 0
    np.save("s.npy", s)
    assert run(loss, example_weights="s.npy").status == 0


@pytest.mark.parametrize("name", ["y", "b", "s"])
def test_inputs_change_during_the_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw("huber")

    def change(*results: Any, **options: Any) -> Any:
        out = pullback.dask.compute(*results, **options)
        np.save(f"{name}.npy", np.load(f"{name}.npy"))
        return out

    monkeypatch.setattr("pullback._cli.gradient.run.compute", change)
    fault(run("huber", **ALL), 1, f"{name}.npy was replaced or written to while the command ran")
    assert left() == set()


def test_chunks_are_missing() -> None:
    draw("huber")
    for name in "ys":
        to_zarr(name, chunks=(100, 3)[: 1 + (name == "y")])
    Path("y.zarr/c/4/0").unlink()
    paths = {"targets": "y.zarr", "example_weights": "s.zarr"}
    fault(run("huber", **paths), 2, "1 of 10 chunks of ", "y.zarr are not stored", "or give --fill-missing")
    Path("s.zarr/c/4").unlink()
    assert run("huber", FILL, **paths).status == 0
    for name in "ys":
        x = np.load(f"{name}.npy")
        x[400:500] = 0
        np.save(f"{name}.npy", x)
    compare("huber", "loss", "dw", "db", weighted=True)


def test_targets_may_not_be_read() -> None:
    draw("huber")
    Path("y.npy").chmod(0)
    result = finish(start("--loss", "huber", limit=POWERLESS, upstream="", targets="y.npy"))
    fault(result, 2, "y.npy cannot be read: Permission denied")


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_each_part_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(SOFTMAX, m=30_000, shape=(60,))
    for name in "zys":
        to_zarr(name, chunks=(500, 60)[: np.load(f"{name}.npy").ndim])
    read: dict[str, int] = {}
    originals = {cls: cls.__getitem__ for cls in (files.NpyFile, files.ZarrFile)}

    def count(cls: Any, file: Any, key: Any) -> Any:
        start, stop, _ = key[0].indices(file.shape[0]) if key else (0, 1, 1)
        read[file.path.name] = read.get(file.path.name, 0) + stop - start
        return originals[cls](file, key)

    for cls in originals:
        monkeypatch.setattr(cls, "__getitem__", lambda file, key, cls=cls: count(cls, file, key))
    paths = {"z": f"z.{kind}", "targets": f"y.{kind}", "example_weights": f"s.{kind}", "bias": "b.npy"}
    assert run(SOFTMAX, "--workers", "2", **paths).status == 0
    rows_read = {f"z.{kind}": 30_000, f"y.{kind}": 30_000, f"s.{kind}": 60_000, "w.npy": 60, "b.npy": 3}
    assert read == rows_read
    compare(SOFTMAX, "loss", "dw", "db", bias=True, weighted=True)
