"""Gradients of any function of arrays: the function is recorded on a tape, and the tape is pulled back."""

from pullback._autodiff import protocols
from pullback._autodiff.transforms import grad, hvp, jvp, linearize, stop_gradient, value_and_grad, vjp

__all__ = ["grad", "hvp", "jvp", "linearize", "protocols", "stop_gradient", "value_and_grad", "vjp"]
