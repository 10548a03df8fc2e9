"""`accumulate`: what is computed and when, in how many tasks, with which bits; and what it refuses."""

import gc
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn
from unittest import mock

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback import AffineGradients, affine_backward, loss_and_gradients, matmul_backward, softmax_cross_entropy
from pullback.dask import _plan
from tests.harness.batches import Case, Reader, accumulate, check, compute, draw, gradients
from tests.harness.pair_laws import EPS, C


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a block of each chunk, and a strip of each four rows."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (4, 4))


def column_sums(*blocks: Any) -> tuple[Any, ...]:
    return tuple(x.sum(axis=0) for x in blocks)


def total(*blocks: Any) -> tuple[Any]:
    return (sum(np.sum(x) for x in blocks),)


@pytest.mark.usefixtures("fine")
def test_kinds_of_results() -> None:
    case = draw(10)
    got = gradients(case, 4)
    kind: type = type(got)
    assert kind is AffineGradients
    assert all(isinstance(x, da.Array) for x in got)
    assert got[0].chunks == ((4, 4, 2), (3,))
    check(compute(*got), case)
    check(dask.compute(*got), case)
    upstream, z = da.from_array(case.da, chunks=(4, 2)), da.from_array(case.z, chunks=(4, 3))

    def step(d: Any, x: Any, w: Any) -> tuple[Any, ...]:
        return tuple(affine_backward(d, x, w))

    plain = accumulate(step, upstream, z, shared=(case.w,), rows=(0,))
    assert type(plain) is tuple
    check(compute(*plain), case)
    part = accumulate(lambda d, x, w: affine_backward(d, x, w, wrt=("w",)), upstream, z, shared=(case.w,))
    assert isinstance(part, AffineGradients)
    assert (part.dz, part.db) == (None, None)
    check(compute(*part), case)


@pytest.mark.usefixtures("fine")
def test_nothing_is_computed_before() -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError

    case = draw(12)
    reader = Reader(case.z)
    z = da.from_array(reader, chunks=(5, 3))
    with dask.config.set(scheduler=refuse):
        got = accumulate(affine_backward, da.from_array(case.da, chunks=4), z, shared=(da.ones((3, 2)),), rows=("dz",))
        with pytest.raises(AssertionError):
            compute(*got)
    assert reader.reads.tolist() == [0] * 12


@pytest.mark.parametrize("task_bytes", [1, 200, 2**23], ids=["a chunk", "some chunks", "all chunks"])
@pytest.mark.parametrize("chunks", [1, 5, 30])
@pytest.mark.parametrize("change", [lambda x: x, lambda x: x * 2, lambda x: x[10:]], ids=["as it is", "times", "cut"])
def test_reads_once(
    monkeypatch: pytest.MonkeyPatch, task_bytes: int, chunks: int, change: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(_plan, "TASK_BYTES", task_bytes)
    case = draw(30)
    reader = Reader(case.z)
    z = change(da.from_array(reader, chunks=(chunks, 3)))
    upstream = change(da.from_array(case.da, chunks=(chunks, 2)))
    got = compute(*accumulate(affine_backward, upstream, z, shared=(case.w,), rows=("dz",)))
    check(got, Case(change(case.da), change(case.z), case.w))
    assert reader.reads.tolist() == [0] * (30 - len(got[0])) + [1] * len(got[0])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "uint32", "int64"])
@pytest.mark.usefixtures("fine")
def test_counts_in_64_bits(dtype: str) -> None:
    wide = "uint64" if dtype.startswith("u") else "int64"
    x = da.from_array(np.full((40, 1), 1 if dtype == "bool" else np.iinfo(dtype).max // 40, dtype), chunks=(1, 1))
    for strips, chunk in ((40, 1), (10, 20)):
        (lazily,) = accumulate(lambda x: (x[0] if len(x) else np.zeros(1, x.dtype),), x.rechunk(chunk))
        (got,) = compute(lazily)
        assert lazily.dtype == got.dtype == wide
        assert got[0] == strips * int(x[0, 0].compute())


SPLITS = [((4, 4, 2), (5, 5)), ((10,), (1,) * 10), ((3, 0, 7), (10,)), ((0, 10), (4, 6)), ((4, 0, 6), (4, 0, 6))]


@pytest.mark.parametrize("splits", SPLITS, ids=str)
@pytest.mark.parametrize("features", [(-1, -1), (1, -1), (2, 1)], ids=str)
@pytest.mark.usefixtures("fine")
def test_divisions(splits: tuple[Any, Any], features: tuple[int, int]) -> None:
    case = draw(10)
    z, upstream = (da.from_array(x, chunks=(rows, k)) for x, rows, k in zip(case[1::-1], splits, features, strict=True))
    got = accumulate(affine_backward, upstream, z, shared=(case.w,), rows=("dz",))
    check(compute(*got), case)
    assert got.dz.chunks[0] == z.chunks[0]  # that of the largest


@pytest.mark.usefixtures("fine")
def test_labels_and_many_axes() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((9, 2, 3)), rng.integers(5, size=9)
    got = compute(*accumulate(lambda y, x: (np.tensordot(y, x, 1),), *(da.from_array(a, chunks=2) for a in (y, x))))
    assert np.allclose(got[0], np.tensordot(y, x, 1), rtol=0, atol=C * 9 * 5 * EPS["float64"] * np.abs(x).max())
    case = Case(rng.standard_normal((7, 2, 2)), rng.standard_normal((7, 2, 3)), rng.standard_normal((3, 2)))
    got = gradients(case, 2)
    assert got.dz.shape == (7, 2, 3)


@pytest.mark.usefixtures("fine")
def test_unknown_rows() -> None:
    case = draw(23)
    keep = case.z[:, 0] > 0
    z, upstream = da.from_array(case.z, chunks=(5, 3)), da.from_array(case.da, chunks=(5, 2))
    mask = z[:, 0] > 0
    got = accumulate(affine_backward, upstream[mask], z[mask], shared=(case.w,), rows=("dz",))
    assert math.isnan(got.dz.shape[0])
    check(compute(*got), Case(case.da[keep], case.z[keep], case.w))
    known = z[mask].compute_chunk_sizes()
    one = accumulate(affine_backward, upstream[mask], known, shared=(case.w,), rows=("dz",))
    assert one.dz.chunks == known.chunks
    check(compute(*one), Case(case.da[keep], case.z[keep], case.w))
    nothing = accumulate(affine_backward, upstream[z[:, 0] > 9], z[z[:, 0] > 9], shared=(case.w,), rows=("dz",))
    check(compute(*nothing), Case(case.da[:0], case.z[:0], case.w))


@pytest.mark.parametrize("chunks", [5, (0, 0)])
def test_no_rows(chunks: Any) -> None:
    case = draw(0)
    check(compute(*gradients(case, chunks)), case)


@pytest.mark.usefixtures("fine")
def test_lazy_shared() -> None:
    case = draw(12)
    z, upstream = da.from_array(case.z, chunks=(5, 3)), da.from_array(case.da, chunks=(5, 2))
    w = da.from_array(case.w, chunks=(2, 1))
    check(compute(*accumulate(affine_backward, upstream, z, shared=(w,), rows=("dz",))), case)
    for mean, right in ((z.mean(), case.z.mean()), (z.mean(axis=0), case.z.mean(axis=0))):
        (got,) = compute(*accumulate(lambda x, m: (((x - m) ** 2).sum(axis=0),), z, shared=(mean,)))
        assert np.allclose(got, ((case.z - right) ** 2).sum(axis=0), rtol=12 * C * EPS["float64"], atol=0)


@pytest.mark.usefixtures("fine")
def test_array_twice() -> None:
    x = draw(12).z
    reader = Reader(x)
    z = da.from_array(reader, chunks=(5, 3))
    (got,) = compute(*accumulate(lambda x, y: (x.T @ y,), z, z))
    assert np.all(np.abs(got - x.T @ x) <= C * math.sqrt(12) * EPS["float64"] * (abs(x).T @ abs(x)))
    assert reader.reads.tolist() == [1] * 12


@pytest.mark.usefixtures("fine")
def test_persisted() -> None:
    case = draw(12)
    z, upstream = dask.persist(da.from_array(case.z, chunks=(5, 3)), da.from_array(case.da, chunks=(5, 2)))
    check(compute(*accumulate(affine_backward, upstream, z, shared=(case.w,), rows=("dz",))), case)


@pytest.mark.parametrize("parts", [(0, 20, 40), (20, 40, 0, 20), (30, 40, 0, 10)], ids=str)
def test_chunks_that_are_not_read_at_once(parts: tuple[int, ...]) -> None:
    """Small chunks that go to one task, of two sources or not one after another in one."""
    x = draw(40).z
    one, other = (da.from_array(Reader(y), chunks=(4, 3)) for y in (x, -x))
    batch = [source[a:b] for source in (one, other) for a, b in itertools.pairwise(parts) if a < b]
    (got,) = compute(*accumulate(lambda x: (x,), da.concatenate([*batch, one[::2]]), rows=(0,)))
    rows = [y[a:b] for y in (x, -x) for a, b in itertools.pairwise(parts) if a < b]
    np.testing.assert_array_equal(got, np.concatenate([*rows, x[::2]]))
    for fuses in (None, False):
        with dask.config.set({"optimization.fuse.active": fuses}):
            (both,) = compute(*accumulate(lambda x: (x,), da.concatenate([one, other]), rows=(0,)))
        np.testing.assert_array_equal(both, np.concatenate([x, -x]))


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_collector(monkeypatch: pytest.MonkeyPatch, *, collects: bool) -> None:
    """It is left as it was found."""
    monkeypatch.setattr(gc, "isenabled", lambda: collects)
    calls = []
    monkeypatch.setattr(gc, "disable", lambda: calls.append("off"))
    monkeypatch.setattr(gc, "enable", lambda: calls.append("on"))
    gradients(draw(5), 2)
    assert calls == (["off", "on"] if collects else ["off"])


@st.composite
def batches(drawn: st.DrawFn) -> tuple[Case, Any, Any]:
    """Draw a batch, with two divisions of its rows, and of its features."""
    rows = drawn(st.integers(0, 12))
    cuts = [sorted(drawn(st.lists(st.integers(0, rows), max_size=4))) for _ in range(2)]
    splits = tuple(tuple(b - a for a, b in itertools.pairwise((0, *of_array, rows))) for of_array in cuts)
    k, n = (drawn(st.integers(1, 3)) for _ in range(2))
    case = draw(rows, k, n, drawn(st.sampled_from(["float32", "float64", "complex64"])))
    return case, splits, tuple(drawn(st.integers(1, size)) for size in (n, k))


@settings(max_examples=40, deadline=None)
@given(batches())
def test_any_batch(drawn: tuple[Case, Any, Any]) -> None:
    case, splits, features = drawn
    batch = (da.from_array(x, chunks=chunks) for x, *chunks in zip(case, splits, features, strict=False))
    with mock.patch.multiple(_plan, TASK_BYTES=100, _STRIP_ROWS=(2, 2)), dask.config.set(scheduler="synchronous"):
        check(compute(*accumulate(affine_backward, *batch, shared=(case.w,), rows=("dz",))), case)


def softmax_step(z: Any, y: Any, w: Any) -> tuple[Any, ...]:
    loss, upstream = softmax_cross_entropy(z @ w, y, reduction="sum")
    return (loss, *affine_backward(upstream, z, w))


@pytest.mark.usefixtures("fine")
def test_steps() -> None:
    """A whole classifier, and a product, give what they give on NumPy at once."""
    case = draw(30)
    rng = np.random.default_rng(5)
    y = rng.integers(2, size=30)
    z, labels = da.from_array(case.z, chunks=7), da.from_array(y, chunks=10)
    in_one_call = partial(loss_and_gradients, loss=softmax_cross_entropy, reduction="sum", wrt=("z", "w", "b"))
    b = np.zeros(case.w.shape[1])
    for step, shared in ((softmax_step, (case.w,)), (in_one_call, (case.w, b))):
        got = compute(*accumulate(step, z, labels, shared=shared, rows=(1,)))
        for x, right in zip(got, softmax_step(case.z, y, case.w), strict=True):
            # Each of 30 terms is at most 10 in these draws.
            np.testing.assert_allclose(x, right, rtol=0, atol=C * math.sqrt(30) * EPS["float64"] * 10)
    product = accumulate(matmul_backward, da.from_array(case.da, chunks=7), z, shared=(case.w,), rows=("dx1",))
    check((*compute(*product), None), case)
    mean, size = compute(product.dx2 / 30, abs(product.dx2).sum())
    right = case.z.T @ case.da
    np.testing.assert_allclose(mean, right / 30, rtol=0, atol=C * math.sqrt(30) * EPS["float64"] * 10)
    np.testing.assert_allclose(size, np.abs(right).sum(), rtol=0, atol=6 * C * math.sqrt(30) * EPS["float64"] * 10)
