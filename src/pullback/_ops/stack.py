"""A stack of layers, affine maps and activations, and its backward: a composition of pairs, without a tape."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, cast

from array_api_compat import array_namespace

from pullback._core.arguments import check_wrt
from pullback._core.operators import is_operator
from pullback._core.pair import Pair
from pullback._core.typing import ArrayT
from pullback._ops.activations import gated, rectifiers, sigmoids, softmax
from pullback._ops.affine import affine_backward, affine_forward
from pullback._ops.per_example.gradients import clip_scale, per_example_norms, read_max_norm


class Affine(NamedTuple, Generic[ArrayT]):
    """The layer ``a = z w + b``; or the gradients for its parameters.

    Attributes
    ----------
    w : Array
        Weights, shape (k, n), or (k,) for a last layer of a single output.
    b : Array or None
        Bias, shape (n,), or () with a vector of weights; None for a layer without one.
    """

    w: ArrayT
    b: ArrayT | None = None


class Activation(NamedTuple):
    """A layer without parameters: any pair of a forward and a backward.

    Those of this library are `RELU`, `LEAKY_RELU`, `SOFTPLUS`, `SIGMOID`, `TANH`, `SILU`, `GELU`, `SOFTMAX` and
    `LOG_SOFTMAX`, each with the default options of its pair. `functools.partial` of both functions gives others.

    Attributes
    ----------
    forward : callable
        Takes the layer's input and returns its output.
    backward : callable
        Takes the upstream gradient and what the layer saves, and returns the gradient for its input.
    saves : {"input", "output"}
        The array that the backward takes. An array that a neighbouring layer saves too costs no memory.

    Examples
    --------
    A softmax over the axis before the last, in which a position of padding has no share:

    >>> from functools import partial
    >>> import numpy as np
    >>> from pullback import Activation, softmax_backward, softmax_forward, stack_forward
    >>> options = {"axis": -2, "mask": np.asarray([[True], [True], [False]])}
    >>> layer = Activation(partial(softmax_forward, **options), partial(softmax_backward, **options), "output")
    >>> stack_forward([layer], np.asarray([[1.0], [1.0], [7.0]])).a
    array([[0.5],
           [0.5],
           [0. ]])
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
        Input batch, also a sparse one where the first layer is an `Affine`.

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
        without the product for the gradient of the batch. A sparse batch has no gradient.

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
        If a layer's backward raises it, or `wrt` names something else, or ``"z"`` where that is sparse.

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
    _check_saved("stack_backward", saved)
    if "z" in wrt and saved and is_operator(saved[0].x):
        msg = (
            "stack_backward: wrt must not name 'z' where the batch is sparse or an operator, since the gradient is "
            f"dense; got {tuple(wrt)}. Pass wrt=('layers',)"
        )
        raise ValueError(msg)
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


def stack_norms(da: ArrayT, saved: Sequence[Saved[ArrayT]], /) -> ArrayT:
    """Compute the norm of the gradient of each example for all parameters of a stack, in one backward.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a last layer with a vector of weights
        Upstream gradient of the output. Row i is the gradient of the loss of example i alone, as ``reduction="none"``
        and ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times too small, and so is
        the result. The axes in the middle, if any, are positions inside an example.
    saved : sequence of Saved
        The arrays that `stack_forward` saved. Each layer must act on each example by itself.

    Returns
    -------
    Array, shape (m,)
        The norms, not squared, over the weights and biases of all affine layers together.

    Raises
    ------
    TypeError
        If a layer's backward raises it.
    ValueError
        If a layer's backward raises it, or no layer is an `Affine`.

    See Also
    --------
    stack_clipped_gradients : The sum of the gradients, each clipped to a norm.
    per_example_norms : The norms of one layer.

    Notes
    -----
    The squared norm is the sum of the squared norms of the layers. Each comes from the upstream gradient and the input
    of its layer, without the gradients themselves, and all upstream gradients come from one backward.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import RELU, Affine, stack_forward, stack_norms
    >>> layers = [Affine(np.asarray([[1.0], [-2.0]])), RELU, Affine(np.asarray([[3.0]]))]
    >>> a, saved = stack_forward(layers, np.asarray([[4.0, 0.0], [0.0, 1.0]]))
    >>> stack_norms(np.ones_like(a), saved)
    array([12.64911064,  0.        ])
    """
    return _norms("stack_norms", _upstreams("stack_norms", da, saved))


def stack_clipped_gradients(
    da: ArrayT, saved: Sequence[Saved[ArrayT]], /, max_norm: float | ArrayT
) -> StackGradients[ArrayT]:
    """Compute the sum of the gradients of the examples for a stack, each scaled down to a norm of at most `max_norm`.

    Parameters
    ----------
    da : Array, shape (m, ..., n), or (m, ...) for a last layer with a vector of weights
        Upstream gradient of the output. Row i is the gradient of the loss of example i alone, as ``reduction="none"``
        and ``reduction="sum"`` of a loss return it. With ``reduction="mean"`` the rows are m times too small, and so is
        the norm that is compared with `max_norm`. The axes in the middle, if any, are positions inside an example.
    saved : sequence of Saved
        The arrays that `stack_forward` saved. Each layer must act on each example by itself.
    max_norm : float or Array, shape () or (m,)
        Largest norm of the gradient of an example, over all parameters of the stack together, as in
        `clipped_gradients`.

    Returns
    -------
    StackGradients
        ``(None, layers)``: for each layer an `Affine` of sums, or None for an activation.

    Raises
    ------
    TypeError
        If a layer's backward raises it, or `max_norm` is neither a real number nor an array of the library of `da`.
    ValueError
        If a layer's backward raises it, no layer is an `Affine`, or `max_norm` is not above 0.

    See Also
    --------
    stack_norms : The norms before clipping.
    clipped_gradients : The same for one layer.

    Notes
    -----
    With the norms of `stack_norms`, ``c_i = min(1, max_norm / ‖grad_i‖)`` scales the upstream gradient of each layer:
    ``dw = zᴴ (c ∘ da)`` and ``db = Σ c ∘ da``. The network is traversed once. The upstream gradients of all affine
    layers are in memory at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import RELU, Affine, stack_clipped_gradients, stack_forward
    >>> layers = [Affine(np.asarray([[1.0], [-2.0]])), RELU, Affine(np.asarray([3.0]))]
    >>> a, saved = stack_forward(layers, np.asarray([[4.0, 0.0], [0.0, 1.0]]))
    >>> first, _, last = stack_clipped_gradients(np.ones_like(a), saved, 1.0).layers
    >>> first.w, last.w
    (array([[0.9486833],
           [0.       ]]), array([0.31622777]))
    """
    parts = _upstreams("stack_clipped_gradients", da, saved)
    norm: Any = _norms("stack_clipped_gradients", parts)
    xp: Any = array_namespace(norm)
    limit = read_max_norm("stack_clipped_gradients", xp, da, max_norm)
    scale = clip_scale(xp, norm, limit)
    layers: list[Affine[ArrayT] | None] = [None] * len(saved)
    for i, layer, upstream, x in parts:
        clipped: Any = upstream * xp.astype(scale, upstream.dtype, copy=False)[(..., *[None] * (upstream.ndim - 1))]
        _, dw, db = affine_backward(clipped, x, layer.w, wrt=("w",) if layer.b is None else ("w", "b"))
        layers[i] = Affine(cast("ArrayT", dw), db)
    return StackGradients(None, tuple(layers))


def _upstreams(
    function: str,
    da: Any,  # noqa: ANN401
    saved: Sequence[Saved],
    /,
) -> list[tuple[int, Affine, Any, Any]]:
    """Return the place of each affine layer, the layer, its upstream gradient and its input, the last layer first."""
    _check_saved(function, saved)
    lowest, parts = _lowest(saved, ("layers",)), []
    for i in range(len(saved) - 1, lowest - 1, -1):
        layer, x = saved[i]
        if isinstance(layer, Affine):
            parts.append((i, layer, da, x))
            da = affine_backward(da, x, layer.w, wrt=("z",)).dz if i > lowest else None
        else:
            da = layer.backward(da, x)
    return parts


def _norms(function: str, parts: list[tuple[int, Affine, Any, Any]], /) -> Any:  # noqa: ANN401
    """Return the norms over all affine layers."""
    if not parts:
        msg = f"{function}: at least one layer must be an Affine, which has parameters; got none"
        raise ValueError(msg)
    norms: list[Any] = [per_example_norms(da, x, bias=layer.b is not None) for _, layer, da, x in parts]
    xp = array_namespace(*norms)
    top = norms[0]
    for norm in norms[1:]:
        top = xp.maximum(top, norm)
    # Squares of shares of the largest are in range. An infinite norm would be a share of NaN.
    size = xp.where(xp.logical_and(top > 0, top < math.inf), top, 1.0)
    total = sum((norm / size) ** 2 for norm in norms)
    return size * xp.sqrt(total)


def _lowest(saved: Sequence[Saved], wrt: Collection[str], /) -> int:
    """Return the index of the lowest layer whose backward is needed; the number of layers if none is."""
    if "z" in wrt:
        return 0
    affine = [i for i, (layer, _) in enumerate(saved) if isinstance(layer, Affine)]
    return affine[0] if "layers" in wrt and affine else len(saved)


def _check_saved(function: str, saved: Sequence[Saved], /) -> None:
    """Check that saved is what stack_forward returned with the output, and neither all of it nor the layers."""
    wrong = next((x for x in saved if not isinstance(x, Saved)), None)
    if wrong is not None:
        got = type(wrong).__name__
        msg = f"{function}: saved must be the second result of stack_forward, a tuple of Saved; got {got} in it"
        raise TypeError(msg)


def _check_activation(i: int, layer: object, /) -> None:
    """Check that a layer that is not affine is an activation."""
    if not isinstance(layer, Activation):
        got = type(layer).__name__
        msg = (
            f"stack_forward: each layer must be an Affine or an Activation, as RELU is; got {got} for layer {i}. "
            "Make one with Affine(w, b) or Activation(forward, backward, saves)"
        )
        raise TypeError(msg)
    if layer.saves not in _SAVES:
        msg = f"stack_forward: saves must be one of {_SAVES}; got {layer.saves!r} for layer {i}"
        raise ValueError(msg)
