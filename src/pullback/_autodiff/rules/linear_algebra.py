"""Products of arrays."""

from typing import Any

from pullback._autodiff.rules.accurate import contract_rows
from pullback._autodiff.rules.registry import rule
from pullback._autodiff.rules.strong import conj
from pullback._autodiff.typing import Array
from pullback._core.typing import Namespace


@rule
def matmul(xp: Namespace, x1: Array, x2: Array, /) -> Any:
    return x1 @ x2, (_matmul_x1, x2), (_matmul_x2, x1)


def _matmul_x1(xp: Namespace, g: Array, x2: Array, /) -> Array:
    return g @ conj(xp, x2).T


def _matmul_x2(xp: Namespace, g: Array, x1: Array, /) -> Array:
    return contract_rows(xp, conj(xp, x1), g)
