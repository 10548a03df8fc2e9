"""Functions with a derivative of their own: `custom_vjp`, and `checkpoint`, whose derivative is computed twice."""

import functools
from collections.abc import Callable, Collection
from typing import Any

from pullback._autodiff import trees
from pullback._autodiff.namespace import TracedNamespace
from pullback._autodiff.recorded import Recorded
from pullback._autodiff.shapes import Like, cast, fit, full, like, zeros
from pullback._autodiff.tape import Joint
from pullback._autodiff.traced import Traced
from pullback._core.typing import Namespace


def record_call(
    ns: TracedNamespace, out: Any, arguments: list[Traced], pull: Callable[..., Any], saved: tuple[Any, ...], /
) -> Any:
    """Record a call as one node: `pull` takes the cotangents of all outputs to those of all arguments.

    `out` is the output at the level below, a tree of arrays, and `arguments` are active.
    """
    values = trees.leaves(out)
    specs = tuple(map(like, values))
    tape = arguments[0]._tape
    index = tuple(x._index for x in arguments)
    edge = (index, _pull_call, (pull, specs, tuple(like(x._value) for x in arguments), *saved))
    first = len(tape.nodes)
    tape.nodes.append(Joint(len(values), (edge,)))
    for _ in values[1:]:
        tape.nodes.append(())
    return trees.fill(out, (Traced(x, tape, first + i, ns) for i, x in enumerate(values)))


def _pull_call(
    xp: Namespace, gs: Any, pull: Callable[..., Any], outs: tuple[Like, ...], inputs: tuple[Like, ...], /, *saved: Any
) -> list[Any]:
    """Fill in the cotangents of unused outputs, and bring what comes back into the shapes of the arguments."""
    some = next(g for g in gs if g is not None)
    filled = tuple(
        zeros(xp, spec, some) if g is None else cast(xp, full(xp, g, spec), spec.dtype)
        for g, spec in zip(gs, outs, strict=True)
    )
    found = pull(xp, filled, *saved)
    return [None if g is None else fit(xp, g, spec) for g, spec in zip(found, inputs, strict=True)]


def deepest(arrays: list[Any], /) -> TracedNamespace | None:
    """Return the namespace of the deepest active arrays, None if none is active."""
    found = None
    for x in arrays:
        if type(x) is Traced and x._index >= 0 and (found is None or x._namespace.depth > found.depth):
            found = x._namespace
    return found


def checkpoint(function: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `function`, recorded without what it saves: its gradient runs it again."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        arrays = [x for x in trees.leaves((args, kwargs)) if type(x) is Traced]
        ns = deepest(arrays)
        if ns is None:
            return function(*args, **kwargs)
        active = [x for x in arrays if x._index >= 0 and x._namespace is ns]

        def of_active(values: list[Any], /) -> Any:
            remaining = iter(values)
            given, options = trees.rebuild(
                (args, kwargs), lambda x: next(remaining) if any(x is other for other in active) else x
            )
            return function(*given, **options)

        constants = [Traced(x._value, None, -1, ns) for x in active]
        result = of_active(constants)
        leaves = trees.leaves(result)
        if any(type(x) is Traced and x._index >= 0 for x in leaves):
            msg = (
                "checkpoint: arrays that are differentiated must be arguments of the function, not variables around it"
            )
            raise TypeError(msg)
        out = trees.rebuild(result, ns.lower)
        return record_call(ns, out, active, _recompute, (of_active, *(x._value for x in active)))

    return call


def _recompute(xp: Namespace, gs: tuple[Any, ...], function: Callable[..., Any], /, *values: Any) -> Any:
    """Run a function again, and pull the cotangents of its outputs back."""
    del xp
    recorded = Recorded("checkpoint", lambda *arrays: function(list(arrays)), values)
    return recorded.pull(list(gs), last=True)


def custom_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    /,
    *,
    needs: Collection[int | str] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Return `forward` with the derivative that `backward` computes."""
    del jvp

    @functools.wraps(forward)
    def call(*inputs: Any, **options: Any) -> Any:
        ns = deepest(list(inputs))
        if ns is None:
            return forward(*inputs, **options)
        inputs = tuple(ns.lift(x) if ns.is_array(x) else x for x in inputs)
        values = tuple(map(ns.lower, inputs))
        out = call(*values, **options)
        active = [i for i, x in enumerate(inputs) if type(x) is Traced and x._index >= 0]
        positions = _needed(forward, needs, len(inputs))
        saved = tuple(out if i == "output" else values[i] for i in positions)
        return record_call(
            ns, out, [inputs[i] for i in active], _custom, (backward, tuple(active), options, len(inputs), *saved)
        )

    return call


def _needed(forward: Callable[..., Any], needs: Collection[int | str] | None, count: int, /) -> list[Any]:
    """Return the positions of the inputs that a backward takes, or "output"."""
    import inspect  # noqa: PLC0415

    if needs is None:
        return list(range(count))
    names = list(inspect.signature(forward).parameters)
    return [n if isinstance(n, int) or n == "output" else names.index(n) for n in needs]


def _custom(
    xp: Namespace,
    gs: tuple[Any, ...],
    backward: Callable[..., Any],
    active: tuple[int, ...],
    options: Any,
    count: int,
    /,
    *needed: Any,
) -> list[Any]:
    """Call a backward, and pick the gradients of the active inputs."""
    del xp
    found = backward(*gs, *needed, **options)
    gradients = list(found) if isinstance(found, tuple | list) else [found]
    if len(gradients) != count:
        msg = f"custom_vjp: the backward must return a gradient for each of the {count} inputs; got {len(gradients)}"
        raise ValueError(msg)
    for i in active:
        if gradients[i] is None:
            msg = f"custom_vjp: the backward returned None for input {i}, which is differentiated"
            raise TypeError(msg)
    return [gradients[i] for i in active]
