"""Gradients of any function of arrays: the function is recorded on a tape, and the tape is pulled back."""

from pullback._autodiff import pairs, protocols
from pullback._autodiff.custom import checkpoint, custom_vjp
from pullback._autodiff.jacobians import hessian, hessian_operator, jacobian, jacobian_operator, ravel_tree
from pullback._autodiff.transforms import constant, grad, hvp, jvp, linearize, stop_gradient, value_and_grad, vjp

__all__ = [
    "checkpoint",
    "constant",
    "custom_vjp",
    "grad",
    "hessian",
    "hessian_operator",
    "hvp",
    "jacobian",
    "jacobian_operator",
    "jvp",
    "linearize",
    "pairs",
    "protocols",
    "ravel_tree",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
