"""Gradients of affine maps, written once against the Python array API standard."""

from pullback._examples import ParameterGradients
from pullback._losses import Loss
from pullback.affine import (
    AffineDoubleGradients,
    AffineGradients,
    affine_backward,
    affine_double_backward,
    affine_forward,
    affine_jvp,
)
from pullback.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_hessian_product
from pullback.curvature import KroneckerFactors, fisher_diagonal, gauss_newton_product, kfac_factors
from pullback.jacobians import AffineJacobians, affine_jacobians, single_entry
from pullback.layers import Activation, Affine
from pullback.loss_hessians import (
    huber_hessian_product,
    logistic_hessian_product,
    poisson_hessian_product,
    squared_error_hessian_product,
)
from pullback.losses import huber, logistic, poisson, squared_error
from pullback.matmul import (
    MatmulDoubleGradients,
    MatmulGradients,
    matmul_backward,
    matmul_double_backward,
    matmul_forward,
    matmul_jvp,
)
from pullback.moments import gradient_signal_to_noise, gradient_variance, second_moments
from pullback.operators import JacobianOperator
from pullback.per_example import clipped_gradients, per_example_gradients, per_example_norms
from pullback.stack import Kept, StackGradients, StackOutput, stack_backward, stack_forward

__version__ = "0.1.0.dev0"

__all__ = [
    "Activation",
    "Affine",
    "AffineDoubleGradients",
    "AffineGradients",
    "AffineJacobians",
    "JacobianOperator",
    "Kept",
    "KroneckerFactors",
    "Loss",
    "MatmulDoubleGradients",
    "MatmulGradients",
    "ParameterGradients",
    "StackGradients",
    "StackOutput",
    "affine_backward",
    "affine_double_backward",
    "affine_forward",
    "affine_jacobians",
    "affine_jvp",
    "clipped_gradients",
    "fisher_diagonal",
    "gauss_newton_product",
    "gradient_signal_to_noise",
    "gradient_variance",
    "huber",
    "huber_hessian_product",
    "kfac_factors",
    "logistic",
    "logistic_hessian_product",
    "matmul_backward",
    "matmul_double_backward",
    "matmul_forward",
    "matmul_jvp",
    "per_example_gradients",
    "per_example_norms",
    "poisson",
    "poisson_hessian_product",
    "second_moments",
    "single_entry",
    "softmax_cross_entropy",
    "softmax_cross_entropy_hessian_product",
    "squared_error",
    "squared_error_hessian_product",
    "stack_backward",
    "stack_forward",
]
