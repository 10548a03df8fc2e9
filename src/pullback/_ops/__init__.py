"""Closed forms, one subject a module: each forward next to its backward, with its record at the end of the module."""

from pullback._ops import affine, forms, matmul
from pullback._ops.activations import gated, rectifiers, sigmoids, softmax
from pullback._ops.losses import LOSSES

PAIRS = (
    affine.AFFINE,
    matmul.MATMUL,
    forms.FROBENIUS_INNER,
    forms.TRACE_OF_PRODUCT,
    forms.QUADRATIC_FORM,
    *LOSSES,
    rectifiers.RELU,
    rectifiers.LEAKY_RELU,
    rectifiers.SOFTPLUS,
    sigmoids.SIGMOID,
    sigmoids.TANH,
    gated.SILU,
    gated.GELU,
    softmax.SOFTMAX,
    softmax.LOG_SOFTMAX,
)
