"""The arrays that `accumulate` takes: rows that differ, narrow floats, byte orders, other libraries, shared arrays."""

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace

from pullback import affine_backward
from pullback.dask import _inputs, _plan
from tests.harness.batches import accumulate, check, compute, draw, gradients


@pytest.fixture(params=[1, 2**23], ids=["a chunk a task", "several chunks a task"], autouse=True)
def task_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "TASK_BYTES", request.param)


def product(x: Any, y: Any) -> tuple[Any]:
    return (x.T @ y,)


def claim(sizes: list[int], promised: tuple[int, ...]) -> Any:
    """Return a lazy array whose chunks have other sizes than it promises."""
    chunks = [dask.delayed(np.full)((size, 2), float(i)) for i, size in enumerate(sizes)]
    parts = zip(chunks, promised, strict=True)
    return da.concatenate([da.from_delayed(chunk, (size, 2), dtype="float64") for chunk, size in parts])


RULE = r"^accumulate: each chunk must have the same number of rows in all arrays of the batch, .* expects; got "


@pytest.mark.parametrize("wrong", [4, 6, 0, 1])
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_rejects_chunks_that_break_their_promise(wrong: int, chunk: int) -> None:
    sizes = [5, 5, 5]
    sizes[chunk] = wrong
    bad, good = claim(sizes, (5, 5, 5)), claim([5, 5, 5], (5, 5, 5))
    for batch, counts in (((bad, good), (wrong, 5)), ((good, bad), (5, wrong)), ((bad, bad), (wrong, wrong))):
        got = f"{counts[0]} in array 0 and {counts[1]} in array 1 in chunk {chunk}, where Dask expects 5"
        for rows in ((), (1,)):
            lazy = accumulate(lambda x, y: (x.T @ y, x), *batch, rows=rows) if rows else accumulate(product, *batch)
            with pytest.raises(ValueError, match=RULE + got):
                compute(*lazy)
    bad.compute_chunk_sizes()  # the way out
    (got,) = compute(*accumulate(lambda x: (x.sum(axis=0),), bad))
    np.testing.assert_array_equal(got, bad.compute().sum(axis=0))


def test_rejects_a_source_that_is_shorter_than_it_claims() -> None:
    """Neighbouring chunks of one source are read at once."""

    class Short:
        shape, dtype, ndim = (15, 2), np.dtype(float), 2

        def __getitem__(self, index: tuple[slice, ...]) -> Any:
            return np.ones((13, 2))[index]

    (lazy,) = accumulate(lambda x: (x.sum(axis=0),), da.from_array(Short(), chunks=(5, 2)))
    with pytest.raises(ValueError, match=RULE + r"(3 in array 0 in chunk 2|13 in array 0 in chunk 0), where Dask ex"):
        compute(lazy)


def test_rejects_rows_of_which_one_array_lost_some() -> None:
    x, y = (da.from_array(np.arange(30.0).reshape(15, 2), chunks=(5, 2)) for _ in range(2))
    kept = x[:, 0] > 4
    for batch, got in (
        ((x[kept], y), "2 in array 0 and 5 in array 1"),
        ((y, x[kept]), "5 in array 0 and 2 in array 1"),
    ):
        with pytest.raises(ValueError, match=f"{RULE}{got} in chunk 0, where Dask expects 5"):
            compute(*accumulate(product, *batch))
    with pytest.raises(ValueError, match=f"{RULE}2 in array 0 and 4 in array 1 in chunk 0. Filter all arrays alike"):
        compute(*accumulate(product, x[kept], y[y[:, 0] > 0]))
    (got,) = compute(*accumulate(product, x[kept], y[kept]))  # the way out
    rows = np.arange(6.0, 30).reshape(12, 2)
    np.testing.assert_allclose(got, rows.T @ rows, rtol=1e-14)


def test_says_how_an_array_of_labels_follows_a_filtered_batch() -> None:
    x, y = np.arange(30.0).reshape(15, 2), np.arange(15)
    lazy = da.from_array(x, chunks=(5, 2))
    kept = lazy[:, 0] > 4
    with pytest.raises(TypeError, match=r"Make one before rows are selected, with dask.array.from_array\(x, chunks="):
        accumulate(product, lazy[kept], y)
    (got,) = compute(*accumulate(product, lazy[kept], da.from_array(y, chunks={0: lazy.chunks[0]})[kept]))
    np.testing.assert_allclose(got, x[3:].T @ y[3:], rtol=1e-14)
    with pytest.raises(TypeError, match=r"Make one with dask.array.from_array\(x, chunks=\{0: 10_000\}\)$"):
        accumulate(product, lazy, y)
    (got,) = compute(*accumulate(product, lazy, da.from_array(y, chunks={0: 10_000})))
    np.testing.assert_allclose(got, x.T @ y, rtol=1e-14)


def blocks(x: Any, convert: Any, chunks: int) -> Any:
    """Return a lazy array whose blocks are of another library."""
    return da.from_array(x, chunks={0: chunks}).map_blocks(convert, meta=convert(np.empty((0,) * x.ndim, x.dtype)))


LIBRARIES: dict[str, tuple[Any, str]] = {
    "numpy": (lambda x: x.astype("float16"), "float16"),
    "torch": (lambda x: torch.asarray(x, dtype=torch.bfloat16), "bfloat16"),
    "torch half": (lambda x: torch.asarray(x, dtype=torch.float16), "float16"),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("lazy_shared", [True, False])
def test_narrow_sums_overflow_only_where_their_value_does(
    library: str, monkeypatch: pytest.MonkeyPatch, *, lazy_shared: bool
) -> None:
    """Rows of +10, then rows of -10: each strip's sum is larger than float16 holds, and the total is 0."""
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (10_000, 10_000))
    convert, dtype = LIBRARIES[library]
    upstream = np.repeat([10.0, -10.0], 20_000)[:, None]
    z = np.full((40_000, 2), 2.0)
    w = da.from_array(np.ones((2, 1))).map_blocks(convert) if lazy_shared else convert(np.ones((2, 1)))
    if lazy_shared and library != "numpy":
        w = blocks(np.ones((2, 1)), convert, 2)
    batch = [blocks(x, convert, 10_000) for x in (upstream, z)]
    lazy = accumulate(affine_backward, *batch, shared=(w,), rows=("dz",))
    dw, db = compute(lazy.dw, lazy.db)
    dz = dask.compute(*lazy.dz.to_delayed().ravel())
    for x in (*dz, dw, db):
        assert str(x.dtype).endswith(dtype)
    assert np.asarray(dw.tolist()).tolist() == [[0.0], [0.0]]
    assert np.asarray(db.tolist()).tolist() == [0.0]
    assert dz[0][0].tolist() == [10, 10]
    assert dz[-1][-1].tolist() == [-10, -10]
    tens = blocks(abs(upstream), convert, 10_000)
    (total,) = compute(*accumulate(lambda x: (array_namespace(x).sum(x, axis=0),), tens))
    assert str(total.dtype).endswith(dtype)
    assert float(total[0]) == (np.inf if dtype == "float16" else 195 * 2048)  # 400,000 in 8 bits


def test_narrow_shared_array_and_wide_batch() -> None:
    """A sum is narrow like its weights, after it was added in float64."""
    upstream, z = np.repeat([1.0, -1.0], 100)[:, None] * 1000, np.full((200, 2), 100.0)
    batch = [da.from_array(x.astype("float32"), chunks={0: 100}) for x in (upstream, z)]
    _, dw, _ = accumulate(affine_backward, *batch, shared=(np.ones((2, 1), "float16"),), rows=("dz",))
    (got,) = compute(dw)
    assert dw.dtype == got.dtype == "float16"
    assert got.tolist() == [[0.0], [0.0]]


def test_narrow_step_that_is_not_for_wide_blocks() -> None:
    w = torch.ones((2, 1), dtype=torch.float16)
    z = blocks(np.ones((6, 2)), LIBRARIES["torch half"][0], 2)
    with pytest.raises(
        ValueError, match=r"must take float32 in place of .* Give the arrays that step itself holds in s"
    ):
        accumulate(lambda x: ((x @ w).sum(0),), z)
    (got,) = compute(*accumulate(lambda x, w: ((x @ w).sum(0),), z, shared=(w,)))
    assert got.tolist() == [12]


@pytest.mark.parametrize("chunks", [7, 23])
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">c8"])
def test_byte_order_of_another_machine(dtype: str, chunks: int) -> None:
    case = draw(23, dtype=dtype[1:])
    batch = [da.from_array(x.astype(dtype), chunks={0: chunks}) for x in case[:2]]
    for w in (case.w.astype(dtype), da.from_array(case.w.astype(dtype))):
        got = compute(*accumulate(affine_backward, *batch, shared=(w,), rows=("dz",)))
        check(got, case)
        assert all(x.dtype.isnative for x in got)


@pytest.mark.parametrize("strips", [1, 3])
def test_rows_of_arrays_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, strips: int) -> None:
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (12 // strips, 12 // strips))
    x = np.arange(24.0, dtype="float32").reshape(12, 2)
    got, total = accumulate(lambda x: (x * 2, x.sum(0)), blocks(x, jnp.asarray, 12), rows=(0,))
    rows, added = compute(got, total)
    assert isinstance(rows, jnp.ndarray)
    np.testing.assert_array_equal(rows, x * 2)
    np.testing.assert_array_equal(added, x.sum(axis=0))


@pytest.mark.parametrize("strips", [1, 3])
def test_step_that_uses_its_buffer_again(monkeypatch: pytest.MonkeyPatch, strips: int) -> None:
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (6 // strips, 6 // strips))
    x = np.arange(36.0).reshape(18, 2)
    buffer = np.empty((6, 2))

    def step(x: Any) -> tuple[Any, Any]:
        out = np.multiply(x, 2, out=buffer[: len(x)]) if len(x) <= 6 else x * 2
        return out, out.sum(axis=0)

    with dask.config.set(scheduler="synchronous"):
        rows, total = compute(*accumulate(step, da.from_array(x, chunks=(6, 2)), rows=(0,)))
    np.testing.assert_array_equal(rows, 2 * x)
    np.testing.assert_array_equal(total, 2 * x.sum(axis=0))


@pytest.mark.parametrize(("k", "n"), [(0, 2), (3, 0), (0, 0)])
def test_sums_that_are_empty(k: int, n: int) -> None:
    """A sum with a first axis of 0 is no row that was forgotten in `rows`."""
    case = draw(10, k, n)
    check(compute(*gradients(case, 4)), case)
    forgotten = r"dz has shape \(0, \d\) on zero rows, and so keeps the rows of the batch: name it in rows=\('dz',\)$"
    with pytest.raises(ValueError, match=forgotten):
        gradients(case, 4, rows=())


def test_step_that_raises_on_rows_of_zeros() -> None:
    def step(x: Any) -> tuple[Any]:
        if len(x) and not np.any(x):
            raise ZeroDivisionError
        return (x,)

    with pytest.raises(ValueError, match=r"0 has shape \(0, 2\) on zero rows, and so keeps the rows of the batch: nam"):
        accumulate(step, da.ones((6, 2), chunks=2))


@pytest.mark.parametrize("rows", ["iterator", "set", "dict keys"])
def test_rows_of_any_kind(rows: str) -> None:
    case = draw(10)
    kinds: dict[str, Any] = {"iterator": iter(("dz",)), "set": {"dz", 0}, "dict keys": {"dz": 1}.keys()}
    check(compute(*gradients(case, 4, rows=kinds[rows])), case)


@pytest.mark.parametrize("rows", [None, 0])
def test_rejects_rows_that_name_nothing(rows: Any) -> None:
    with pytest.raises(ValueError, match=rf"rows must be a tuple of names or indices .*; got {rows}$"):
        gradients(draw(10), 4, rows=rows)


def weights(kind: str) -> Iterator[Any]:
    w = np.arange(6.0).reshape(3, 2)
    yield {"C": w, "Fortran": np.asfortranarray(w), "view": np.arange(12.0).reshape(3, 4)[:, ::2]}[kind]


@pytest.mark.parametrize("kind", ["C", "Fortran", "view"])
def test_shared_array_may_change_before_compute(kind: str) -> None:
    case = draw(10)
    (w,) = weights(kind)
    lazy = gradients(case._replace(w=w), 4)
    right = case._replace(w=w.copy())
    w += 1
    check(compute(*lazy), right)
    check(compute(*gradients(case._replace(w=w), 4)), case._replace(w=w))


def test_shared_array_of_torch_may_change_before_compute() -> None:
    w = torch.ones(2, dtype=torch.float64)
    (lazy,) = accumulate(lambda x, w: ((x * w).sum(0),), blocks(np.ones((4, 2)), torch.asarray, 2), shared=(w,))
    w += 1
    assert compute(lazy)[0].tolist() == [4, 4]


def test_large_shared_array_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy that the docstring names is the way out."""
    monkeypatch.setattr(_inputs, "COPIED_BYTES", 8 * 6 - 1)
    case = draw(10)
    w = case.w.copy()
    changed, kept = gradients(case._replace(w=w), 4), gradients(case._replace(w=w.copy()), 4)
    w += 1
    check(compute(*kept), case)
    check(compute(*changed), case._replace(w=w))


def test_shared_tuple_is_no_task() -> None:
    """Dask runs a tuple that begins with a function."""
    (got,) = compute(*accumulate(lambda x, f: (f[0](x * f[1][0], axis=0),), da.ones((4, 2)), shared=((np.sum, [3]),)))
    assert got.tolist() == [12, 12]


def test_shared_string_is_no_key() -> None:
    x = da.ones((4, 2))
    (got,) = compute(*accumulate(lambda x, name: (x.sum(axis=0) * (name != ""),), x, shared=(x.name,)))
    assert got.tolist() == [4, 4]
