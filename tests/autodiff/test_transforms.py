"""Gradients, Jacobians and products of whole functions, on every backend."""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from tests.harness.backend import Backend
from tests.harness.pair_laws import EPS, C


def layer(z: Any, w: Any, b: Any) -> Any:
    xp = array_namespace(z, w, b)
    h = xp.tanh(z @ w + b)
    return xp.sum(h * h)


def draw(backend: Backend) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Draw z, w and b, for NumPy and for the backend."""
    rng = np.random.default_rng(3)
    exact = rng.standard_normal((5, 3)), rng.standard_normal((3, 4)), rng.standard_normal(4)
    return exact, tuple(map(backend.asarray, exact))


def by_hand(z: Any, w: Any, b: Any) -> tuple[Any, tuple[Any, ...]]:
    h = np.tanh(z @ w + b)
    g = 2 * h * (1 - h * h)
    return np.sum(h * h), (g @ w.T, z.T @ g, g.sum(axis=0))


def close(backend: Backend, got: Any, expected: Any, terms: int = 64) -> bool:
    got = backend.numpy(got)
    eps = EPS[backend.real]
    return got.shape == np.shape(expected) and bool(
        np.all(np.abs(got - expected) <= C * math.sqrt(terms) * eps * (1 + np.max(np.abs(expected), initial=0)))
    )


def test_value_and_grad(backend_one_device: Backend) -> None:
    exact, arrays = draw(backend_one_device)
    value, gradients = backend_one_device.call(pb.value_and_grad(layer, (0, 1, 2)), *arrays)
    right, expected = by_hand(*exact)
    assert close(backend_one_device, value, right)
    for x, g, e in zip(arrays, gradients, expected, strict=True):
        assert type(g) is type(x)
        assert g.dtype == x.dtype
        assert close(backend_one_device, g, e)


def test_grad_for_one_argument_keeps_others_constant(backend_one_device: Backend) -> None:
    exact, arrays = draw(backend_one_device)
    assert close(backend_one_device, pb.grad(layer, 1)(*arrays), by_hand(*exact)[1][1])
    assert close(backend_one_device, pb.grad(layer, -1)(*arrays), by_hand(*exact)[1][2])


def test_jvp_is_the_adjoint_of_vjp(backend_one_device: Backend) -> None:
    exact, arrays = draw(backend_one_device)
    out, tangent = pb.jvp(layer, arrays, arrays)
    expected = sum(np.sum(g * x) for g, x in zip(by_hand(*exact)[1], exact, strict=True))
    assert close(backend_one_device, out, by_hand(*exact)[0])
    assert close(backend_one_device, tangent, expected)


def test_linearize_pushes_many_tangents(backend_one_device: Backend) -> None:
    exact, arrays = draw(backend_one_device)
    out, push = pb.linearize(lambda z, w: z @ w, *arrays[:2])
    z, w, _ = exact
    assert close(backend_one_device, out, z @ w)
    for scale in (1.0, -2.0):
        tangent = push(arrays[0] * scale, arrays[1])
        assert close(backend_one_device, tangent, scale * z @ w + z @ w)


def test_hvp_is_the_difference_of_gradients(backend_one_device: Backend) -> None:
    exact, arrays = draw(backend_one_device)
    z, w, b = exact
    (got,) = pb.hvp(lambda x: layer(pb.constant(arrays[0]), x, pb.constant(arrays[2])), (arrays[1],), (arrays[1],))
    h = np.tanh(z @ w + b)
    a = z @ w
    g = (2 * (1 - h * h) ** 2 - 4 * h * h * (1 - h * h)) * a
    assert close(backend_one_device, got, z.T @ g)


def test_third_derivative_by_nesting(backend_one_device: Backend) -> None:
    x = backend_one_device.asarray(np.asarray(0.5))

    def f(x: Any) -> Any:
        return array_namespace(x).exp(2 * x)

    third = pb.grad(pb.grad(pb.grad(f)))(x)
    assert close(backend_one_device, third, np.asarray(8 * math.e))


class Parameters(NamedTuple):
    w: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Model:
    first: Parameters
    scale: Any


def test_gradient_has_the_structure_of_its_argument(backend_one_device: Backend) -> None:
    exact, (z, w, b) = draw(backend_one_device)
    model = Model(Parameters(w, b), {"s": [b, (None, b)]})

    def loss(model: Model) -> Any:
        return layer(pb.constant(z), *model.first) + array_namespace(model.first.b).sum(model.scale["s"][0])

    got = pb.grad(loss)(model)
    _, dw, db = by_hand(*exact)[1]
    assert isinstance(got, Model)
    assert close(backend_one_device, got.first.w, dw)
    assert close(backend_one_device, got.first.b, db)
    assert close(backend_one_device, got.scale["s"][0], np.ones(4))
    assert got.scale["s"][1][0] is None
    assert close(backend_one_device, got.scale["s"][1][1], np.zeros(4))


def test_auxiliary_output(backend_one_device: Backend) -> None:
    exact, (z, w, b) = draw(backend_one_device)

    def loss(w: Any) -> Any:
        a = pb.constant(z) @ w
        return layer(pb.constant(z), w, pb.constant(b)), {"a": a, "name": "layer"}

    (value, aux), gradient = pb.value_and_grad(loss, has_aux=True)(w)
    assert close(backend_one_device, value, by_hand(*exact)[0])
    assert close(backend_one_device, aux["a"], exact[0] @ exact[1])
    assert type(aux["a"]) is type(w)
    assert aux["name"] == "layer"
    assert close(backend_one_device, gradient, by_hand(*exact)[1][1])
    gradient, aux = pb.grad(loss, has_aux=True)(w)
    assert close(backend_one_device, gradient, by_hand(*exact)[1][1])
    out, pull, aux = pb.vjp(loss, w, has_aux=True)
    assert close(backend_one_device, pull(out * 0 + 1)[0], by_hand(*exact)[1][1])
    with pytest.raises(TypeError, match=r"^grad: with has_aux=True the function must return \(output, auxiliary\)"):
        pb.grad(lambda w: w, has_aux=True)(w)


def test_jacobian_in_both_modes(backend_one_device: Backend) -> None:
    if backend_one_device.mode == "unknown rows":
        backend_one_device = dataclasses.replace(backend_one_device, mode="one chunk")
    rng = np.random.default_rng(4)
    x, m = rng.standard_normal(3), rng.standard_normal((5, 3))
    tall, wide = map(backend_one_device.asarray, (m, m.T))
    for matrix, exact in ((tall, m), (wide, m.T)):
        point = backend_one_device.asarray(rng.standard_normal(exact.shape[1]))
        got = pb.jacobian(lambda x, a: a @ x)(point, matrix)
        assert close(backend_one_device, got, exact)
    both = pb.jacobian(lambda x, y: (x * y[0], [y]), (0, 1))(
        backend_one_device.asarray(x), backend_one_device.asarray(x)
    )
    (dx, dy), ((zero, one),) = both[0], both[1]
    assert close(backend_one_device, dx, np.eye(3) * x[0])
    assert close(backend_one_device, dy, np.outer(x, [1, 0, 0]))
    assert close(backend_one_device, zero, np.zeros((3, 3)))
    assert close(backend_one_device, one, np.eye(3))


def test_hessian_and_its_operator(backend_one_device: Backend) -> None:
    exact = np.asarray([1.5, -0.5, 2.0])
    x = backend_one_device.asarray(exact)

    def f(x: Any) -> Any:
        xp = array_namespace(x)
        return xp.sum(x * x * x) + x[0] * x[1]

    expected = np.diag(6 * exact)
    expected[0, 1] = expected[1, 0] = 1
    assert close(backend_one_device, pb.hessian(f)(x), expected)
    operator = pb.hessian_operator(f, x)
    assert operator.shape == (3, 3)
    assert close(backend_one_device, operator.matvec(x), expected @ exact)
    assert close(backend_one_device, operator.rmatvec(x), expected @ exact)


def test_jacobian_operator(backend_one_device: Backend) -> None:
    exact, (z, w, _) = draw(backend_one_device)
    operator = pb.jacobian_operator(lambda p: p["z"] @ p["w"], {"z": z, "w": w})
    assert operator.shape == (20, 27)
    v, u = (np.arange(float(n)) for n in (27, 20))
    right = v[:15].reshape(5, 3) @ exact[1] + exact[0] @ v[15:].reshape(3, 4)
    assert close(backend_one_device, operator.matvec(backend_one_device.asarray(v)), right.reshape(-1))
    g = u.reshape(5, 4)
    left = np.concatenate([(g @ exact[1].T).reshape(-1), (exact[0].T @ g).reshape(-1)])
    assert close(backend_one_device, operator.rmatvec(backend_one_device.asarray(u)), left)


def test_ravel_tree_and_back(backend_one_device: Backend) -> None:
    _, (z, w, b) = draw(backend_one_device)
    vector, unravel = pb.ravel_tree({"z": z, "rest": (w, b)})
    assert tuple(vector.shape) == (15 + 12 + 4,)
    back = unravel(vector)
    assert close(backend_one_device, back["rest"][0], backend_one_device.numpy(w))

    def of_vector(v: Any) -> Any:
        tree = unravel(v)
        return layer(tree["z"], *tree["rest"])

    gradient = pb.grad(of_vector)(vector)
    exact, _ = draw(backend_one_device)
    assert close(backend_one_device, gradient, np.concatenate([x.reshape(-1) for x in by_hand(*exact)[1]]))
    with pytest.raises(ValueError, match=r"^unravel: the vector must have shape \(31,\)"):
        unravel(vector[1:])
    with pytest.raises(ValueError, match=r"^ravel_tree: the container must hold an array"):
        pb.ravel_tree([])


def test_unused_argument_has_gradient_zero(backend_one_device: Backend) -> None:
    _, (z, w, _) = draw(backend_one_device)
    got = pb.grad(lambda _, w: array_namespace(w).sum(w))(z, w)
    assert close(backend_one_device, got, np.zeros((5, 3)))
    assert got.dtype == z.dtype


def test_stop_gradient(backend_one_device: Backend) -> None:
    exact = np.asarray([1.0, 2.0])
    x = backend_one_device.asarray(exact)
    assert close(backend_one_device, pb.grad(lambda x: x @ pb.stop_gradient(x))(x), exact)
    assert pb.stop_gradient((x, None))[0] is x


def test_cotangent_has_the_dtype_of_its_output() -> None:
    """A cotangent of another dtype is cast: the gradients have the dtypes of their arguments."""
    x, wide = np.asarray([1.0, 2.0], dtype=np.float32), np.asarray([3.0, 4.0])
    out, pull = pb.vjp(lambda x: x * x, x)
    assert out.dtype == np.float32
    (gradient,) = pull(wide)
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, [6.0, 16.0])


def test_results_share_no_memory() -> None:
    x, seed = np.ones(3), np.ones(3)
    _out, pull = pb.vjp(lambda x, y: x + y, x, x)
    dx, dy = pull(seed)
    assert not np.shares_memory(dx, seed)
    assert not np.shares_memory(dx, dy)
    spread = pb.grad(np.sum)(x)
    assert spread.strides != (0,)
    spread[0] = 5.0
    assert list(spread) == [5.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("function", "args", "error", "match"),
    [
        (
            lambda x: x,
            (np.ones(2),),
            TypeError,
            r"^grad: the function must return a real scalar.*got shape \(2,\)",
        ),
        (lambda x: x, (np.ones((), dtype=complex),), TypeError, "real scalar"),
        (lambda _: "x", (np.ones(2),), TypeError, r"^grad: the function must return arrays"),
        (lambda x: x[0], (np.ones(2, dtype=int),), TypeError, r"floating dtype; got int64\. Cast it first"),
        (lambda x: x, (1.0,), TypeError, r"^grad: an argument to differentiate must be an array"),
    ],
)
def test_rejects(function: Any, args: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        pb.grad(function)(*args)


def test_rejects_wrong_argnums_and_cotangents() -> None:
    x = np.ones(2)
    for wrong in (1, (0, 0), -2):
        with pytest.raises(ValueError, match=r"^grad: argnums must"):
            pb.grad(lambda x: x @ x, wrong)(x)
    kinds: list[Any] = ["x", True, 1.0, (0, True), [0]]
    for kind in kinds:
        message = f"grad: argnums must be an integer or a tuple of them; got {kind!r}"
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            pb.grad(lambda x: x @ x, kind)
    transforms: list[Any] = [pb.grad, pb.value_and_grad, pb.jacobian]
    for function in transforms:
        name = function.__name__
        message = (
            rf"^{name}: argnums must be an integer or a tuple .* got ndarray\. Pass arrays as {name}\(function\)\(x\)$"
        )
        with pytest.raises(TypeError, match=message):
            function(lambda x: x @ x, x)
    transforms = [pb.jvp, pb.hvp]
    for function in transforms:
        message = rf"^{function.__name__}: {{}} must be a tuple .* got ndarray\. Pass \(x,\) for one argument$"
        with pytest.raises(TypeError, match=message.format("primals")):
            function(lambda x: x @ x, x, (x,))
        with pytest.raises(TypeError, match=message.format("tangents")):
            function(lambda x: x @ x, (x,), x)
    _, pull = pb.vjp(lambda x: x * x, x)
    with pytest.raises(ValueError, match=r"^vjp: the cotangent must have the structure and shapes of the output"):
        pull(np.ones(3))
    with pytest.raises(ValueError, match=r"^jvp: a tangent must have the structure and shapes"):
        pb.jvp(lambda x: x * x, (x,), (np.ones(3),))
    with pytest.raises(TypeError, match=r"^jacobian: arguments must have real floating dtypes"):
        pb.jacobian(lambda x: x)(np.ones(2, dtype=complex))
