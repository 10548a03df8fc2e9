"""Check that the arrays of an affine map ``a = z w + b`` fit, or say which do not."""

from pullback._arguments import agree, check_alike, same_shape, shapes
from pullback._typing import Array


def check_factors(function: str, z: Array, w: Array, /) -> None:
    """Check that z (..., k) and w (k, n) fit."""
    if w.ndim != 2:
        msg = f"{function}: w must be a matrix, shape (k, n); got {shapes(w=w)}"
        raise ValueError(msg)
    if z.ndim == 0:
        msg = f"{function}: z must have at least one axis, shape (..., k); got {shapes(z=z)}"
        raise ValueError(msg)
    if not agree(z.shape[-1], w.shape[0]):
        msg = f"{function}: the last axis of z must equal the first axis of w; got {shapes(z=z, w=w)}"
        raise ValueError(msg)


def check_upstream(function: str, da: Array, z: Array, w: Array, /) -> None:
    """Check that da (..., n) has the shape of the output."""
    if not same_shape(da.shape, (*z.shape[:-1], w.shape[1])):
        msg = f"{function}: da must have the shape of the output z w, (..., n); got {shapes(da=da, z=z, w=w)}"
        raise ValueError(msg)


def check_bias(function: str, name: str, b: Array | None, w: Array, /) -> None:
    """Check that a bias, or what stands for a change of it, has shape (n,), if there is one."""
    if b is not None and not (b.ndim == 1 and agree(b.shape[0], w.shape[1])):
        got = shapes(**{name: b, "w": w})
        msg = f"{function}: {name} must have one entry for each column of w, shape (n,); got {got}"
        raise ValueError(msg)


def check_directions(function: str, directions: dict[str, Array | None], z: Array, w: Array, /) -> None:
    """Check tangents or cotangents, named in the order z, w, b: each has the shape of its primal, if there is one."""
    of_z, of_w, of_b = directions
    check_alike(function, of_z, directions[of_z], "z", z)
    check_alike(function, of_w, directions[of_w], "w", w)
    check_bias(function, of_b, directions[of_b], w)


def check_known(function: str, z: Array, w: Array, /) -> None:
    """Check that no size is unknown."""
    if not all(isinstance(size, int) for size in (*z.shape, *w.shape)):
        msg = (
            f"{function}: the sizes of z and w must be known; got {shapes(z=z, w=w)}. On Dask, z.compute_chunk_sizes()"
        )
        raise ValueError(msg)
