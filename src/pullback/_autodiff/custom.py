"""Functions with a derivative of their own: `custom_vjp`, and `checkpoint`, whose derivative is computed twice."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from pullback._autodiff.namespace import TracedNamespace
from pullback._autodiff.recorded import Recorded
from pullback._autodiff.shapes import Like, cast, fit, full, like, zeros
from pullback._autodiff.tape import Joint, raise_two_tapes
from pullback._autodiff.traced import Traced, value_of
from pullback._core import trees
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
    if any(x._tape is not tape for x in arguments):
        raise_two_tapes()
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


class _Custom(NamedTuple):
    """The parts of a function with a derivative of its own."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    needs: Collection[str] | None
    jvp: Callable[..., Any] | None
    names: tuple[str, ...]

    def saved(self, inputs: tuple[Any, ...], out: Any, /) -> tuple[Any, ...]:
        """Return what the backward takes after the cotangents."""
        if self.needs is None:
            return inputs
        known = {**dict(zip(self.names, inputs, strict=False)), "output": out}
        return tuple(known[name] for name in self.needs)


def custom_vjp(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    /,
    *,
    needs: Collection[str] | None = None,
    jvp: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Return a function with a derivative of its own: a pair of a forward and a backward, as one operation.

    Parameters
    ----------
    forward : callable
        ``forward(*inputs, **options)`` returns an array or a tuple of arrays. It gets plain arrays, so that it may be
        compiled code.
    backward : callable
        ``backward(*cotangents, *needed, **options)`` takes a cotangent for each output, and what `needs` names. It
        returns a gradient for each input: an array for a single input, else a tuple, with None for what has none.
    needs : collection of str, default all inputs
        What the backward takes: names of the forward's parameters, and ``"output"`` for its output.
    jvp : callable, optional
        ``jvp(*inputs, *tangents)`` returns the tangent of each output, given one for each input. With it, `jvp` and
        `linearize` work also where the backward is compiled code.

    Returns
    -------
    callable
        ``function(*inputs, **options)``: `forward`, differentiated by `backward`.

    Raises
    ------
    TypeError
        When pulled back: if the backward returns None for an input that is differentiated.
    ValueError
        If `needs` names no parameter of the forward; when pulled back, if the backward returns another number of
        gradients than there are inputs.

    See Also
    --------
    check_pair : Checks the pair against the laws that every pair obeys.

    Notes
    -----
    Second derivatives differentiate the backward, if it is written against the array API standard. Compiled code raises
    an error there, and no derivative is silently lost.

    Examples
    --------
    A function of NumPy alone, whose adjoint is known:

    >>> import numpy as np
    >>> from pullback import custom_vjp, grad
    >>> reverse = custom_vjp(lambda x: np.flip(x), lambda g: np.flip(g), needs=())
    >>> grad(lambda x: reverse(x)[0] ** 2)(np.asarray([1.0, 2.0, 3.0]))
    array([0., 0., 6.])
    """
    custom = _Custom(forward, backward, needs, jvp, tuple(inspect.signature(forward).parameters))
    unknown = [name for name in needs or () if name not in custom.names and name != "output"]
    if unknown:
        msg = f"custom_vjp: needs must name parameters of the forward, {custom.names}, or 'output'; got {unknown}"
        raise ValueError(msg)

    @functools.wraps(forward)
    def call(*inputs: Any, **options: Any) -> Any:
        # What is constant at one level may be active at a level below.
        inputs = tuple(map(value_of, inputs))
        ns = deepest(list(inputs))
        if ns is None:
            return forward(*inputs, **options)
        values = tuple(map(ns.lower, inputs))
        out = call(*values, **options)
        active = tuple(i for i, x in enumerate(inputs) if type(x) is Traced and x._index >= 0 and x._namespace is ns)
        return record_call(
            ns,
            out,
            [inputs[i] for i in active],
            _pull_custom,
            ((custom, active, options), values if jvp else (None,) * len(values), *custom.saved(values, out)),
        )

    return call


def _pull_custom(
    _: Namespace, gs: tuple[Any, ...], call: tuple[_Custom, tuple[int, ...], Any], inputs: Any, /, *needed: Any
) -> list[Any]:
    """Call a backward, and pick the gradients of the active inputs."""
    custom, active, options = call
    level = deepest(list(gs))
    if custom.jvp is not None and level is not None and deepest([*inputs, *needed]) is not level:
        # Linear in the cotangents: one operation, whose derivative is the JVP.
        values = tuple(map(level.lower, inputs))
        found = _pull_custom(level.base, tuple(map(level.lower, gs)), call, values, *map(level.lower, needed))
        moving = [g for g in gs if type(g) is Traced and g._index >= 0 and g._namespace is level]
        where = tuple(i for i, g in enumerate(gs) if any(g is other for other in moving))
        return record_call(level, found, moving, _push_custom, (call, where, values))
    found = custom.backward(*gs, *needed, **options)
    gradients = list(found) if isinstance(found, tuple | list) else [found]
    if len(gradients) != len(inputs):
        msg = f"custom_vjp: the backward must return a gradient for each of {len(inputs)} inputs; got {len(gradients)}"
        raise ValueError(msg)
    for i in active:
        if gradients[i] is None:
            msg = f"custom_vjp: the backward returned None for input {i}, which is differentiated"
            raise TypeError(msg)
    return [gradients[i] for i in active]


def _push_custom(
    xp: Namespace,
    tangents: tuple[Any, ...],
    call: tuple[_Custom, tuple[int, ...], Any],
    where: tuple[int, ...],
    inputs: Any,
    /,
) -> list[Any]:
    """Push tangents of the active inputs forward, and pick those outputs whose cotangents were active."""
    custom, active, options = call
    given = dict(zip(active, tangents, strict=True))
    every = [given[i] if i in given else xp.zeros_like(x) for i, x in enumerate(inputs)]
    found = custom.jvp(*inputs, *every, **options)  # type: ignore[misc] # there is one where this is recorded
    pushed = list(found) if isinstance(found, tuple | list) else [found]
    return [pushed[i] for i in where]
