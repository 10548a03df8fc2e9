"""The affine map of every peer in its best form: what a user of that library would write who cares for speed."""

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pullback import affine_backward, affine_forward

T = TypeVar("T")
Floats = NDArray[np.floating[Any]]
Call = Callable[[], Any]

OURS = "pullback"
PLAIN = "NumPy"


class Calls(NamedTuple):
    """Calls on one batch; each is over when its results are there."""

    forward: Call
    """Returns a."""
    backward: Call
    """Returns dz, dw and db. A peer with a tape has it recorded."""
    both: Call
    """Returns a, dz, dw and db."""


# Makes the calls on da, z, w and b.
Maker = Callable[[Floats, Floats, Floats, Floats], Calls]


def inputs(batch: tuple[int, ...], k: int, n: int, dtype: type[np.floating[Any]] = np.float32) -> tuple[Floats, ...]:
    """Draw da, z, w and b: z uniform in [0, 1), and da with mean 0.1, so that sums over the batch grow with it."""
    rng = np.random.default_rng(20)
    da, z, w, b = (rng.random(shape, dtype=dtype) for shape in ((*batch, n), (*batch, k), (k, n), (n,)))
    da *= dtype(0.2)
    return da, z, w, b


def forward(z: Floats, w: Floats, b: Floats) -> Floats:
    """Return ``z w + b`` as everybody writes it."""
    return z @ w + b


def backward(da: Floats, z: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the gradients as everybody writes them."""
    return da @ w.T, z.T @ da, da.sum(axis=0)


def _ours(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call the pair."""
    return Calls(
        partial(affine_forward, z, w, b),
        partial(affine_backward, da, z, w),
        lambda: (affine_forward(z, w, b), *affine_backward(da, z, w)),
    )


def _plain(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call the plain expressions."""
    return Calls(
        partial(forward, z, w, b),
        partial(backward, da, z, w),
        lambda: (forward(z, w, b), *backward(da, z, w)),
    )


def _torch_tape(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call PyTorch with its tape."""
    import torch  # noqa: PLC0415 - a peer is loaded where it is asked for

    torch_da, *leaves = map(torch.from_numpy, (da, z, w, b))
    for leaf in leaves:
        leaf.requires_grad_()
    # A linear layer keeps its weights transposed, and transposes them again.
    linear = partial(torch.nn.functional.linear, leaves[0], leaves[1].T, leaves[2])
    recorded = linear()

    def both() -> Any:
        a = linear()
        return a.detach(), *torch.autograd.grad(a, leaves, torch_da)

    return Calls(
        lambda: linear().detach(),
        lambda: torch.autograd.grad(recorded, leaves, torch_da, retain_graph=True),
        both,
    )


def _torch(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call PyTorch's functions, without a tape."""
    import torch  # noqa: PLC0415

    y, x, v, c = map(torch.from_numpy, (da, z, w, b))

    def gradients() -> Any:
        return y @ v.T, x.T @ y, y.sum(0)

    return Calls(lambda: torch.addmm(c, x, v), gradients, lambda: (torch.addmm(c, x, v), *gradients()))


@cache
def _compiled() -> tuple[Callable[..., Any], ...]:
    """Return JAX's forward, backward and both; made once, for what is compiled for a shape to serve the next batch."""
    import jax  # noqa: PLC0415

    jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - JAX's own signature

    def affine(z: Any, w: Any, b: Any) -> Any:
        return z @ w + b

    def gradients(da: Any, z: Any, w: Any, b: Any) -> Any:
        return jax.vjp(affine, z, w, b)[1](da)

    def both(da: Any, z: Any, w: Any, b: Any) -> Any:
        a, pull = jax.vjp(affine, z, w, b)
        return a, *pull(da)

    return tuple(jax.jit(function) for function in (affine, gradients, both))


def _jax(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call JAX's `vjp` under `jit`, compiled before anything is timed."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    affine, gradients, both = _compiled()
    arrays = [jnp.asarray(x) for x in (da, z, w, b)]
    wait = jax.block_until_ready
    return Calls(
        lambda: wait(affine(*arrays[1:])),
        lambda: wait(gradients(*arrays)),
        lambda: wait(both(*arrays)),
    )


def _autograd(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call HIPS autograd."""
    import autograd  # noqa: PLC0415
    import autograd.numpy as anp  # noqa: PLC0415

    def affine(z: Any, w: Any, b: Any) -> Any:
        return anp.dot(z, w) + b

    record = autograd.make_vjp(affine, argnum=(0, 1, 2))
    pull, _ = record(z, w, b)

    def both() -> Any:
        pull, a = record(z, w, b)
        return a, *pull(da)

    return Calls(partial(affine, z, w, b), partial(pull, da), both)


def _advect_tape(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call advect with its tape, which serves once, so that a backward records it, too."""
    import advect  # noqa: PLC0415

    record = advect.vjp(forward, argnums=(0, 1, 2))

    def both() -> Any:
        a, pull = record(z, w, b)
        return a, *pull(da)

    return Calls(partial(forward, z, w, b), lambda: both()[1:], both)


def _advect(da: Floats, z: Floats, w: Floats, b: Floats) -> Calls:
    """Call advect's programs, which are staged once for arrays of one shape."""
    import advect  # noqa: PLC0415

    staged = advect.stage(forward, z, w, b)
    pull = advect.vjp_program(staged, argnums=(0, 1, 2))
    return Calls(
        partial(staged, z, w, b),
        partial(pull, z, w, b, cotangent=da),
        lambda: (staged(z, w, b), *pull(z, w, b, cotangent=da)),
    )


LIBRARIES: dict[str, dict[str, Maker]] = {
    "torch": {"PyTorch": _torch_tape, "PyTorch, no tape": _torch},
    "jax": {"JAX": _jax},
    "autograd": {"HIPS autograd": _autograd},
    "advect": {"advect": _advect_tape, "advect, staged": _advect},
}


def chosen(known: Mapping[str, Mapping[str, T]], libraries: Collection[str]) -> dict[str, T]:
    """Return what is known of these libraries, by the names of the peers that they have."""
    return {name: its for library in libraries for name, its in known.get(library, {}).items()}


def makers(libraries: Collection[str]) -> dict[str, Maker]:
    """Return what makes the calls of ours, of the plain expressions and of each peer that the libraries have."""
    return {OURS: _ours, PLAIN: _plain} | chosen(LIBRARIES, libraries)


def apart(libraries: Collection[str]) -> tuple[str, ...]:
    """Return the libraries that results are named after: none in the main run, which is the one with PyTorch."""
    return () if "torch" in libraries else tuple(libraries)


def load(libraries: Collection[str], da: Floats, z: Floats, w: Floats, b: Floats) -> dict[str, Calls]:
    """Return the calls of all of them on one batch."""
    return {name: make(da, z, w, b) for name, make in makers(libraries).items()}
