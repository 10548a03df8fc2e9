"""Gradients of affine maps, written once against the Python array API standard."""

from pullback._losses import Loss
from pullback.affine import AffineGradients, affine_backward, affine_forward
from pullback.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_hessian_product
from pullback.gated import gelu_backward, gelu_forward, silu_backward, silu_forward
from pullback.loss_hessians import (
    huber_hessian_product,
    logistic_hessian_product,
    poisson_hessian_product,
    squared_error_hessian_product,
)
from pullback.losses import huber, logistic, poisson, squared_error
from pullback.matmul import MatmulGradients, matmul_backward, matmul_forward
from pullback.rectifiers import (
    leaky_relu_backward,
    leaky_relu_forward,
    relu_backward,
    relu_forward,
    softplus_backward,
    softplus_forward,
)
from pullback.sigmoids import sigmoid_backward, sigmoid_forward, tanh_backward, tanh_forward
from pullback.softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward

__version__ = "0.1.0.dev0"

__all__ = [
    "AffineGradients",
    "Loss",
    "MatmulGradients",
    "affine_backward",
    "affine_forward",
    "gelu_backward",
    "gelu_forward",
    "huber",
    "huber_hessian_product",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "log_softmax_backward",
    "log_softmax_forward",
    "logistic",
    "logistic_hessian_product",
    "matmul_backward",
    "matmul_forward",
    "poisson",
    "poisson_hessian_product",
    "relu_backward",
    "relu_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "silu_backward",
    "silu_forward",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_hessian_product",
    "softmax_forward",
    "softplus_backward",
    "softplus_forward",
    "squared_error",
    "squared_error_hessian_product",
    "tanh_backward",
    "tanh_forward",
]
