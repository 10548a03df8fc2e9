"""The record of a pair: a forward, its backward, and the facts that the tape, the checks and the tests need."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Example: TypeAlias = tuple[int, ...] | list[Any]
"""An example input: the shape of a floating array to draw, or the entries of an integer array as nested lists."""


@dataclass(frozen=True)
class Pair:
    """A forward and its backward, or a loss and its Hessian product.

    All functions take arrays by position and options by keyword. The forward, the backward and the Hessian product take
    the same options, except `wrt`, which only a backward of several inputs takes.

    Attributes
    ----------
    name : str
        Name of the pair.
    forward : callable
        ``forward(*inputs, **options)`` returns the output; a loss returns ``Loss(value, da)``, its value and gradient.
    backward : callable or None
        ``backward(da, *needed, **options)`` returns the gradients. For one input, this is an array. For several inputs,
        it is a NamedTuple in the order of `inputs`, with None where the option ``wrt=`` does not name an input. None
        for a loss, whose forward returns the gradient for its first input; the other inputs have none.
    inputs : mapping of str to tuple of int or list
        The inputs of the forward in order, each with an example: the shape of a floating array, or a list of integers.
    needs : tuple of str
        What the backward takes after the upstream gradient: inputs, or ``"output"`` for the output of the forward.
        For a loss, what the Hessian product takes after the tangent.
    jvp : callable or None
        ``jvp(*needed, **tangents)`` returns the tangent of the output. The tangent of an input is named
        ``<input>_tangent``; None, the default, stands for zero.
    double_backward : callable or None
        ``double_backward(*cotangents, da, *needed)`` returns the gradients for `da` and for each needed input. It takes
        a cotangent for each gradient; None stands for zero.
    hessian_product : callable or None
        For a loss: ``hessian_product(v, *needed, **options)`` returns the derivative of `da` along v.
    check : callable or None
        For a loss: ``check(*inputs, **options)``, with all options, checks them and returns what computes the loss for
        some rows at a time.
    real : bool
        Whether the pair takes no complex arrays.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    inputs: Mapping[str, Example]
    needs: tuple[str, ...]
    jvp: Callable[..., Any] | None = None
    double_backward: Callable[..., Any] | None = None
    hessian_product: Callable[..., Any] | None = None
    check: Callable[..., Any] | None = None
    real: bool = False

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The inputs that have a gradient: the first one of a loss, all inputs otherwise."""
        names = tuple(self.inputs)
        return names[:1] if self.backward is None else names

    @property
    def saves(self) -> Literal["input", "output"]:
        """Whether the backward needs the output of the forward or, as ``"input"``, inputs alone."""
        return "output" if "output" in self.needs else "input"
