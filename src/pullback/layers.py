"""What a stack is made of: affine layers, which have parameters, and activations, which are any pair without."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from pullback._typing import Array


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
