"""Check any pair on any arrays against the laws of a pair."""

import inspect
import math
from collections.abc import Callable, Collection
from random import Random
from typing import Any, cast

from array_api_compat import array_namespace

from pullback._core.arguments import shapes, validate_library_and_device
from pullback._core.pair import Pair
from pullback._core.typing import Array
from pullback._testing.laws import findings
from pullback._testing.report import PairReport
from pullback._testing.sampling import LARGEST, read_numbers
from pullback._testing.structure import is_floating
from pullback._testing.trial import Function, Subject

# Reading a number into Python takes up to 10 µs, and each is read about ten times.
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
    """Check a forward and its backward against the laws of a pair.

    Parameters
    ----------
    forward : callable
        ``forward(*inputs)`` returns the output, or a tuple of outputs.
    backward : callable
        ``backward(da, *needed)`` takes the upstream gradient, one for each output, and then the inputs in `needs`. It
        returns the gradients in the order of the inputs: one array, or a tuple in which None is skipped.
    *inputs : Array
        The point to check at: arrays of any library, dtype, device and layout, with at most 10,000 entries in total.
        float64 gives the smallest tolerances.
    needs : tuple of str, default all
        The inputs that the backward takes, in its order.
    wrt : collection of str, default those of a floating dtype
        The inputs that the backward returns a gradient for.
    names : tuple of str, optional
        Names of the inputs. By default, those of the forward's parameters, or ``x0, x1, …`` if it has no signature. If
        they are given, a NamedTuple of gradients must have the fields ``d`` + name.
    jvp : callable, optional
        ``jvp(*inputs, *tangents)`` returns the tangent of each output; there is a tangent for each input in `wrt`.
    double_backward : callable, optional
        ``double_backward(*cotangents, da, *needed)`` is the backward of `backward`. It takes a cotangent for each
        gradient, and returns a gradient for `da` and for each input in `wrt` that the backward needs.
    seed : int, default 0
        Seed of the upstream gradient and of the tangents.

    Returns
    -------
    PairReport
        The findings of each law: the result, the right result, and the tolerance. ``print`` it.

    Raises
    ------
    AssertionError
        If a law is broken. The text is the report, which is also ``args[0]``.
    TypeError
        If an input is not an array or comes from another library than the others.
    ValueError
        If the inputs lie on different devices, have more than 10,000 entries, a NaN, an infinity or a number above
        1e150, if none has a gradient, or if an option names something other than inputs.

    Notes
    -----
    The laws, in the order in which they are checked. The check stops after the first of *structure*, *purity*,
    *finiteness* and *repeatability* that is broken.

    *structure*
        Each gradient has the namespace, shape, dtype and device of its input, and each tangent those of its output. An
        output has the namespace and the device of the inputs, and their promoted dtype or the real or complex one of
        the same precision.
    *purity*
        No function writes to its arguments.
    *finiteness*
        No output, gradient or tangent has a NaN, an infinity, or a number above 1e150, whose products overflow.
    *repeatability*
        A function that is called again with the same arguments, after calls of all functions with others, returns the
        same bits; and its first results are still what they were. So a function may not be random, nor depend on
        earlier calls, nor return memory that it uses again.
    *laziness*
        No function computes a lazy array: one that has the methods ``compute`` and ``map_blocks``, as Dask's do. Each
        function is called with arrays whose blocks raise when they are computed, on any scheduler. This finds every
        value that is asked for and depends on an entry of an argument. It does not find one that depends only on an
        array that the function holds itself, one whose error the function catches, nor what a cluster is told to
        compute in the background.
    *linearity*
        The negative upstream gradient gives the negative gradients.
    *adjoint identity*
        ``⟨dx, ẋ⟩ = ⟨da, ȧ⟩`` for a tangent ẋ of each input, and for all tangents together, where `jvp` gives ȧ and
        ``⟨x, y⟩ = Re Σ conj(x) y``. It is exact up to rounding for every map [1]_.
    *central difference*
        ``⟨dx, ẋ⟩ = ⟨da, (f(x + h ẋ) - f(x - h ẋ)) / 2h⟩`` for a tangent of each input. With ``h = 1`` it is exact up to
        rounding for a map that is affine or quadratic in the input, and then it is the adjoint identity without a
        `jvp`. If the sides differ there, h is halved until the tolerance is least. The tolerance is the sum of two
        errors: of rounding, which grows as 1/h, and of the step, which falls as h². Once it falls so, the error of the
        step is a third of the change in the last halving; all of that change is allowed. If the least tolerance exceeds
        the cube root of the rounding error at h = 1, both in relation to the size below, no step converges and the law
        is broken: the outputs have noise, or the dtype is too narrow for the function at this point.
    *double backward*
        The same laws for `double_backward`, as the backward of the map ``(da, *needed) → gradients``.

    The upstream gradient is drawn from a normal distribution. A tangent moves each number by 1/4 to 3/4 of itself, so
    that functions with a kink at zero, or with no values beyond it, can be checked with a step of 1. A number that is
    zero moves as the others do on average, or not at all in an array that has an unknown size; do not place it where a
    function has no derivative.

    The size of independent relative errors of 1 in all numbers is ``‖da ∘ a‖ + Σ ‖dx ∘ x‖``: of those in the outputs
    and, as the outputs see them, of those in the inputs. The tolerance for rounding is ``4 (eps + √K·eps₃₂)`` times
    that size, divided by h. K is the number of entries in all inputs and outputs, the largest number of terms in a sum;
    eps is that of the coarsest dtype, and eps₃₂ at most that of float32, in which sums of narrower numbers should be
    accumulated. An infinite tolerance breaks a law.

    Values are read into Python, where the inner products are summed exactly: this function, unlike those that it
    checks, computes lazy arrays and waits for GPUs. It does not check the behaviour for NaN or for other shapes. It
    does not find an error below the tolerance; so it misses the gradient of a number that is tiny in relation to the
    others, and that of a small output next to a huge one. Warnings from the forward away from the point are suppressed,
    since a step may leave the domain of a function.

    References
    ----------
    .. [1] A. Griewank and A. Walther, "Evaluating Derivatives", 2nd edition, 2008, chapter 3.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import affine_backward, affine_forward, check_pair, softmax_cross_entropy
    >>> z, w, b = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([[5.0, 6.0], [7.0, 8.0]]), np.asarray([0.5, -0.5])
    >>> print(check_pair(affine_forward, affine_backward, z, w, b, needs=("z", "w")))  # doctest: +ELLIPSIS
    check_pair: affine_forward, affine_backward: all 18 findings hold
        ok structure of the output: numpy float64 on cpu
        ok structure of dz: numpy float64 on cpu (2, 2)
        ok structure of dw: numpy float64 on cpu (2, 2)
        ok structure of db: numpy float64 on cpu (2,)
        ok purity of z: as it was
        ok purity of w: as it was
        ok purity of b: as it was
        ok purity of da: as it was
        ok finiteness of the forward: numbers below 1e+150
        ok finiteness of the backward: numbers below 1e+150
        ok repeatability of the backward: the same bits
        ok repeatability of the forward: the same bits
        ok linearity of dz: got -9.94103531, expected -9.94103531, error ..., tolerance 4.1e-13
        ok linearity of dw: got 17.7684611, expected 17.7684611, error ..., tolerance 4.1e-13
        ok linearity of db: got 0.0987538447, expected 0.0987538447, error ..., tolerance 4.1e-13
        ok central difference of dz: got 9.94103531, expected 9.94103531, error ..., tolerance 4.8e-13
        ok central difference of dw: got -17.7684611, expected -17.7684611, error ..., tolerance 5.6e-13
        ok central difference of db: got -0.0987538447, expected -0.0987538447, error ..., tolerance 4.1e-13

    A loss returns its value and its gradient in one call; class indices have no gradient:

    >>> def value(a, y):
    ...     return softmax_cross_entropy(a, y).value
    >>> def gradient(dvalue, a, y):
    ...     return softmax_cross_entropy(a, y).da * dvalue
    >>> report = check_pair(value, gradient, z, np.asarray([0, 1]))

    A gradient that is wrong by a factor:

    >>> check_pair(np.sin, lambda da, x: da * np.cos(x) * 1.001, z)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: check_pair: sin, <lambda>: 1 of 10 findings break a law
    BROKEN central difference of dx: got ..., expected ..., error ..., tolerance ...
    ...
    """
    named = names is not None
    names = _names(forward, len(inputs)) if names is None else tuple(names)
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
        named_fields=named,
    )
    title = ", ".join(getattr(function, "__name__", repr(function)) for function in (forward, backward))
    if not subject.wrt:
        msg = f"check_pair: wrt must name at least one input; got {wrt!r}"
        raise ValueError(msg)
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
    """Check the names, libraries, devices, dtypes, sizes and numbers of the inputs."""
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
        msg = f"check_pair: the inputs must have at most {_MOST:,} entries in total; got {got}. Pass a few rows"
        raise ValueError(msg)
    for name, x in zip(names, inputs, strict=True):
        wrong = [number for number in read_numbers(x) if not abs(number) < LARGEST]
        if wrong:
            msg = f"check_pair: the inputs must be finite numbers below {LARGEST:.0e}; got {wrong[0]} in {name}"
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
    """Return the names of the parameters that take the inputs, or x0, x1, … if the function has no signature."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # some functions that are not written in Python
        parameters = {}.values()
    takes = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in takes]
    return tuple(names[:count]) if len(names) >= count else tuple(f"x{i}" for i in range(count))
