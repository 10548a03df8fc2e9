"""Gradients of affine maps, written once against the Python array API standard."""

from pullback._report import Finding, PairReport
from pullback.affine import (
    AffineDoubleGradients,
    AffineGradients,
    affine_backward,
    affine_double_backward,
    affine_forward,
    affine_jvp,
)
from pullback.check import check_pair
from pullback.jacobians import AffineJacobians, affine_jacobians, single_entry
from pullback.losses import Loss, softmax_cross_entropy
from pullback.matmul import (
    MatmulDoubleGradients,
    MatmulGradients,
    matmul_backward,
    matmul_double_backward,
    matmul_forward,
    matmul_jvp,
)
from pullback.operators import JacobianOperator

__version__ = "0.1.0.dev0"

__all__ = [
    "AffineDoubleGradients",
    "AffineGradients",
    "AffineJacobians",
    "Finding",
    "JacobianOperator",
    "Loss",
    "MatmulDoubleGradients",
    "MatmulGradients",
    "PairReport",
    "affine_backward",
    "affine_double_backward",
    "affine_forward",
    "affine_jacobians",
    "affine_jvp",
    "check_pair",
    "matmul_backward",
    "matmul_double_backward",
    "matmul_forward",
    "matmul_jvp",
    "single_entry",
    "softmax_cross_entropy",
]
