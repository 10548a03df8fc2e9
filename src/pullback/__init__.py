"""Gradients of affine maps, written once against the Python array API standard."""

from pullback._examples import ParameterGradients
from pullback.affine import AffineGradients, affine_backward, affine_forward
from pullback.curvature import KroneckerFactors, fisher_diagonal, gauss_newton_product, kfac_factors
from pullback.losses import Loss, softmax_cross_entropy
from pullback.matmul import MatmulGradients, matmul_backward, matmul_forward
from pullback.moments import gradient_signal_to_noise, gradient_variance, second_moments
from pullback.per_example import clipped_gradients, per_example_gradients, per_example_norms

__version__ = "0.1.0.dev0"

__all__ = [
    "AffineGradients",
    "KroneckerFactors",
    "Loss",
    "MatmulGradients",
    "ParameterGradients",
    "affine_backward",
    "affine_forward",
    "clipped_gradients",
    "fisher_diagonal",
    "gauss_newton_product",
    "gradient_signal_to_noise",
    "gradient_variance",
    "kfac_factors",
    "matmul_backward",
    "matmul_forward",
    "per_example_gradients",
    "per_example_norms",
    "second_moments",
    "softmax_cross_entropy",
]
