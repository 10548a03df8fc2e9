"""A stack of layers, affine maps and activations, and its backward: a composition of pairs, without a tape."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, cast

from pullback._core.arguments import check_wrt
from pullback._core.pair import Pair
from pullback._core.typing import ArrayT
from pullback._ops.activations import gated, rectifiers, sigmoids, softmax
from pullback._ops.affine import affine_backward, affine_forward


class Affine(NamedTuple, Generic[ArrayT]):
    """The layer ``a = z w + b``; or the gradients for its parameters.

    Attributes
    ----------
    w : Array
        Weights, shape (k, n).
    b : Array or None
        Bias, shape (n,); None for a layer without one.
    """

    w: ArrayT
    b: ArrayT | None = None


class Activation(NamedTuple):
    """A layer without parameters: any pair of a forward and a backward.

    Those of this library are `RELU`, `LEAKY_RELU`, `SOFTPLUS`, `SIGMOID`, `TANH`, `SILU`, `GELU`, `SOFTMAX` and
    `LOG_SOFTMAX`, each with its pair's default options.

    Attributes
    ----------
    forward : callable
        Takes the layer's input and returns its output.
    backward : callable
        Takes the upstream gradient and what the layer saves, and returns the gradient for its input.
    saves : {"input", "output"}
        The array that the backward takes. An array that a neighbouring layer saves too costs no memory.
    """

    forward: Callable[[Any], Any]
    backward: Callable[[Any, Any], Any]
    saves: Literal["input", "output"]


Layer: TypeAlias = Affine[ArrayT] | Activation


def _activation(pair: Pair, /) -> Activation:
    """Make a layer of the record of an activation."""
    return Activation(pair.forward, cast("Callable[[Any, Any], Any]", pair.backward), pair.saves)


RELU = _activation(rectifiers.RELU)
LEAKY_RELU = _activation(rectifiers.LEAKY_RELU)
SOFTPLUS = _activation(rectifiers.SOFTPLUS)
SIGMOID = _activation(sigmoids.SIGMOID)
TANH = _activation(sigmoids.TANH)
SILU = _activation(gated.SILU)
GELU = _activation(gated.GELU)
SOFTMAX = _activation(softmax.SOFTMAX)
LOG_SOFTMAX = _activation(softmax.LOG_SOFTMAX)

_INPUTS = ("z", "layers")
_SAVES = ("input", "output")


class Saved(NamedTuple, Generic[ArrayT]):
    """A layer with the array that its backward takes.

    Attributes
    ----------
    layer : Affine or Activation
        The layer.
    x : Array
        The input of the layer, or the output for an activation that saves its output.
    """

    layer: Layer[ArrayT]
    x: ArrayT


class StackOutput(NamedTuple, Generic[ArrayT]):
    """The output of a stack.

    Attributes
    ----------
    a : Array
        Output of the last layer.
    saved : tuple of Saved
        Arrays for `stack_backward`, one for each layer. None of them is a copy.
    """

    a: ArrayT
    saved: tuple[Saved[ArrayT], ...]


class StackGradients(NamedTuple, Generic[ArrayT]):
    """Gradients of a real loss for a stack; None where `wrt` did not ask.

    Attributes
    ----------
    dz : Array or None
        Gradient for the input batch.
    layers : tuple of (Affine or None), or None
        For each layer: the gradients for its parameters, as `Affine`, and None for an activation, which has none.
    """

    dz: ArrayT | None
    layers: tuple[Affine[ArrayT] | None, ...] | None


def stack_forward(layers: Sequence[Layer[ArrayT]], z: ArrayT, /) -> StackOutput[ArrayT]:
    """Apply layers one after the other.

    Parameters
    ----------
    layers : sequence of Affine or Activation
        The layers, from the input to the output.
    z : Array, shape (..., k)
        Input batch.

    Returns
    -------
    StackOutput
        ``(a, saved)``: the output, and the arrays for `stack_backward`.

    Raises
    ------
    TypeError
        If a layer is neither an `Affine` nor an `Activation`, or a layer's forward raises it.
    ValueError
        If a layer's forward raises it, or `saves` of an activation is neither ``"input"`` nor ``"output"``.

    See Also
    --------
    stack_backward : The gradients.

    Notes
    -----
    Each layer saves one array. An affine layer saves its input. An activation that saves its output adds no array: the
    output is the input of the next layer.

    Under ``jax.jit``, the traced function takes the parameters and makes the layers of them, since an activation is not
    an array.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import RELU, Affine, stack_forward
    >>> layers = [Affine(np.asarray([[1.0], [-2.0]]), np.asarray([0.5])), RELU]
    >>> stack_forward(layers, np.asarray([[1.0, 0.5], [0.0, 1.0]])).a
    array([[0.5],
           [0. ]])
    """
    saved = []
    for i, layer in enumerate(layers):
        if isinstance(layer, Affine):
            saved.append(Saved(layer, z))
            z = affine_forward(z, *layer)
            continue
        _check_activation(i, layer)
        h = layer.forward(z)
        saved.append(Saved(layer, z if layer.saves == "input" else h))
        z = h
    return StackOutput(z, tuple(saved))


def stack_backward(
    da: ArrayT, saved: Sequence[Saved[ArrayT]], /, *, wrt: Collection[str] = _INPUTS
) -> StackGradients[ArrayT]:
    """Compute the gradients of a stack for its input and its parameters from the upstream gradient.

    Parameters
    ----------
    da : Array, shape (..., n)
        Upstream gradient ``∂L/∂a`` of a real loss L, of the shape of the output.
    saved : sequence of Saved
        The arrays that `stack_forward` saved.
    wrt : collection of str, default ("z", "layers")
        The inputs to differentiate for: the batch, the parameters of the layers. Training needs ``("layers",)`` only,
        without the product for the gradient of the batch.

    Returns
    -------
    StackGradients
        ``(dz, layers)``: the gradient for the input, and for each layer an `Affine` of gradients, with the shapes,
        dtypes and device of its parameters, or None for an activation.

    Raises
    ------
    TypeError
        If a layer's backward raises it.
    ValueError
        If a layer's backward raises it, or `wrt` names something else.

    See Also
    --------
    stack_forward : The map.

    Notes
    -----
    This is the chain rule: each layer's backward, from the last to the first, takes the gradient that the one after it
    returned [1]_. It stops at the lowest layer that `wrt` needs.

    References
    ----------
    .. [1] D. E. Rumelhart, G. E. Hinton and R. J. Williams, "Learning representations by back-propagating errors",
       Nature 323, 1986.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import RELU, Affine, stack_backward, stack_forward
    >>> layers = [Affine(np.asarray([[1.0], [-2.0]]), np.asarray([0.5])), RELU]
    >>> a, saved = stack_forward(layers, np.asarray([[1.0, 0.5], [0.0, 1.0]]))
    >>> stack_backward(np.ones_like(a), saved, wrt=("layers",)).layers
    (Affine(w=array([[1. ],
           [0.5]]), b=array([1.])), None)
    """
    check_wrt("stack_backward", wrt, _INPUTS)
    lowest = _lowest(saved, wrt)
    gradients: list[Affine[ArrayT] | None] = [None] * len(saved)
    # One name for all upstream gradients frees each of them after the layer below has used it.
    upstream: Any = da
    for i in range(len(saved) - 1, lowest - 1, -1):
        layer, x = saved[i]
        if isinstance(layer, Affine):
            names = ["z"] if "z" in wrt or i > lowest else []
            if "layers" in wrt:
                names += ["w"] if layer.b is None else ["w", "b"]
            upstream, dw, db = affine_backward(upstream, x, layer.w, wrt=names)
            if "layers" in wrt:
                gradients[i] = Affine(cast("ArrayT", dw), db)
        else:
            upstream = layer.backward(upstream, x)
    return StackGradients(upstream if "z" in wrt else None, tuple(gradients) if "layers" in wrt else None)


def _lowest(saved: Sequence[Saved], wrt: Collection[str], /) -> int:
    """Return the index of the lowest layer whose backward is needed; the number of layers if none is."""
    if "z" in wrt:
        return 0
    affine = [i for i, (layer, _) in enumerate(saved) if isinstance(layer, Affine)]
    return affine[0] if "layers" in wrt and affine else len(saved)


def _check_activation(i: int, layer: object, /) -> None:
    """Check that a layer that is not affine is an activation."""
    if not isinstance(layer, Activation):
        msg = f"stack_forward: each layer must be an Affine or an Activation; got {type(layer).__name__} for layer {i}"
        raise TypeError(msg)
    if layer.saves not in _SAVES:
        msg = f"stack_forward: saves must be one of {_SAVES}; got {layer.saves!r} for layer {i}"
        raise ValueError(msg)
