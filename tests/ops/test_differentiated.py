"""PyTorch and JAX differentiate and vmap affine maps, products, forms and stacks: forwards, backwards and the rest.

Each derivative is compared with the central difference of the function itself, in double precision, once and twice.
"""

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pullback
from pullback import TANH, Affine, JacobianOperator, stack_backward, stack_forward

Shapes = tuple[tuple[int, ...], ...]


def affine_tangent(z: Any, w: Any, z_tangent: Any, w_tangent: Any, b_tangent: Any) -> Any:
    return pullback.affine_jvp(z, w, z_tangent=z_tangent, w_tangent=w_tangent, b_tangent=b_tangent)


def bias_tangent(z: Any, w: Any, b_tangent: Any) -> Any:
    return pullback.affine_jvp(z, w, b_tangent=b_tangent)


def matmul_tangent(x1: Any, x2: Any, x1_tangent: Any, x2_tangent: Any) -> Any:
    return pullback.matmul_jvp(x1, x2, x1_tangent=x1_tangent, x2_tangent=x2_tangent)


def operator(z: Any, w: Any, v: Any) -> Any:
    return JacobianOperator(z, w).matvec(v)


def adjoint(z: Any, w: Any, u: Any) -> Any:
    return JacobianOperator(z, w).rmatvec(u)


def single_weight(z: Any) -> Any:
    return pullback.weight_jacobian_slice(z, 1, 2, 3)


def layers(z: Any, w: Any, b: Any, v: Any) -> Any:
    return stack_forward([Affine(w, b), TANH, Affine(v)], z).a


def layers_backward(da: Any, z: Any, w: Any, b: Any, v: Any) -> Any:
    dz, gradients = stack_backward(da, stack_forward([Affine(w, b), TANH, Affine(v)], z).saved)
    assert gradients is not None
    assert gradients[0] is not None
    return dz, *gradients[0]


CASES: dict[str, tuple[Callable[..., Any], Shapes]] = {
    "affine_forward": (pullback.affine_forward, ((4, 3), (3, 2), (2,))),
    "affine_forward, 1-d": (pullback.affine_forward, ((3,), (3, 2), (2,))),
    "affine_forward, 3-d": (pullback.affine_forward, ((2, 4, 3), (3, 2), (2,))),
    "affine_backward": (pullback.affine_backward, ((4, 2), (4, 3), (3, 2))),
    "affine_backward, 3-d": (pullback.affine_backward, ((2, 4, 2), (2, 4, 3), (3, 2))),
    "affine_jvp": (affine_tangent, ((4, 3), (3, 2), (4, 3), (3, 2), (2,))),
    "affine_jvp of b": (bias_tangent, ((4, 3), (3, 2), (2,))),
    "affine_double_backward": (pullback.affine_double_backward, ((4, 3), (3, 2), (2,), (4, 2), (4, 3), (3, 2))),
    "matmul_forward": (pullback.matmul_forward, ((2, 4, 3), (3, 2))),
    "matmul_backward": (pullback.matmul_backward, ((2, 4, 2), (2, 4, 3), (3, 2))),
    "matmul_backward, broadcast": (pullback.matmul_backward, ((2, 3, 2, 2), (2, 1, 2, 3), (3, 3, 2))),
    "matmul_backward, vectors": (pullback.matmul_backward, ((), (3,), (3,))),
    "matmul_jvp": (matmul_tangent, ((4, 3), (3, 2), (4, 3), (3, 2))),
    "matmul_double_backward": (pullback.matmul_double_backward, ((4, 3), (3, 2), (4, 2), (4, 3), (3, 2))),
    "frobenius_inner": (pullback.frobenius_inner, ((4, 3), (4, 3))),
    "frobenius_inner_backward": (pullback.frobenius_inner_backward, ((), (4, 3), (4, 3))),
    "trace_of_product": (pullback.trace_of_product, ((4, 3), (3, 4))),
    "trace_of_product_backward": (pullback.trace_of_product_backward, ((), (4, 3), (3, 4))),
    "quadratic_form": (pullback.quadratic_form, ((4, 3), (3, 3))),
    "quadratic_form_backward": (pullback.quadratic_form_backward, ((4,), (4, 3), (3, 3))),
    "affine_jacobians": (pullback.affine_jacobians, ((2, 3), (3, 2))),
    "weight_jacobian_slice": (single_weight, ((4, 3),)),
    "JacobianOperator.matvec": (operator, ((4, 3), (3, 2), (20,))),
    "JacobianOperator.rmatvec": (adjoint, ((4, 3), (3, 2), (8,))),
    "stack_forward": (layers, ((4, 3), (3, 2), (2,), (2, 2))),
    "stack_backward": (layers_backward, ((4, 2), (4, 3), (3, 2), (2,), (2, 2))),
}
COMPLEX = ["affine_double_backward", "matmul_backward", "frobenius_inner_backward", "quadratic_form_backward"]
# Numbers of rows at which sums over them go other ways: in parts, by blocks of rows, by chains of additions.
LONG: dict[str, tuple[Callable[..., Any], Shapes]] = {
    f"{name}, {rows} rows": (function, tuple(tuple(rows if x == 4 else x for x in shape) for shape in shapes))
    for name, (function, shapes) in CASES.items()
    if name in {"affine_forward", "affine_backward", "frobenius_inner", "quadratic_form_backward"}
    for rows in (300, 1600, 9000)
}


def draw(shapes: Shapes, dtype: str) -> list[Any]:
    rng = np.random.default_rng(7)
    return [
        (rng.standard_normal(x) + (1j * rng.standard_normal(x) if dtype.startswith("complex") else 0)).astype(dtype)
        for x in shapes
    ]


def tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose result is a tuple of arrays."""

    def call(*args: Any) -> tuple[Any, ...]:
        out = function(*args)
        return tuple(x for x in out if x is not None) if isinstance(out, tuple) else (out,)

    return call


def each_subset(count: int) -> list[tuple[bool, ...]]:
    """Return which arguments are batched: each one alone, all but each one, and all."""
    alone = [tuple(i == j for j in range(count)) for i in range(count)]
    return list(dict.fromkeys([*alone, *(tuple(not x for x in some) for some in alone if count > 1), (True,) * count]))


BATCHED = [(name, some) for name, (_, shapes) in CASES.items() for some in each_subset(len(shapes))]
DIFFERENTIATED = [*itertools.product(CASES, ["float64"]), *itertools.product(COMPLEX, ["complex128"])]


# PyTorch compiles what forward mode needs with a function of its own that it has deprecated.
_FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@_FORWARD_MODE
@pytest.mark.backends("torch")
@pytest.mark.parametrize(("name", "dtype"), DIFFERENTIATED)
def test_gradients_of_torch(name: str, dtype: str) -> None:
    """``.backward()``, once and twice, and forward mode."""
    torch: Any = importlib.import_module("torch")
    function, shapes = CASES[name]
    args = [torch.asarray(x).requires_grad_() for x in draw(shapes, dtype)]
    assert torch.autograd.gradcheck(tensors(function), args, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(tensors(function), args)


@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", LONG)
def test_gradients_of_torch_over_many_rows(name: str) -> None:
    torch: Any = importlib.import_module("torch")
    function, shapes = LONG[name]
    args = [torch.asarray(x).requires_grad_() for x in draw(shapes, "float64")]
    assert torch.autograd.gradcheck(tensors(function), args, fast_mode=True)
    assert torch.autograd.gradgradcheck(tensors(function), args, fast_mode=True)


@pytest.mark.backends("torch")
@pytest.mark.parametrize(("name", "batched"), BATCHED)
def test_vmap_of_torch(name: str, batched: tuple[bool, ...]) -> None:
    torch: Any = importlib.import_module("torch")
    vmapped(name, batched, torch.asarray, torch.func.vmap)


@_FORWARD_MODE
@pytest.mark.backends("torch")
@pytest.mark.parametrize("name", CASES)
def test_functional_gradients_of_torch(name: str) -> None:
    """``torch.func.grad`` and ``torch.func.jacfwd`` agree, and ``torch.func.hessian`` runs through both."""
    torch: Any = importlib.import_module("torch")
    function, shapes = CASES[name]
    args = [torch.asarray(x) for x in draw(shapes, "float64")]

    def loss(*args: Any) -> Any:
        return sum(torch.sum(torch.sin(x)) for x in tensors(function)(*args))

    for i in range(len(args)):
        backward, forward = torch.func.grad(loss, i)(*args), torch.func.jacfwd(loss, i)(*args)
        np.testing.assert_allclose(backward, forward, rtol=1e-12, atol=1e-12)
        hessian = torch.func.hessian(loss, i)(*args).reshape(args[i].numel(), -1)
        np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12, atol=1e-12)


@pytest.mark.backends("jax")
@pytest.mark.parametrize(("name", "dtype"), DIFFERENTIATED)
def test_gradients_of_jax(name: str, dtype: str) -> None:
    """``jax.grad``, ``jax.jvp`` and each of them through the other."""
    jax: Any = importlib.import_module("jax")
    test_util: Any = importlib.import_module("jax.test_util")
    function, shapes = CASES[name]
    args = [jax.numpy.asarray(x) for x in draw(shapes, dtype)]
    # Compiled as a whole, and not operation by operation, which takes several times as long.
    compiled = jax.jit(tensors(function))
    test_util.check_grads(compiled, args, order=1, modes=("fwd",))
    # Second orders of array code are PyTorch's to prove: JAX, which compiles each shape, gets a sample.
    test_util.check_grads(compiled, args, order=2 if name in list(CASES)[::4] else 1, modes=("rev",))


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", list(LONG)[::4])
def test_gradients_of_jax_over_many_rows(name: str) -> None:
    jax: Any = importlib.import_module("jax")
    test_util: Any = importlib.import_module("jax.test_util")
    function, shapes = LONG[name]
    args = [jax.numpy.asarray(x) for x in draw(shapes, "float64")]
    test_util.check_grads(jax.jit(tensors(function)), args, order=1, modes=("fwd", "rev"))


@pytest.mark.backends("jax")
@pytest.mark.parametrize("name", CASES)
def test_vmap_of_jax(name: str) -> None:
    """JAX has no operation in place, so that it makes no difference which arguments are batched."""
    jax: Any = importlib.import_module("jax")
    last_alone = tuple(i + 1 == len(CASES[name][1]) for i in range(len(CASES[name][1])))
    vmapped(name, last_alone, jax.numpy.asarray, jax.vmap)


def vmapped(name: str, batched: tuple[bool, ...], asarray: Callable[..., Any], vmap: Callable[..., Any]) -> None:
    """Require of a vmapped function what it returns for each entry of the batch."""
    function, shapes = CASES[name]
    args = [
        asarray(x) for x in draw(tuple((3, *x) if b else x for x, b in zip(shapes, batched, strict=True)), "float64")
    ]
    got = vmap(tensors(function), in_dims_of(batched))(*args)
    for i in range(3):
        right = tensors(function)(*(x[i] if b else x for x, b in zip(args, batched, strict=True)))
        for x, y in zip(got, right, strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-12, atol=1e-12)


def in_dims_of(batched: tuple[bool, ...]) -> tuple[int | None, ...]:
    return tuple(0 if b else None for b in batched)
