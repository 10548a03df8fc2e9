"""In-place arithmetic for arrays that are plain memory; elsewhere a new array, which autodiff and `vmap` need.

Each function takes an `x` that nothing else holds, of the shape and dtype of the result.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from array_api_compat import device

from pullback._core.typing import Array, ArrayT, Namespace


def is_plain_memory(x: Array, /) -> bool:
    """Whether nothing records, batches or defers what is done to `x`: it shows the flags of its memory.

    NumPy's, CuPy's and dpnp's arrays do. Those of JAX, PyTorch and Dask do not, nor do their tracers.
    """
    return hasattr(x, "flags")


def is_host_memory(x: object, /) -> bool:
    """Whether entries can be looked at for free: they lie in the memory of this process, and nothing is deferred.

    This holds for NumPy's arrays and scalars. A test on others would compute, trace or wait for a device.
    """
    return hasattr(type(x), "__array_interface__")


def is_gpu_memory(x: Array, /) -> bool:
    """Whether the entries of `x` are known to lie in the memory of a GPU: CuPy's arrays, and PyTorch's on CUDA.

    dpnp's arrays count as such on every device of SYCL.
    JAX says nothing that `jit` can follow, and DLPack nothing that `torch.compile` can.
    """
    return not is_host_memory(x) if is_plain_memory(x) else getattr(x, "is_cuda", False)


def place(x: Array, /) -> dict[str, Any]:
    """Return the options that create an array where `x` is: on its device, and in the plan of its computation."""
    # Arrays of one computation must share what Cubed calls a spec, a memory limit and a folder for results.
    spec = getattr(x, "spec", None)
    return {"device": device(x)} if spec is None else {"device": device(x), "spec": spec}


def without_warnings(xp: Namespace, /) -> AbstractContextManager[None]:
    """Return a context in which overflow does not warn, for results that are checked and then computed otherwise."""
    return xp.errstate(all="ignore") if hasattr(xp, "errstate") else nullcontext()


def add(x: ArrayT, y: Any, /) -> ArrayT:  # noqa: ANN401 - an array or a number
    """Return ``x + y``, in the memory of `x` where that is plain."""
    if not is_plain_memory(x):
        return x + y
    x += y
    return x


def subtract(x: ArrayT, y: Any, /) -> ArrayT:  # noqa: ANN401
    """Return ``x - y``, in the memory of `x` where that is plain."""
    if not is_plain_memory(x):
        return x - y
    x -= y
    return x


def multiply(x: ArrayT, y: Any, /) -> ArrayT:  # noqa: ANN401
    """Return ``x * y``, in the memory of `x` where that is plain."""
    if not is_plain_memory(x):
        return x * y
    x *= y
    return x


def divide(x: ArrayT, y: Any, /) -> ArrayT:  # noqa: ANN401
    """Return ``x / y``, in the memory of `x` where that is plain."""
    if not is_plain_memory(x):
        return x / y
    x /= y
    return x
