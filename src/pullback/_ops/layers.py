"""What a stack is made of: affine layers, which have parameters, and activations, which are any pair without."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from pullback._typing import Array
from pullback.gated import gelu_backward, gelu_forward, silu_backward, silu_forward
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


class Affine(NamedTuple):
    """The layer ``a = z w + b``; or the gradients for its parameters.

    Attributes
    ----------
    w : Array
        Weights, shape (k, n).
    b : Array or None
        Bias, shape (n,); None for a layer without one.
    """

    w: Array
    b: Array | None = None


class Activation(NamedTuple):
    """A layer without parameters: any pair of a forward and a backward.

    Those of this library are `RELU`, `LEAKY_RELU`, `SOFTPLUS`, `SIGMOID`, `TANH`, `SILU`, `GELU`, `SOFTMAX` and
    `LOG_SOFTMAX`, each with its pair's default options.

    Attributes
    ----------
    forward : callable
        Takes the layer's input and returns its output.
    backward : callable
        Takes the upstream gradient and what the layer keeps, and returns the gradient for its input.
    keeps : {"input", "output"}
        What the backward takes: an array that a neighbour keeps too costs no memory.
    """

    forward: Callable[[Array], Array]
    backward: Callable[[Array, Array], Array]
    keeps: Literal["input", "output"]


Layer: TypeAlias = Affine | Activation

RELU = Activation(relu_forward, relu_backward, "output")
LEAKY_RELU = Activation(leaky_relu_forward, leaky_relu_backward, "output")
SOFTPLUS = Activation(softplus_forward, softplus_backward, "output")
SIGMOID = Activation(sigmoid_forward, sigmoid_backward, "output")
TANH = Activation(tanh_forward, tanh_backward, "output")
SILU = Activation(silu_forward, silu_backward, "input")
GELU = Activation(gelu_forward, gelu_backward, "input")
SOFTMAX = Activation(softmax_forward, softmax_backward, "output")
LOG_SOFTMAX = Activation(log_softmax_forward, log_softmax_backward, "output")
