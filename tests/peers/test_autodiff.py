"""Each function agrees with what torch.func and JAX derive by themselves, on 200 random cases.

A gradient here is the direction of steepest ascent of a real loss, as PyTorch's is. JAX takes and gives conjugates, and
PyTorch's `jacrev` takes real inputs only: `Jax` and `Torch` make up for that.

Two results may differ by ``C·√K·eps·M``: K is the size of the largest argument, over which a sum can run at most, eps
that of the coarsest dtype, and M what the function gives of absolute values in float64, as none of them subtracts.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback
from pullback._core.pair import Pair
from pullback._ops import PAIRS
from tests.harness.backend import Backend, load
from tests.harness.pair_laws import EPS, C

# Other tests run these branches; coverage would take half as long again.
pytestmark = pytest.mark.no_cover

CASES = 25
DTYPES = (
    ("float32", "float32"),
    ("float64", "float64"),
    ("complex64", "complex64"),
    ("complex128", "float64"),
    ("float32", "complex128"),
)
BATCHES = ((), (2,), (3,), (2, 3))

Shape = tuple[int, ...]
Function = Callable[..., Any]


class Torch:
    """torch.func."""

    shapes = CASES

    def __init__(self) -> None:
        self.backend: Backend = load("torch")[0]
        import torch  # noqa: PLC0415 - `load` says what to install where it is missing

        self.torch = torch
        self.result_type = torch.promote_types

    def ready(self, function: Function) -> Function:
        """Return a function of a dictionary of arrays, to be called many times."""
        return lambda arrays: function(Case(**arrays))

    def cast(self, x: Any, dtype: Any) -> Any:
        """Cast, differentiably."""
        return x.to(dtype)

    def vjp(self, f: Function, primals: Sequence[Any], da: Any) -> tuple[Any, ...]:
        """Return the gradients for an upstream gradient."""
        return tuple(x.resolve_conj() for x in self.torch.func.vjp(f, *primals)[1](da))

    def jvp(self, f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        """Return the tangent of the output."""
        with warnings.catch_warnings():
            # What PyTorch 2.13 imports for this uses what it has deprecated itself.
            warnings.filterwarnings("ignore", message=r".torch\.jit\..* is deprecated", category=DeprecationWarning)
            return self.torch.func.jvp(f, tuple(primals), tuple(tangents))[1]

    def jacrev(self, f: Function, primals: Sequence[Any]) -> tuple[Any, ...]:
        """Return the holomorphic derivatives: of both parts of the output for the real part of each input."""
        which = tuple(range(len(primals)))
        if not primals[0].is_complex():
            real: tuple[Any, ...] = self.torch.func.jacrev(f, argnums=which)(*primals)
            return real

        def parts(*reals: Any) -> tuple[Any, Any]:
            a = f(*(self.torch.complex(x, primal.imag) for x, primal in zip(reals, primals, strict=True)))
            return a.real, a.imag

        jacobians = self.torch.func.jacrev(parts, argnums=which)(*(x.real for x in primals))
        return tuple(self.torch.complex(*x) for x in zip(*jacobians, strict=True))

    def grad(self, f: Function, primals: Sequence[Any]) -> tuple[Any, ...]:
        """Return the gradients of a real function."""
        gradients = self.torch.func.grad(f, argnums=tuple(range(len(primals))))(*primals)
        return tuple(x.resolve_conj() for x in gradients)

    def vmap(self, f: Function, axes: tuple[int | None, ...]) -> Function:
        """Map over an axis of some arguments."""
        out: Function = self.torch.func.vmap(f, in_dims=axes)
        return out


class Jax:
    """JAX, which compiles for each shape and dtype: that takes far longer than to run, so that there are few shapes."""

    shapes = 4

    def __init__(self) -> None:
        self.backend: Backend = load("jax")[0]
        import jax  # noqa: PLC0415 - after `load` has switched float64 on

        self.jax = jax
        self.result_type = jax.numpy.promote_types

    def ready(self, function: Function) -> Function:
        """Return a function of a dictionary of arrays, compiled: one by one, its operations take ten times as long."""
        out: Function = self.jax.jit(lambda arrays: function(Case(**arrays)))
        return out

    def cast(self, x: Any, dtype: Any) -> Any:
        """Cast, differentiably."""
        return x.astype(dtype)

    def vjp(self, f: Function, primals: Sequence[Any], da: Any) -> tuple[Any, ...]:
        """Return the gradients for an upstream gradient."""
        return tuple(x.conj() for x in self.jax.vjp(f, *primals)[1](da.conj()))

    def jvp(self, f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        """Return the tangent of the output."""
        return self.jax.jvp(f, tuple(primals), tuple(tangents))[1]

    def jacrev(self, f: Function, primals: Sequence[Any]) -> tuple[Any, ...]:
        """Return the holomorphic derivatives."""
        holomorphic = "complex" in str(primals[0].dtype)
        jacobian = self.jax.jacrev(f, argnums=tuple(range(len(primals))), holomorphic=holomorphic)
        out: tuple[Any, ...] = jacobian(*primals)
        return out

    def grad(self, f: Function, primals: Sequence[Any]) -> tuple[Any, ...]:
        """Return the gradients of a real function."""
        gradients = self.jax.grad(f, argnums=tuple(range(len(primals))))(*primals)
        return tuple(x.conj() for x in gradients)

    def vmap(self, f: Function, axes: tuple[int | None, ...]) -> Function:
        """Map over an axis of some arguments."""
        out: Function = self.jax.vmap(f, in_axes=axes)
        return out


class Case(SimpleNamespace):
    """The arrays of a case by name."""


def affine(rng: np.random.Generator) -> dict[str, tuple[Shape, str]]:
    """Draw shapes, each with the primal whose dtype it has: the first, the second, or the promoted one of both."""
    batch = BATCHES[rng.integers(len(BATCHES))]
    k, n = rng.integers(1, 4, 2).tolist()
    z, w, b = ((*batch, k), "first"), ((k, n), "second"), ((n,), "second")
    return {"z": z, "w": w, "b": b, "da": ((*batch, n), "both"), "ddz": z, "ddw": w, "ddb": b}


def matmul(rng: np.random.Generator) -> dict[str, tuple[Shape, str]]:
    """Draw shapes of every kind that the standard allows, broadcast ones among them."""
    k, m, n = rng.integers(1, 4, 3).tolist()
    of_x1: Shape = ((k,), (m, k), (2, m, k), (1, m, k), (2, 1, m, k))[rng.integers(5)]
    of_x2: Shape = ((k,), (k, n), (2, k, n), (1, k, n), (3, 1, k, n))[rng.integers(5)]
    if len(of_x1) == len(of_x2) == 4:
        of_x2 = (1, 3, k, n)
    x1, x2 = (of_x1, "first"), (of_x2, "second")
    output = np.matmul(np.ones(of_x1), np.ones(of_x2)).shape
    return {"x1": x1, "x2": x2, "da": (output, "both"), "ddx1": x1, "ddx2": x2}


def frobenius(rng: np.random.Generator) -> dict[str, tuple[Shape, str]]:
    """Draw two arrays of one shape."""
    shape = tuple(rng.integers(1, 4, rng.integers(4)).tolist())
    return {"x": (shape, "first"), "y": (shape, "second"), "da": ((), "both")}


def trace(rng: np.random.Generator) -> dict[str, tuple[Shape, str]]:
    """Draw two matrices whose product is square."""
    n, k = rng.integers(1, 5, 2).tolist()
    return {"x": ((n, k), "first"), "w": ((k, n), "second"), "da": ((), "both")}


def quadratic(rng: np.random.Generator) -> dict[str, tuple[Shape, str]]:
    """Draw vectors and a matrix."""
    batch, k = BATCHES[rng.integers(len(BATCHES))], int(rng.integers(1, 5))
    return {"x": ((*batch, k), "first"), "A": ((k, k), "second"), "da": (batch, "both")}


def run_fused(peer: Any, f: Function) -> Function:
    """Let a function of the peer's arrays promote them first, which PyTorch's product does not."""

    def promoted(*arrays: Any) -> Any:
        dtype = arrays[0].dtype
        for x in arrays[1:]:
            dtype = peer.result_type(dtype, x.dtype)
        return f(*(peer.cast(x, dtype) for x in arrays))

    return promoted


def real_inner(x: Any, y: Any) -> Any:
    return (x.conj() * y).real.sum()


def grad_of_grad(peer: Any, f: Function, cotangents: Sequence[Any], da: Any, *primals: Any) -> tuple[Any, ...]:
    """Return the gradients of ``S = Re Σ ⟨ddx, ∇x Re ⟨da, f⟩⟩`` for da and the primals."""

    def s(da: Any, *primals: Any) -> Any:
        gradients = peer.grad(lambda *xs: real_inner(da, f(*xs)), primals)
        return sum(real_inner(c, g) for c, g in zip(cotangents, gradients, strict=True))

    out: tuple[Any, ...] = peer.grad(s, (da, *primals))
    return out


def affine_map(z: Any, w: Any, b: Any) -> Any:
    return z @ w + b


def product(x1: Any, x2: Any) -> Any:
    return x1 @ x2


def inner_product(x: Any, y: Any) -> Any:
    return (x.conj() * y).sum()


def trace_map(x: Any, w: Any) -> Any:
    return (x @ w).diagonal().sum()


def form(x: Any, matrix: Any) -> Any:
    return ((x @ matrix) * x).sum(-1)


def flat(x: Any) -> Any:
    return x.reshape(-1)


def joined(*arrays: Any) -> Any:
    return array_namespace(*arrays).concat([flat(x) for x in arrays])


# For each pair: the shapes to draw, and the map as peers write it.
MAPS: dict[str, tuple[Callable[[np.random.Generator], dict[str, tuple[Shape, str]]], Function]] = {
    "affine": (affine, affine_map),
    "matmul": (matmul, product),
    "frobenius_inner": (frobenius, inner_product),
    "trace_of_product": (trace, trace_map),
    "quadratic_form": (quadratic, form),
}

# For each function: the shapes to draw, whether both primals have one dtype, what is called here, and what a peer does.
Check = tuple[Callable[[np.random.Generator], dict[str, tuple[Shape, str]]], bool, Function, Callable[[Any, Case], Any]]


def checks_of(pair: Pair) -> dict[str, Check]:
    """Return a check of each function of a pair."""
    shapes, f = MAPS[pair.name]
    names, functions = list(pair.inputs), cast("Any", pair)

    def inputs(c: Case, which: Sequence[str] = names, prefix: str = "") -> list[Any]:
        return [getattr(c, prefix + name) for name in which]

    def jvp(c: Case) -> Any:
        tangents = {f"{name}_tangent": getattr(c, f"dd{name}") for name in names}
        return functions.jvp(*inputs(c, pair.needs), **tangents)

    def double(peer: Any, c: Case) -> Any:
        gradients = grad_of_grad(peer, run_fused(peer, f), inputs(c, prefix="dd"), c.da, *inputs(c))
        return gradients[: 1 + len(pair.needs)]

    checks: dict[Any, tuple[Function, Callable[[Any, Case], Any]]] = {
        pair.forward: (lambda c: pair.forward(*inputs(c)), lambda peer, c: run_fused(peer, f)(*inputs(c))),
        pair.backward: (
            lambda c: functions.backward(c.da, *inputs(c, pair.needs)),
            lambda peer, c: peer.vjp(run_fused(peer, f), inputs(c), c.da),
        ),
        pair.jvp: (jvp, lambda peer, c: peer.jvp(run_fused(peer, f), inputs(c), inputs(c, prefix="dd"))),
        pair.double_backward: (
            lambda c: functions.double_backward(*inputs(c, prefix="dd"), c.da, *inputs(c, pair.needs)),
            double,
        ),
    }
    return {x.__name__: (shapes, False, *check) for x, check in checks.items() if x is not None}


CHECKS: dict[str, Check] = {
    **{name: check for pair in PAIRS if not pair.real for name, check in checks_of(pair).items()},
    "affine_jacobians": (
        affine,
        True,
        lambda c: pullback.affine_jacobians(c.z, c.w),
        lambda peer, c: peer.jacrev(affine_map, (c.z, c.w, c.b)),
    ),
    "weight_jacobian_slice": (
        affine,
        True,
        lambda c: pullback.weight_jacobian_slice(c.z, c.z.shape[-1] - 1, 0, c.w.shape[1]),
        lambda peer, c: peer.jacrev(affine_map, (c.z, c.w, c.b))[1][..., -1, 0],
    ),
    "JacobianOperator.matvec": (
        affine,
        True,
        lambda c: pullback.JacobianOperator(c.z, c.w).matvec(joined(c.ddz, c.ddw, c.ddb)),
        lambda peer, c: flat(peer.jvp(affine_map, (c.z, c.w, c.b), (c.ddz, c.ddw, c.ddb))),
    ),
    "JacobianOperator.rmatvec": (
        affine,
        True,
        lambda c: pullback.JacobianOperator(c.z, c.w).rmatvec(flat(c.da)),
        lambda peer, c: joined(*peer.vjp(affine_map, (c.z, c.w, c.b), c.da)),
    ),
}


@pytest.fixture(scope="module", params=[Torch, Jax])
def peer(request: pytest.FixtureRequest) -> Any:
    """Make a peer; where its library is missing, that is an error."""
    return request.param()


def draw(rng: np.random.Generator, shapes: dict[str, tuple[Shape, str]], dtypes: dict[str, str]) -> dict[str, Any]:
    """Draw standard normal numbers in NumPy."""
    arrays = {}
    for x, (shape, of) in shapes.items():
        array = rng.standard_normal(shape)
        if "complex" in dtypes[of]:
            array = array + 1j * rng.standard_normal(shape)
        arrays[x] = np.asarray(array).astype(dtypes[of])
    return arrays


@pytest.mark.parametrize("function", CHECKS)
def test_agrees(peer: Any, function: str) -> None:
    shapes_of, one_dtype, ours, theirs = CHECKS[function]
    rng = np.random.default_rng(50)
    pool = [shapes_of(rng) for _ in range(peer.shapes)]
    here, there = peer.ready(ours), peer.ready(lambda case: theirs(peer, case))
    for _ in range(CASES):
        first, second = DTYPES[rng.integers(len(DTYPES))]
        second = first if one_dtype else second
        dtypes = {"first": first, "second": second, "both": np.result_type(first, second).name}
        exact = draw(rng, pool[rng.integers(peer.shapes)], dtypes)
        sizes = Case(**{x: np.abs(array).astype("float64") for x, array in exact.items()})
        arrays = {x: peer.backend.asarray(array, array.dtype.name) for x, array in exact.items()}
        terms = max(array.size for array in exact.values())
        eps = max(EPS[dtype] for dtype in dtypes.values())
        results = [_arrays(x) for x in (here(arrays), there(arrays), ours(sizes))]
        for got, expected, magnitude in zip(*results, strict=True):
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            error = np.abs(peer.backend.numpy(got) - peer.backend.numpy(expected))
            assert np.all(error <= C * math.sqrt(terms) * eps * magnitude), (exact, dtypes)


def _arrays(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, tuple) else (x,)
