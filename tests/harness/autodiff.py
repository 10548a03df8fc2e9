"""First and second derivatives of a function by the autodiff of its own library, JAX or PyTorch."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.harness.backend import Backend

Function = Callable[[Any], Any]


def gradients(backend: Backend, function: Function, x: Any) -> dict[str, Any]:
    """Return the gradient of a scalar function in NumPy, by each way of the library."""
    return _LIBRARIES[backend.library][0](function, x)


def hessians(backend: Backend, function: Function, x: Any) -> dict[str, Any]:
    """Return the Hessian of a scalar function of a vector in NumPy, by each way of the library."""
    return _LIBRARIES[backend.library][1](function, x)


def vmap(backend: Backend, function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """Map a function over the given axis of each argument; None for an argument that is the same for all."""
    return _LIBRARIES[backend.library][2](function, axes)


@functools.cache
def _jitted(function: Function) -> dict[str, Function]:
    """Return the ways of JAX, compiled once for a function and the shape of its argument."""
    import jax  # noqa: PLC0415 - only where this backend was asked for

    return {way: jax.jit(getattr(jax, way)(function)) for way in ("grad", "jacfwd", "hessian")}


def _jax_gradients(function: Function, x: Any) -> dict[str, Any]:
    return {f"jax.{way}": np.asarray(_jitted(function)[way](x)) for way in ("grad", "jacfwd")}


def _jax_hessians(function: Function, x: Any) -> dict[str, Any]:
    return {"jax.hessian": np.asarray(_jitted(function)["hessian"](x))}


def _jax_vmap(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    import jax  # noqa: PLC0415

    out: Callable[..., Any] = jax.vmap(function, in_axes=axes)
    return out


def _torch_gradients(function: Function, x: Any) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    leaf = x.detach().clone().requires_grad_()
    function(leaf).backward()
    return {"backward": leaf.grad.cpu().numpy(), "torch.func.grad": torch.func.grad(function)(x).cpu().numpy()}


def _torch_hessians(function: Function, x: Any) -> dict[str, Any]:
    import torch  # noqa: PLC0415

    with warnings.catch_warnings():
        # What PyTorch 2.13 imports for this uses what it has deprecated itself.
        warnings.filterwarnings("ignore", message=r".torch\.jit\..* is deprecated", category=DeprecationWarning)
        return {
            "torch.func.hessian": torch.func.hessian(function)(x).cpu().numpy(),
            "torch.autograd.functional.hessian": torch.autograd.functional.hessian(function, x).cpu().numpy(),
        }


def _torch_vmap(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    import torch  # noqa: PLC0415

    out: Callable[..., Any] = torch.func.vmap(function, in_dims=axes)
    return out


_LIBRARIES: dict[str, tuple[Callable[..., dict[str, Any]], Callable[..., dict[str, Any]], Callable[..., Any]]] = {
    "jax": (_jax_gradients, _jax_hessians, _jax_vmap),
    "torch": (_torch_gradients, _torch_hessians, _torch_vmap),
}
