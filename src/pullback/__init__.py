"""Gradients of affine maps, written once against the Python array API standard."""

from pullback._losses import Loss
from pullback.affine import AffineGradients, affine_backward, affine_forward
from pullback.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_hessian_product
from pullback.loss_hessians import (
    huber_hessian_product,
    logistic_hessian_product,
    poisson_hessian_product,
    squared_error_hessian_product,
)
from pullback.losses import huber, logistic, poisson, squared_error
from pullback.matmul import MatmulGradients, matmul_backward, matmul_forward

__version__ = "0.1.0.dev0"

__all__ = [
    "AffineGradients",
    "Loss",
    "MatmulGradients",
    "affine_backward",
    "affine_forward",
    "huber",
    "huber_hessian_product",
    "logistic",
    "logistic_hessian_product",
    "matmul_backward",
    "matmul_forward",
    "poisson",
    "poisson_hessian_product",
    "softmax_cross_entropy",
    "softmax_cross_entropy_hessian_product",
    "squared_error",
    "squared_error_hessian_product",
]
