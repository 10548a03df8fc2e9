"""Nested containers in `accumulate`: what a step takes in `shared`, and what it returns."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace

from pullback import grad, value_and_grad
from pullback._core import trees
from pullback.dask import _graph, _plan
from tests.harness.batches import Reader, Tasks, accumulate, compute
from tests.harness.pair_laws import EPS, C

M, K, H = 90, 4, 3


@pytest.fixture(autouse=True)
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a block of each chunk, and a strip of each four rows."""
    monkeypatch.setattr(_plan, "TASK_BYTES", 1)
    monkeypatch.setattr(_plan, "_STRIP_ROWS", (4, 4))


@dataclass
class Layer:
    """Parameters that check themselves."""

    w: Any
    b: Any

    def __post_init__(self) -> None:
        assert (self.w.ndim, self.b is None or self.b.ndim) in {(2, 1), (2, True)}


class Network(NamedTuple):
    hidden: Layer
    last: list[Any]


def network(dtype: str = "float64") -> Any:
    rng = np.random.default_rng(6)
    w1, b1, w2 = (rng.standard_normal(shape).astype(dtype) for shape in ((K, H), (H,), (H, 1)))
    return {"net": Network(Layer(w1, b1), [w2, None]), "scale": w1[0, 0].reshape(())}


def batch(dtype: str = "float64") -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((M, 1)).astype(dtype)


def loss(x: Any, y: Any, params: Any) -> Any:
    xp = array_namespace(x, y)
    (layer, (w2, none)) = params["net"]
    assert none is None
    return xp.sum((xp.tanh(x @ layer.w + layer.b) @ w2 * params["scale"] - y) ** 2)


def total(x: Any) -> Any:
    return array_namespace(x).sum(x)


def lazy(*arrays: Any, rows: int = 20) -> list[Any]:
    return [da.from_array(x, chunks={0: rows}) for x in arrays]


def assert_close(got: Any, right: Any, eps: float = EPS["float64"]) -> None:
    """Compare trees: each array to C·√M·eps of its largest entry, or of 1."""
    assert trees.paths(got) == trees.paths(right)
    for x, y in zip(trees.leaves(got), trees.leaves(right), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=C * np.sqrt(M) * eps * max(1, np.max(np.abs(y))))


def compute_tree(tree: Any) -> Any:
    return trees.fill(tree, compute(*trees.leaves(tree)))


def test_gradients_of_a_nested_container() -> None:
    params, (x, y) = network(), batch()
    reader = Reader(x)
    lazies = [da.from_array(reader, chunks=(20, K)), *lazy(y)]
    got = accumulate(value_and_grad(loss, argnums=2), *lazies, shared=(params,))
    assert reader.reads.tolist() == [0] * M
    value, gradient = compute_tree(got)
    assert reader.reads.tolist() == [1] * M
    assert (type(got), type(gradient), type(gradient["net"])) == (tuple, dict, Network)
    assert_close((value, gradient), value_and_grad(loss, argnums=2)(x, y, params))


def test_tasks() -> None:
    """One task a block, and those that add eight of their results."""
    value, gradient = accumulate(value_and_grad(loss, argnums=2), *lazy(*batch(), rows=1), shared=(network(),))
    with Tasks() as tasks:
        compute(value, gradient["scale"])
    assert tasks.count <= 1.3 * M


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits(dtype: str) -> None:
    got = accumulate(value_and_grad(loss, argnums=2), *lazy(*batch(dtype)), shared=(network(dtype),))
    value, gradient = got
    arrays = value, gradient["net"].hidden.w, gradient["net"].hidden.b, gradient["net"].last[0], gradient["scale"]
    found = []
    for options in ({"scheduler": "synchronous"}, {"num_workers": 1}, {"num_workers": 8}):
        with dask.config.set(options):
            found.append([x.tobytes() for x in compute(*arrays)])
    assert found[0] == found[1] == found[2]
    assert all(x.dtype == dtype for x in arrays)


def test_lazy_leaves() -> None:
    params, (x, y) = network(), batch()
    right = value_and_grad(loss, argnums=2)(x, y, params)
    net, scale = params["net"], da.from_array(params["scale"])
    w2 = da.from_array(net.last[0], chunks=1)
    mixed = {"net": net._replace(last=[w2, None]), "scale": scale}
    for given in (mixed, mixed | {"scale": params["scale"]}):
        assert_close(compute_tree(accumulate(value_and_grad(loss, argnums=2), *lazy(x, y), shared=(given,))), right)


KINDS: dict[str, Any] = {
    "array": lambda x: x.sum(axis=0),
    "list": lambda x: [x.sum(axis=0), None],
    "dict": lambda x: {"a": x.sum(axis=0), 1: x.sum(), "1": x.max(initial=0, axis=0) * 0 + x.sum()},
    "default": lambda x: defaultdict(list, {"a": [x.sum(axis=0)]}),
    "dataclass": lambda x: Layer(x.T @ x, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_containers_of_results(kind: str) -> None:
    x, _ = batch()
    got = accumulate(KINDS[kind], *lazy(x))
    right = KINDS[kind](x)
    assert type(got) is (da.Array if kind == "array" else type(right))
    assert_close(compute_tree(got), right)


@pytest.mark.parametrize("rows", [("0.1",), ("0.1", 2), (2, "0.1.b"), (0, 2)], ids=str)
def test_rows_in_containers(rows: Any) -> None:
    x, _ = batch()

    def step(x: Any) -> Any:
        nested = {"b": x} if "b" in str(rows) else [x * 2, x]
        return ((x if 0 in rows else x.sum(axis=0)), nested), x.sum(), (x * 3 if 2 in rows else x.sum())

    got = accumulate(step, *lazy(x), rows=rows)
    assert_close(compute_tree(got), step(x))


def squares(x: Any, w: Any) -> tuple[Any, Any]:
    residuals = x @ w
    return total(residuals**2), residuals


def test_auxiliary_output() -> None:
    """A loss with auxiliary output that has the rows."""
    x, _ = batch()
    w = np.ones(K)
    evaluate = value_and_grad(squares, argnums=1, has_aux=True)
    (value, residuals), gradient = accumulate(evaluate, *lazy(x), shared=(w,), rows=("0.1",))
    assert residuals.chunks == ((20, 20, 20, 20, 10),)
    assert_close(compute(value, residuals, gradient), (*evaluate(x, w)[0], evaluate(x, w)[1]))


def test_second_derivatives_in_a_step() -> None:
    x, y = batch()

    def curvature(x: Any, y: Any, w: Any) -> Any:
        return grad(lambda w: total(grad(lambda w: total((x @ w - y[:, 0]) ** 4))(w)))(w)

    w = np.ones(K) / 8
    got = accumulate(curvature, *lazy(x, y), shared=(w,))
    right = 12 * x.T @ ((x @ w - y[:, 0]) ** 2 * (x @ np.ones(K)))
    assert_close(compute(got), (right,))


def test_narrow_leaves() -> None:
    """Narrow parameters in a container run in float32, and their gradients are narrow."""
    x, y = batch("float16")
    params = network("float16")
    value, gradient = accumulate(value_and_grad(loss, argnums=2), *lazy(x, y), shared=(params,))
    assert value.dtype == gradient["scale"].dtype == "float16"
    right, _ = value_and_grad(loss, argnums=2)(
        x.astype("f4"), y.astype("f4"), trees.rebuild(params, lambda x: x.astype("f4"))
    )
    assert abs(compute(value)[0] - right) <= EPS["float16"] * right


def test_complex_leaves() -> None:
    x, _ = batch()
    w = {"w": np.arange(K) + 1j}
    got = accumulate(value_and_grad(lambda x, p: total(abs(x @ p["w"]) ** 2), argnums=1), *lazy(x), shared=(w,))
    assert_close(compute_tree(got), (np.sum(abs(x @ w["w"]) ** 2), {"w": 2 * x.T @ (x @ w["w"])}))


def test_torch_leaves() -> None:
    x, _ = batch()
    blocks = lazy(x)[0].map_blocks(torch.asarray, meta=torch.empty((0, 0), dtype=torch.float64))
    w = {"w": torch.ones(K, dtype=torch.float64)}
    got = accumulate(grad(lambda x, p: total((x @ p["w"]) ** 2), argnums=1), blocks, shared=(w,))
    w["w"] += 1  # the gradient is that of what was given
    (found,) = compute(got["w"])
    assert isinstance(found, torch.Tensor)
    assert_close(found.numpy(), 2 * x.T @ (x @ np.ones(K)))


def test_leaves_may_change_before_compute() -> None:
    x, _ = batch()
    w = {"w": [np.ones(K)]}
    got = accumulate(lambda x, p: x @ p["w"][0], *lazy(x), shared=(w,), rows=(0,))
    w["w"][0] += 1
    w["w"].append(np.zeros(3))
    assert_close(compute(got), (x @ np.ones(K),))


def test_leaves_that_are_no_arrays() -> None:
    x, _ = batch()
    options = {"power": 2, "name": "sum", "missing": None, "function": np.sum}

    def step(x: Any, options: Any, dtype: Any) -> Any:
        assert (options["name"], options["missing"]) == ("sum", None)
        return options["function"](x ** options["power"], dtype=dtype)

    got = accumulate(step, *lazy(x), shared=(options, np.float64))
    assert_close(compute(got), (np.sum(x**2),))
    assert all(layer.plan.shared == [] for layer in _graph.blocks_of(got))
