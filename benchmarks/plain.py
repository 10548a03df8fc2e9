"""The plain expressions to compare with, and the inputs to compare on."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def forward(z: Floats, w: Floats, b: Floats) -> Floats:
    """Return ``z w + b`` as everybody writes it."""
    return z @ w + b


def backward(da: Floats, z: Floats, w: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the gradients as everybody writes them."""
    return da @ w.T, z.T @ da, da.sum(axis=0)


def inputs(batch: tuple[int, ...], k: int, n: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Draw da, z, w and b: z uniform in [0, 1), and da with mean 0.1, so that sums over the batch grow with it."""
    rng = np.random.default_rng(20)
    da = rng.random((*batch, n), dtype=np.float32)
    da *= np.float32(0.2)
    z, w, b = (rng.random(shape, dtype=np.float32) for shape in ((*batch, k), (k, n), (n,)))
    return da, z, w, b
