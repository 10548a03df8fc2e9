"""The laws of a pair, checked for anybody's pair on anybody's arrays."""

import cmath
import inspect
import math
from collections.abc import Callable, Collection
from random import Random
from typing import Any, cast

from array_api_compat import array_namespace

from pullback._core.arguments import shapes, validate_library_and_device
from pullback._core.pair import Pair
from pullback._core.typing import Array
from pullback._testing.laws import Function, Subject, findings
from pullback._testing.report import PairReport
from pullback._testing.sampling import read_numbers
from pullback._testing.structure import is_floating

# Each number is read into Python, by some libraries in ten microseconds: so many, read some ten times, take a second.
_MOST = 10_000


def check_pair(  # noqa: PLR0913 - the options
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    /,
    *inputs: Array,
    needs: Collection[str] | None = None,
    wrt: Collection[str] | None = None,
    names: Collection[str] | None = None,
    jvp: Callable[..., Any] | None = None,
    double_backward: Callable[..., Any] | None = None,
    seed: int = 0,
) -> PairReport:
    """Check a forward and its backward against the laws that every pair obeys.

    Parameters
    ----------
    forward : callable
        ``forward(*inputs)`` returns the output, or a tuple of outputs.
    backward : callable
        ``backward(da, *needed)`` takes the upstream gradient, one for each output, and then the inputs that `needs`
        names. It returns the gradients in the order of the inputs: one array or a tuple, in which None is passed over.
    *inputs : Array
        The point to check at: finite and small, 10,000 entries in all at most. Arrays of your own library, dtype,
        device and layout; float64 finds the most.
    needs : tuple of str, default all
        The inputs that the backward takes, in its order.
    wrt : collection of str, default those of a floating dtype
        The inputs that the backward returns a gradient for.
    names : tuple of str, optional
        The inputs' names, by default those of the forward's parameters, or ``x0, x1, …`` if it does not tell. If they
        are given, a NamedTuple of gradients must have the fields ``d`` + name.
    jvp : callable, optional
        ``jvp(*inputs, *tangents)`` returns the tangent of each output; there is a tangent for each input in `wrt`.
    double_backward : callable, optional
        ``double_backward(*cotangents, da, *needed)`` is the backward of `backward`. It takes a cotangent for each
        gradient, and returns a gradient for `da` and for each input in `wrt` that the backward needs.
    seed : int, default 0
        What the upstream gradient and the tangents are drawn from.

    Returns
    -------
    PairReport
        What each law found: what the pair gave, what it should have given, and the tolerance. ``print`` it.

    Raises
    ------
    AssertionError
        If a law is broken, so that no call needs an ``assert``. Its text is the report, which is also ``args[0]``.
    TypeError
        If an input is not an array or comes from another library than the others.
    ValueError
        If the inputs lie on different devices, are too large or not finite, none has a gradient, or an option names
        something else than inputs.

    Notes
    -----
    The laws:

    *structure*
        Each gradient has the namespace, shape, dtype and device of its input, and each tangent those of its output. An
        output has the namespace and the device of the inputs, and their promoted dtype or the real or complex one of
        the same precision.
    *purity*
        Nothing is written into the arguments.
    *laziness*
        No function computes a lazy array: one that has the methods ``compute`` and ``map_blocks``, as Dask's do. Each
        function is called once more with arrays whose blocks raise when they are computed, on whatever scheduler. This
        finds every value that is asked for and depends on an entry of an argument. It does not find one that depends
        only on an array that the function holds itself, one whose error the function catches, nor what a cluster is
        told to compute in the background.
    *adjoint identity*
        ``⟨dx, ẋ⟩ = ⟨da, ȧ⟩`` for a tangent ẋ of each input, where `jvp` gives ȧ and ``⟨x, y⟩ = Re Σ conj(x) y``. It is
        exact up to rounding for every map [1]_.
    *central difference*
        ``⟨dx, ẋ⟩ = ⟨da, (f(x + h ẋ) - f(x - h ẋ)) / 2h⟩`` for a tangent of each input. With ``h = 1`` it is exact up to
        rounding for a map that is affine or quadratic in the input, and then it is the adjoint identity without a
        `jvp`. If the sides differ there, h is halved until the tolerance is least. It is the sum of two errors: of
        rounding, which grows as 1/h, and of the step, which falls as h². Once it falls so, the error of the step is
        a third of what the last halving changed; all of what it changed is allowed for.
    *double backward*
        The same laws for `double_backward`, as the backward of the map ``(da, *needed) → gradients``.

    The upstream gradient is drawn from a normal distribution. A tangent moves each number by 1/4 to 3/4 of itself, so
    that functions with a kink at zero, or no values beyond it, can be checked with a step of 1. A number that is zero
    moves as the others do on average, or not at all in an array that has a size which is not known; keep it from where
    a function has no derivative.

    Independent relative errors of 1 in all numbers come to ``‖da ∘ a‖ + Σ ‖dx ∘ x‖``: those of the outputs and, as the
    outputs see them, of the inputs. Rounding is allowed ``4 (eps + √K·eps₃₂)`` times that, divided by h. K is the
    number of entries in all inputs and outputs, the longest that a sum can be; eps is that of the coarsest dtype, and
    eps₃₂ no more than that of float32, in which sums of narrower numbers should be kept.

    Values are read into Python, where the inner products are summed without an error: this function, other than those
    that it checks, computes lazy arrays and waits for GPUs. It does not say what a pair does with a NaN or with other
    shapes, and does not find an error that is less than the tolerance. Warnings that the forward gives away from the
    point are kept back, since a step may leave the domain of a function.

    References
    ----------
    .. [1] A. Griewank and A. Walther, "Evaluating Derivatives", 2nd edition, 2008, chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_backward, affine_forward, check_pair, softmax_cross_entropy
    >>> z, w, b = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[5.0, 6.0], [7.0, 8.0]]), np.asarray([0.5, -0.5])
    >>> print(check_pair(affine_forward, affine_backward, z, w, b, needs=("z", "w")))  # doctest: +ELLIPSIS
    check_pair: affine_forward, affine_backward: all 11 findings hold
        ok structure of the output: numpy float64 on cpu
        ok structure of dz: numpy float64 on cpu (2, 2)
        ok structure of dw: numpy float64 on cpu (2, 2)
        ok structure of db: numpy float64 on cpu (2,)
        ok purity of z: as it was
        ok purity of w: as it was
        ok purity of b: as it was
        ok purity of da: as it was
        ok central difference of dz: got 9.94103531, expected 9.94103531, error ..., tolerance 4.8e-13
        ok central difference of dw: got -17.7684611, expected -17.7684611, error ..., tolerance 5.6e-13
        ok central difference of db: got -0.0987538447, expected -0.0987538447, error ..., tolerance 4.1e-13

    A loss gives its value and its gradient in one call, and has class indices, which have no gradient:

    >>> def value(a, y):
    ...     return softmax_cross_entropy(a, y).value
    >>> def gradient(dvalue, a, y):
    ...     return softmax_cross_entropy(a, y).da * dvalue
    >>> report = check_pair(value, gradient, z, np.asarray([0, 1]))

    A gradient that is wrong by a factor:

    >>> check_pair(np.sin, lambda da, x: da * np.cos(x) * 1.001, z)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: check_pair: sin, <lambda>: 1 of 5 findings break a law
    BROKEN central difference of dx: got ..., expected ..., error ..., tolerance ...
    ...
    """
    names, told = (_names(forward, len(inputs)), False) if names is None else (tuple(names), True)
    _check_inputs(names, inputs)
    floating = tuple(name for name, x in zip(names, inputs, strict=True) if is_floating(x))
    subject = Subject(
        forward=forward,
        backward=backward,
        jvp=jvp,
        double_backward=double_backward,
        names=names,
        inputs=inputs,
        needs=_positions("needs", names if needs is None else needs, names, names),
        wrt=tuple(sorted(_positions("wrt", floating if wrt is None else wrt, floating, names))),
        fields=told,
    )
    title = ", ".join(getattr(function, "__name__", repr(function)) for function in (forward, backward))
    report = PairReport(title, tuple(findings(subject, Random(seed))))  # noqa: S311 - not for secrets
    if report.broken:
        raise AssertionError(report)
    return report


def check_record(pair: Pair, /, *inputs: Array) -> PairReport:
    """Check the pair of a record as `check_pair` does; of a loss, also the Hessian product, as a double backward."""
    functions = _map_functions(pair) if pair.hessian_product is None else _loss_functions(pair)
    forward, backward, jvp, double_backward = functions
    return check_pair(
        forward,
        backward,
        *inputs,
        names=tuple(pair.inputs),
        needs=tuple(pair.inputs) if "output" in pair.needs else pair.needs,
        wrt=pair.differentiable,
        jvp=jvp,
        double_backward=double_backward,
    )


def _map_functions(pair: Pair, /) -> tuple[Any, ...]:
    """Return forward, backward, jvp and double backward of a map; the backward computes the output if it needs it."""
    count = len(pair.inputs)

    def backward(da: Array, *inputs: Array) -> Any:  # noqa: ANN401 - an array or a NamedTuple
        known = dict(zip(pair.inputs, inputs, strict=True), output=pair.forward(*inputs))
        return cast("Function", pair.backward)(da, *(known[name] for name in pair.needs))

    def jvp(*arrays: Array) -> Array:
        known = dict(zip(pair.inputs, arrays[:count], strict=True))
        tangents = {f"{name}_tangent": x for name, x in zip(pair.inputs, arrays[count:], strict=True)}
        return cast("Function", pair.jvp)(*(known[name] for name in pair.needs), **tangents)

    return (
        pair.forward,
        backward if "output" in pair.needs else pair.backward,
        pair.jvp and jvp,
        pair.double_backward,
    )


def _loss_functions(pair: Pair, /) -> tuple[Any, ...]:
    """Return forward, backward, jvp and double backward of a loss, whose value and gradient come in one call."""

    def value(*inputs: Array) -> Array:
        return pair.forward(*inputs).value

    def gradient(dvalue: Array, *inputs: Array) -> Array:
        return pair.forward(*inputs).da * dvalue

    def double_backward(dda: Array, dvalue: Array, *inputs: Array) -> tuple[Array, Array]:
        da = pair.forward(*inputs).da
        return array_namespace(da).sum(dda * da), cast("Function", pair.hessian_product)(dda, *inputs) * dvalue

    return value, gradient, None, double_backward


def _check_inputs(names: tuple[str, ...], inputs: tuple[Array, ...], /) -> None:
    """Check that the inputs are named, belong together, can be differentiated at, and are small and finite."""
    if len(names) != len(inputs) or len(set(names)) != len(names):
        msg = f"check_pair: names must have one name for each input; got {names} for {len(inputs)} inputs"
        raise ValueError(msg)
    if inputs:
        validate_library_and_device("check_pair", names, *inputs)
    if not any(map(is_floating, inputs)):
        got = " and ".join(f"{name} of {x.dtype}" for name, x in zip(names, inputs, strict=True)) or "no input"
        msg = f"check_pair: at least one input must have a floating dtype; got {got}"
        raise ValueError(msg)
    if sum(math.prod(size for size in x.shape if isinstance(size, int)) for x in inputs) > _MOST:
        got = shapes(**dict(zip(names, inputs, strict=True)))
        msg = f"check_pair: the inputs must have at most {_MOST:,} entries in all, since each is read; got {got}. "
        msg += "Give a few rows of them"
        raise ValueError(msg)
    for name, x in zip(names, inputs, strict=True):
        if not all(map(cmath.isfinite, read_numbers(x))):
            msg = f"check_pair: the inputs must be finite; got NaN or infinity in {name}"
            raise ValueError(msg)


def _positions(
    option: str, asked: Collection[str], known: tuple[str, ...], names: tuple[str, ...], /
) -> tuple[int, ...]:
    """Return the positions of the inputs that an option names, in the option's order."""
    if isinstance(asked, str) or not isinstance(asked, Collection) or not all(name in known for name in asked):
        msg = (
            f"check_pair: {option} must be a tuple of names out of {known}; got {asked!r}. Name the inputs with names="
        )
        raise ValueError(msg)
    return tuple(names.index(name) for name in asked)


def _names(forward: Callable[..., Any], count: int, /) -> tuple[str, ...]:
    """Return the names of a function's parameters that take the inputs, or x0, x1, … if it does not tell."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # as of some functions that are not written in Python
        parameters = {}.values()
    takes = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in takes]
    return tuple(names[:count]) if len(names) >= count else tuple(f"x{i}" for i in range(count))
