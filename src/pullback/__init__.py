"""Gradients of affine maps, written once against the Python array API standard."""

from pullback._ops.activations.gated import gelu_backward, gelu_forward, silu_backward, silu_forward
from pullback._ops.activations.rectifiers import (
    leaky_relu_backward,
    leaky_relu_forward,
    relu_backward,
    relu_forward,
    softplus_backward,
    softplus_forward,
)
from pullback._ops.activations.sigmoids import sigmoid_backward, sigmoid_forward, tanh_backward, tanh_forward
from pullback._ops.activations.softmax import (
    log_softmax_backward,
    log_softmax_forward,
    softmax_backward,
    softmax_forward,
)
from pullback._ops.affine import (
    AffineDoubleGradients,
    AffineGradients,
    affine_backward,
    affine_double_backward,
    affine_forward,
    affine_jvp,
)
from pullback._ops.forms import (
    FrobeniusInnerGradients,
    QuadraticFormGradients,
    TraceOfProductGradients,
    frobenius_inner,
    frobenius_inner_backward,
    quadratic_form,
    quadratic_form_backward,
    trace_of_product,
    trace_of_product_backward,
)
from pullback._ops.jacobian_operator import JacobianOperator
from pullback._ops.jacobian_tensors import AffineJacobians, affine_jacobians, weight_jacobian_slice
from pullback._ops.losses.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_hessian_product
from pullback._ops.losses.huber import huber, huber_hessian_product
from pullback._ops.losses.logistic import logistic, logistic_hessian_product
from pullback._ops.losses.poisson import poisson, poisson_hessian_product
from pullback._ops.losses.reduction import Loss
from pullback._ops.losses.squared_error import squared_error, squared_error_hessian_product
from pullback._ops.matmul import (
    MatmulDoubleGradients,
    MatmulGradients,
    matmul_backward,
    matmul_double_backward,
    matmul_forward,
    matmul_jvp,
)
from pullback._ops.per_example.blocking import ParameterGradients
from pullback._ops.per_example.curvature import KroneckerFactors, fisher_diagonal, gauss_newton_product, kfac_factors
from pullback._ops.per_example.gradients import clipped_gradients, per_example_gradients, per_example_norms
from pullback._ops.per_example.moments import gradient_signal_to_noise, gradient_variance, second_moments
from pullback._ops.stack import (
    GELU,
    LEAKY_RELU,
    LOG_SOFTMAX,
    RELU,
    SIGMOID,
    SILU,
    SOFTMAX,
    SOFTPLUS,
    TANH,
    Activation,
    Affine,
    Saved,
    StackGradients,
    StackOutput,
    stack_backward,
    stack_forward,
)
from pullback._testing.check import check_pair
from pullback._testing.report import Finding, PairReport

__version__ = "0.1.0.dev0"

__all__ = [
    "GELU",
    "LEAKY_RELU",
    "LOG_SOFTMAX",
    "RELU",
    "SIGMOID",
    "SILU",
    "SOFTMAX",
    "SOFTPLUS",
    "TANH",
    "Activation",
    "Affine",
    "AffineDoubleGradients",
    "AffineGradients",
    "AffineJacobians",
    "Finding",
    "FrobeniusInnerGradients",
    "JacobianOperator",
    "KroneckerFactors",
    "Loss",
    "MatmulDoubleGradients",
    "MatmulGradients",
    "PairReport",
    "ParameterGradients",
    "QuadraticFormGradients",
    "Saved",
    "StackGradients",
    "StackOutput",
    "TraceOfProductGradients",
    "affine_backward",
    "affine_double_backward",
    "affine_forward",
    "affine_jacobians",
    "affine_jvp",
    "check_pair",
    "clipped_gradients",
    "fisher_diagonal",
    "frobenius_inner",
    "frobenius_inner_backward",
    "gauss_newton_product",
    "gelu_backward",
    "gelu_forward",
    "gradient_signal_to_noise",
    "gradient_variance",
    "huber",
    "huber_hessian_product",
    "kfac_factors",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "log_softmax_backward",
    "log_softmax_forward",
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
    "quadratic_form",
    "quadratic_form_backward",
    "relu_backward",
    "relu_forward",
    "second_moments",
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
    "stack_backward",
    "stack_forward",
    "tanh_backward",
    "tanh_forward",
    "trace_of_product",
    "trace_of_product_backward",
    "weight_jacobian_slice",
]
