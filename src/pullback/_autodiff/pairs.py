"""The pairs of this package as single operations of the tape, by their records."""

from typing import Any

from pullback._autodiff.custom import record_call
from pullback._autodiff.namespace import TracedNamespace, space_of
from pullback._autodiff.rules.accurate import record_sum
from pullback._autodiff.shapes import cast, fit, full, like
from pullback._autodiff.tape import Joint
from pullback._autodiff.traced import Traced, value_of
from pullback._core import tracing
from pullback._core.pair import Pair
from pullback._core.typing import Namespace


def record_pair(pair: Pair, inputs: tuple[Any, ...], /, **options: Any) -> Any:
    """Carry out a pair of one differentiable input on the values of traced arrays, and record it as one operation.

    Returns None if an array is active for which the pair has no derivative: it is then recorded function by function.
    """
    ns = space_of([x for x in (*inputs, *options.values()) if type(x) is Traced])
    inputs = tuple(ns.lift(x) for x in inputs)
    active = [i for i, x in enumerate(inputs) if x._index >= 0]
    differentiable = len(pair.differentiable)
    if any(i >= differentiable for i in active) or any(type(x) is Traced and x._index >= 0 for x in options.values()):
        return None
    values = tuple(x._value for x in inputs)
    options = {name: ns.lower(x) for name, x in options.items()}
    out = pair.forward(*values, **options)
    if not active:
        return ns.constants(out)
    if pair.backward is None:
        return _record_loss(ns, pair, inputs[0], values, options, out)
    known = {**dict(zip(pair.inputs, values, strict=False)), "output": out}
    needed = tuple(known[name] for name in pair.needs)
    return record_call(ns, out, [inputs[0]], _pull, (pair, options, *needed))


def _pull(_: Namespace, gs: tuple[Any, ...], pair: Pair, options: Any, /, *needed: Any) -> Any:
    """Pull back by the backward of a pair of one input."""
    return [pair.backward(*gs, *needed, **options)]  # type: ignore[misc] # there is one where this is recorded


def _record_loss(
    ns: TracedNamespace, pair: Pair, a: Traced, values: tuple[Any, ...], options: dict[str, Any], loss: Any, /
) -> Any:
    """Record a loss, whose gradient comes with its value: the derivative of the gradient is the Hessian product."""
    nodes = a._tape.nodes
    first = len(nodes)
    known = dict(zip(pair.inputs, values, strict=True))
    needed = tuple(known[name] for name in pair.needs)
    saved = (pair, options, tuple(map(like, loss)), like(values[0]), loss.da, *needed)
    nodes.extend([Joint(2, ((a._index, _pull_loss, saved),)), ()])
    return type(loss)(*(Traced(x, a._tape, first + i, ns) for i, x in enumerate(loss)))


def _pull_loss(
    xp: Namespace, gs: tuple[Any, ...], pair: Pair, options: Any, outs: Any, spec: Any, da: Any, /, *needed: Any
) -> Any:
    """Pull the cotangents of a loss and of its gradient back."""
    of_value, of_gradient = (
        None if g is None else cast(xp, full(xp, g, out), out.dtype) for g, out in zip(gs, outs, strict=True)
    )
    found = None
    if of_value is not None:
        found = (of_value if of_value.ndim in (0, da.ndim) else xp.expand_dims(of_value, axis=-1)) * da
    if of_gradient is not None:
        second = pair.hessian_product(of_gradient, *needed, **options)  # type: ignore[misc]
        found = second if found is None else found + second
    return fit(xp, found, spec)


def _lift_all(arrays: tuple[Any, ...], /) -> tuple[Any, ...]:
    """Lift all arrays of a call to the level of the deepest one."""
    ns = space_of(arrays)
    return tuple(ns.lift(x) if ns.is_array(x) else x for x in arrays)


tracing.recorders[Traced] = record_pair
tracing.sums[Traced] = record_sum
tracing.lifters[Traced] = _lift_all
tracing.constants[Traced] = value_of
