"""Gradients of affine maps, written once against the Python array API standard."""

from pullback.affine import AffineGradients, affine_backward, affine_forward
from pullback.losses import Loss, softmax_cross_entropy
from pullback.matmul import MatmulGradients, matmul_backward, matmul_forward

__version__ = "0.1.0.dev0"

__all__ = [
    "AffineGradients",
    "Loss",
    "MatmulGradients",
    "affine_backward",
    "affine_forward",
    "matmul_backward",
    "matmul_forward",
    "softmax_cross_entropy",
]
