"""Derivatives of the functions of single examples by PyTorch and JAX, and their `vmap`.

The derivatives are compared with those of the definition, which forms the gradients. One example has a gradient of
zero: there the derivative of the norm is 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback
from tests.harness.pair_laws import EPS
from tests.peers.test_autodiff import Jax, Torch

ROUTES = {"rows": ((3,), 3, 5), "gram": ((3, 2), 6, 5), "formed": ((3, 4), 2, 3)}
MAX_NORM = 4.0
# Powers of two that make float64 squares overflow or vanish, and change nothing else without a bias.
SCALES = (1.0, 2.0**600, 2.0**-600)


@pytest.fixture(scope="module", params=[Torch, Jax])
def peer(request: pytest.FixtureRequest) -> Any:
    """Make a peer; where its library is missing, that is an error."""
    return request.param()


def draw(route: str) -> tuple[Any, Any]:
    """Draw da and z of three examples, of which the middle one has a gradient of zero."""
    rng = np.random.default_rng(70)
    leading, k, n = ROUTES[route]
    da, z = rng.standard_normal((*leading, n)), rng.standard_normal((*leading, k))
    da[1] = 0
    return da, z


def squared_norms(da: Any, z: Any, *, bias: bool) -> Any:
    """Form the gradients and add up their squares."""
    xp = array_namespace(da)
    da, z = (xp.reshape(x, (x.shape[0], -1, x.shape[-1])) for x in (da, z))
    dw, db = xp.matrix_transpose(z) @ da, xp.sum(da, axis=1)
    return xp.sum(dw * dw, axis=(1, 2)) + (xp.sum(db * db, axis=1) if bias else 0)


def norms_by_definition(da: Any, z: Any, *, bias: bool) -> Any:
    """Return the norms; one that is zero has derivative 0."""
    xp = array_namespace(da)
    squares = squared_norms(da, z, bias=bias)
    return xp.where(squares == 0, 0.0, xp.where(squares == 0, 1.0, squares) ** 0.5)


def clipped_by_definition(da: Any, z: Any, *, bias: bool) -> Any:
    """Return the sum of all entries of the clipped gradients."""
    xp = array_namespace(da)
    norms = norms_by_definition(da, z, bias=bias)
    scale = xp.where(norms > MAX_NORM, MAX_NORM / xp.where(norms > MAX_NORM, norms, 1.0), 1.0)
    da, z = (xp.reshape(x, (x.shape[0], -1, x.shape[-1])) for x in (da, z))
    each = xp.sum(xp.sum(z, axis=2) * xp.sum(da, axis=2), axis=1) + (xp.sum(da, axis=(1, 2)) if bias else 0)
    return xp.sum(scale * each)


def norms(da: Any, z: Any, *, bias: bool) -> Any:
    return pullback.per_example_norms(da, z, bias=bias)


def clipped(da: Any, z: Any, *, bias: bool) -> Any:
    xp = array_namespace(da)
    return sum(xp.sum(x) for x in pullback.clipped_gradients(da, z, MAX_NORM, bias=bias) if x is not None)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "norms": (norms, norms_by_definition),
    "clipped": (clipped, clipped_by_definition),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("of", FUNCTIONS)
@pytest.mark.parametrize("route", ROUTES)
def test_derivatives(peer: Any, route: str, of: str, *, bias: bool) -> None:
    xp, weights = peer.backend.xp, peer.backend.asarray([1.0, 2.0, 3.0])

    def gradients(f: Callable[..., Any]) -> Callable[..., Any]:
        def weighted(da: Any, z: Any) -> Any:
            return xp.sum(weights * f(da, z, bias=bias))

        ready = peer.ready(lambda case: peer.grad(weighted, (case.da, case.z)))
        return lambda *arrays: peer.backend.numpy(
            ready({x: peer.backend.asarray(y) for x, y in zip(("da", "z"), arrays, strict=True)})
        )

    ours, definition = (gradients(f) for f in FUNCTIONS[of])
    arrays = draw(route)
    exact = definition(*arrays)
    for scale in SCALES[: 1 if bias else 3]:
        both = scale, 1 / scale
        got = ours(*(x * p for x, p in zip(arrays, both, strict=True)))
        for x, y, p in zip(got, exact, both, strict=True):
            np.testing.assert_allclose(x * p, y, rtol=0, atol=100 * EPS["float64"] * np.max(np.abs(y)))


def test_derivative_for_max_norm(peer: Any) -> None:
    """The clipped sum of one long example is max_norm times its direction."""
    da, z = (peer.backend.asarray(x) for x in ([[3.0, 4.0]], [[0.0]]))

    def db(max_norm: Any) -> Any:
        return clip(da, z, max_norm).db[1]

    (got,) = peer.grad(db, [peer.backend.asarray(2.0)])
    np.testing.assert_allclose(peer.backend.numpy(got), 0.8, rtol=10 * EPS["float64"])


def test_backward_call_of_pytorch() -> None:
    torch = Torch().torch
    da, z = (torch.tensor(x, requires_grad=True) for x in draw("rows"))
    (norms(da, z, bias=True).sum() + clipped(da, z, bias=True)).backward()
    for x in (da.grad, z.grad):
        assert torch.isfinite(x).all()
    assert not z.grad[1].any()


def gauss_newton(vw: Any, vb: Any, z: Any) -> Any:
    return pullback.gauss_newton_product(vw, vb, z, lambda v: v * 2)


def clip(da: Any, z: Any, max_norm: Any) -> Any:
    return pullback.clipped_gradients(da, z, max_norm)


# A function, and the shapes of its arguments; each is mapped alone, the others unbatched.
MAPPED: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "per_example_gradients": (pullback.per_example_gradients, ((4, 3), (4, 2))),
    "per_example_norms": (pullback.per_example_norms, ((4, 3), (4, 2))),
    "per_example_norms, gram": (pullback.per_example_norms, ((4, 2, 5), (4, 2, 6))),
    "per_example_norms, formed": (pullback.per_example_norms, ((4, 4, 3), (4, 4, 2))),
    "clipped_gradients": (clip, ((4, 3), (4, 2), ())),
    "second_moments": (pullback.second_moments, ((4, 3), (4, 2))),
    "second_moments, formed": (pullback.second_moments, ((4, 4, 3), (4, 4, 2))),
    "gradient_variance": (pullback.gradient_variance, ((4, 3), (4, 2))),
    "gradient_signal_to_noise": (pullback.gradient_signal_to_noise, ((4, 3), (4, 2))),
    "fisher_diagonal": (pullback.fisher_diagonal, ((4, 3), (4, 2))),
    "kfac_factors": (pullback.kfac_factors, ((4, 3), (4, 2))),
    "gauss_newton_product": (gauss_newton, ((2, 3), (3,), (4, 2))),
}


@pytest.mark.parametrize("of", MAPPED)
def test_vmap(peer: Any, of: str) -> None:
    function, shapes = MAPPED[of]
    rng = np.random.default_rng(71)
    arrays = [rng.uniform(0.5, 2, shape) for shape in shapes]

    def ready(f: Callable[..., Any]) -> Callable[..., Any]:
        compiled = peer.ready(lambda case: f(*(getattr(case, f"x{i}") for i in range(len(shapes)))))

        def call(*args: Any) -> tuple[Any, ...]:
            out = peer.backend.numpy(compiled({f"x{i}": peer.backend.asarray(x) for i, x in enumerate(args)}))
            return out if isinstance(out, tuple) else (out,)

        return call

    single = ready(function)
    for i, shape in enumerate(shapes):
        batch = rng.uniform(0.5, 2, (3, *shape))
        mapped = ready(peer.vmap(function, tuple(0 if j == i else None for j in range(len(shapes)))))
        got = mapped(*arrays[:i], batch, *arrays[i + 1 :])
        for j in range(3):
            for x, y in zip(got, single(*arrays[:i], batch[j], *arrays[i + 1 :]), strict=True):
                np.testing.assert_allclose(x[j], y, rtol=100 * EPS["float64"])
