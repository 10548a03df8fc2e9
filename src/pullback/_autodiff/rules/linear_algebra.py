"""Products of arrays."""

from typing import Any

from pullback._autodiff.rules.registry import rule
from pullback._autodiff.rules.strong import conj
from pullback._autodiff.typing import Array
from pullback._core.reductions import contract_rows, product
from pullback._core.typing import Namespace


@rule
def matmul(xp: Namespace, x1: Array, x2: Array, /) -> Any:
    return xp.matmul(x1, x2), (_matmul_x1, x2, x1.ndim), (_matmul_x2, x1, x2.ndim)


def _matmul_x1(xp: Namespace, g: Array, x2: Array, ndim: int, /) -> Array:
    x2 = conj(xp, x2)
    if x2.ndim == 1:
        return xp.expand_dims(g, axis=-1) * x2
    if ndim == 1:
        return xp.squeeze(xp.expand_dims(g, axis=-2) @ xp.matrix_transpose(x2), axis=-2)
    return product(xp, g, x2.T) if x2.ndim == 2 else g @ xp.matrix_transpose(x2)


def _matmul_x2(xp: Namespace, g: Array, x1: Array, ndim: int, /) -> Array:
    x1 = conj(xp, x1)
    if x1.ndim == 1:
        return g * x1 if ndim == 1 else xp.expand_dims(x1, axis=-1) * xp.expand_dims(g, axis=-2)
    if ndim == 1:
        return xp.squeeze(contract_rows(xp, x1, xp.expand_dims(g, axis=-1)), axis=-1)
    return contract_rows(xp, x1, g) if ndim == 2 else xp.matrix_transpose(x1) @ g
