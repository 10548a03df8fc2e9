"""Functions of a traced namespace: each is made of a rule, and records what it does to active arrays.

The first argument of a maker is the namespace that the function is for.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pullback._autodiff.rules.arithmetic import Arithmetic
from pullback._autodiff.rules.manipulation import VIEWS
from pullback._autodiff.rules.registry import RULES, UNSUPPORTED, Unary
from pullback._autodiff.shapes import cast, fit, full, like, like_in_memory, zeros
from pullback._autodiff.tape import Joint, raise_two_tapes
from pullback._autodiff.traced import SCALARS, Traced, adapted, binary, innermost
from pullback._autodiff.views import is_view, link
from pullback._core.arguments import check_operand
from pullback._core.typing import Namespace


def unary_function(ns: Any, name: str, plain: Callable[..., Any], entry: Unary, /) -> Callable[..., Any]:
    """Return an elementwise function of one array."""
    real = ns.real_dtypes
    pull, saves, complex_pull = entry
    saves_x, saves_out = saves == "x", saves == "out"

    def function(x: Any, /) -> Any:
        if type(x) is not Traced or x._namespace is not ns:
            if type(x) is Traced and x._namespace.depth > ns.depth:
                return x._namespace.named(name)(x)
            x = ns.lift(x)
        value = x._value
        out = plain(value)
        i = x._index
        if i < 0:
            return Traced(out, None, -1, ns)
        tape = x._tape
        nodes = tape.nodes
        saved = (out,) if saves_out else (value,) if saves_x else ()
        if value.dtype in real:
            nodes.append(((i, pull, saved),))
        elif complex_pull is None:
            nodes.append(((i, *adapted(ns, pull, saved, like(out), like(value))),))
        else:
            nodes.append(((i, _pull_rule, (like(out), like(value), complex_pull, *saved)),))
        return Traced(out, tape, len(nodes) - 1, ns)

    function.__name__ = name
    return function


def arithmetic_function(ns: Any, name: str, rule: Arithmetic, /) -> Callable[..., Traced]:
    """Return the function of the namespace that does what an operator does."""
    forward, reflected = binary(rule._replace(op=getattr(ns.base, name)))

    def function(x1: Any, x2: Any, /) -> Any:
        deeper = _deepest((x1, x2), {}, ns)
        if deeper is not ns:
            return deeper.named(name)(x1, x2)
        out = reflected(x2, x1) if type(x1) in SCALARS and type(x2) is Traced else forward(ns.lift(x1), x2)
        if out is NotImplemented:
            got = f"{type(x1).__name__} and {type(x2).__name__}"
            msg = f"{name}: the arguments must be arrays or Python numbers; got {got}"
            raise TypeError(msg)
        return out

    function.__name__ = name
    return function


def constant_function(ns: Any, name: str, plain: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function whose results are constant."""

    def function(*args: Any, **kwargs: Any) -> Any:
        deeper = _deepest(args, kwargs, ns)
        if deeper is not ns:
            return deeper.named(name)(*args, **kwargs)
        args = tuple(_lowered(ns, a) for a in args)
        return ns.constants(plain(*args, **{k: _lowered(ns, v) for k, v in kwargs.items()}))

    function.__name__ = name
    function.__doc__ = plain.__doc__
    return function


def inspecting_function(plain: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function of dtypes and shapes, which takes traced arrays for theirs."""

    def function(*args: Any, **kwargs: Any) -> Any:
        return plain(*map(innermost, args), **{k: innermost(v) for k, v in kwargs.items()})

    function.__name__ = plain.__name__
    return function


def refusing_function(ns: Any, name: str, plain: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function that cannot be differentiated: right for constants, and an error for active arrays."""
    of_lazy_length = ns.lazy and name == "arange"

    def function(*args: Any, **kwargs: Any) -> Any:
        # Dask computes the length of a range of lazy arrays.
        if any(x._index >= 0 or of_lazy_length for x in _traced(args, kwargs)):
            advice = UNSUPPORTED.get(name, "it has no rule. Give it a derivative with custom_vjp")
            msg = f"{name} cannot be differentiated: {advice}"
            raise NotImplementedError(msg)
        return constant_function(ns, name, plain)(*args, **kwargs)

    function.__name__ = name
    return function


def general_function(ns: Any, name: str, rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function that is recorded by its rule."""

    def function(*args: Any, **kwargs: Any) -> Any:
        return call_rule(ns, rule, args, kwargs)

    function.__name__ = name
    return function


def viewing_function(ns: Any, name: str, rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function that is recorded by its rule, and whose result may be a view of its array."""
    restore = VIEWS[name]

    def function(x: Any, /, *options: Any, **keywords: Any) -> Any:
        own = type(x) is Traced and x._namespace is ns
        if not own and type(x) is Traced and x._namespace.depth > ns.depth:
            return x._namespace.named(name)(x, *options, **keywords)
        out = call_rule(ns, rule, (x, *options), keywords)
        if not own:
            return out
        if out._value is x._value:  # some libraries return an array itself
            return x
        if ns.views and not keywords.get("copy") and is_view(ns, name, x, out):
            _link(ns, x, out, rule, options, keywords, restore)
        return out

    function.__name__ = name
    return function


def _link(
    ns: Any,
    x: Traced,
    view: Traced,
    rule: Callable[..., Any],
    options: Any,
    keywords: Any,
    restore: Callable[..., Any],
    /,
) -> None:
    """Link a view to its array, by the rule that made it and by what restores the array."""
    link(
        x,
        view,
        lambda parent: call_rule(ns, rule, (parent, *options), keywords),
        lambda parent, changed: restore(ns, changed, parent, *options, **keywords),
    )


def unstack_function(ns: Any, rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `unstack`, whose results are views as those of an index are."""

    def unstack(x: Any, /, *, axis: int = 0) -> Any:
        if type(x) is Traced and x._namespace.depth > ns.depth:
            return x._namespace.unstack(x, axis=axis)
        layers = call_rule(ns, rule, (x,), {"axis": axis})
        if ns.views and type(x) is Traced and x._namespace is ns:
            lead = (slice(None),) * (axis % x.ndim)
            for i, layer in enumerate(layers):
                ns.link_item(x, layer, (*lead, i, ...))
        return layers

    return unstack


def broadcast_arrays_function(ns: Any, rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `broadcast_arrays`, each of whose results is a view, as that of `broadcast_to` is."""

    def broadcast_arrays(*arrays: Any) -> Any:
        deeper = _deepest(arrays, {}, ns)
        if deeper is not ns:
            return deeper.broadcast_arrays(*arrays)
        found = call_rule(ns, rule, arrays, {})
        results = list(found)
        for i, (x, out) in enumerate(zip(arrays, found, strict=True)):
            if type(x) is not Traced or x._namespace is not ns:
                continue
            if out._value is x._value:
                results[i] = x
            elif ns.views:
                _link(ns, x, out, RULES["broadcast_to"], (tuple(out.shape),), {}, VIEWS["broadcast_to"])
        return type(found)(results)

    return broadcast_arrays


@functools.cache
def _parameters(rule: Callable[..., Any], /) -> tuple[str, ...]:
    """Return the names of a rule's parameters after the namespace."""
    return tuple(inspect.signature(rule).parameters)[1:]


VIEWS_OF_SEVERAL = {"broadcast_arrays": broadcast_arrays_function, "unstack": unstack_function}


def call_rule(ns: Any, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
    """Carry out an operation by its rule, and record it if one of its arrays is active."""
    if args and type(args[0]) is Traced and args[0]._namespace is ns:
        x, *options = args
        if all(map(_holds_no_array, options)) and (not kwargs or all(map(_holds_no_array, kwargs.values()))):
            # A function of one array, as most are.
            return _record(ns, rule(ns.base, x._value, *options, **kwargs), (x,))
    values: list[Any] = []
    leaves: list[Any] = []
    for x in args:
        if type(x) is Traced and x._namespace is ns:
            values.append(x._value)
            leaves.append(x)
        elif _holds_no_array(x):
            values.append(x)
            leaves.extend([None] * (len(x) if type(x) is tuple else 1))
        else:
            return _call_mixed(ns, rule, args, kwargs)
    if kwargs and not all(map(_holds_no_array, kwargs.values())):
        return _call_mixed(ns, rule, args, kwargs)
    return _record(ns, rule(ns.base, *values, **kwargs), leaves)


def _holds_no_array(x: Any, /) -> bool:
    """Whether this is a Python number, a name, or a tuple or slice of numbers: what most options and indices are."""
    kind = type(x)
    if kind in _PLAIN:
        return True
    if kind is tuple:
        return _PLAIN.issuperset(map(type, x)) or all(map(_holds_no_array, x))
    return kind is slice and type(x.start) in _PLAIN and type(x.stop) in _PLAIN and type(x.step) in _PLAIN


def _call_mixed(ns: Any, rule: Callable[..., Any], args: Any, kwargs: dict[str, Any], /) -> Any:
    """Carry out an operation whose arguments are of several levels, plain arrays, containers or keywords."""
    ns = _deepest(args, kwargs, ns)
    leaves = list(_flat(ns, (*args, *(kwargs.get(name) for name in _parameters(rule)[len(args) :]))))
    values = [_lowered(ns, x) for x in args]
    result = rule(ns.base, *values, **{k: _lowered(ns, v) for k, v in kwargs.items()})
    if hasattr(result[0], "A1"):  # a matrix of NumPy among the arguments makes a matrix of the result
        check_operand(result[0])
    return _record(ns, result, leaves)


def _record(ns: Any, result: Any, leaves: Sequence[Any], /) -> Any:
    """Record what a rule returned, if one of the arrays that it took is active."""
    out, *pulls = result
    several = isinstance(out, _SEVERAL)
    x = leaves[0] if len(pulls) == 1 and ns.host and not several else None
    if x is not None and x._index >= 0 and pulls[0] is not None:
        value, nodes = x._value, x._tape.nodes
        dtype, primal = value.dtype, like_in_memory(value)
        if out.dtype == dtype and dtype in ns.real_dtypes:
            nodes.append(((x._index, _pull_alike, (out.shape, primal, *pulls[0])),))
        else:
            nodes.append(((x._index, _pull_rule, (like_in_memory(out), primal, *pulls[0])),))
        return Traced(out, x._tape, len(nodes) - 1, ns)
    pull_rule = _pull_joint if several else _pull_rule
    tape, spec, edges = None, None, []
    for leaf, pull in zip(leaves, pulls, strict=False):
        if leaf is not None and leaf._index >= 0 and pull is not None:
            if tape is None:
                tape = leaf._tape
                spec = tuple(map(like, out)) if several else like(out)
            elif leaf._tape is not tape:
                raise_two_tapes()
            edges.append((leaf._index, pull_rule, (spec, like(leaf._value), *pull)))
    if tape is None:
        return ns.constants(out)
    nodes = tape.nodes
    first = len(nodes)
    if not several:
        nodes.append(edges)
        return Traced(out, tape, first, ns)
    nodes.append(Joint(len(out), tuple(edges)))
    nodes.extend([()] * (len(out) - 1))
    items = [
        Traced(x, tape, first + i, ns) if x.dtype in ns.floating else Traced(x, None, -1, ns) for i, x in enumerate(out)
    ]
    return type(out)(*items) if hasattr(out, "_fields") else type(out)(items)


_SEVERAL = (tuple, list)
_PLAIN = frozenset({bool, int, float, complex, str, type(None), type(Ellipsis)})


def _flat(ns: Any, args: Any, /) -> Iterator[Traced | None]:
    """Go through the arguments, and those in lists and tuples: traced arrays at this level, None for others."""
    for x in args:
        if isinstance(x, list | tuple):
            yield from _flat(ns, x)
        else:
            yield ns.lift(x) if type(x) is Traced else None


def _pull_rule(xp: Namespace, g: Any, out: Any, x: Any, pull: Callable[..., Any], /, *saved: Any) -> Any:
    """Pull a cotangent back by a rule, which gets it in full and leaves undoing broadcasts and promotions to this."""
    return fit(xp, pull(xp, cast(xp, full(xp, g, out), out.dtype), *saved), x)


def _pull_alike(xp: Namespace, g: Any, shape: Any, x: Any, pull: Callable[..., Any], /, *saved: Any) -> Any:
    """Pull a cotangent back by a rule, where output and argument are of one real dtype."""
    if g.shape != shape:
        g = xp.broadcast_to(g, shape)
    g = pull(xp, g, *saved)
    return g if g.shape == x.shape and g.dtype == x.dtype else fit(xp, g, x)


def _pull_joint(xp: Namespace, gs: Any, outs: Any, x: Any, pull: Callable[..., Any], /, *saved: Any) -> Any:
    """Pull the cotangents of several outputs back; one that is missing is zero."""
    some = next(g for g in gs if g is not None)
    filled = tuple(
        zeros(xp, out, some) if g is None else cast(xp, full(xp, g, out), out.dtype)
        for g, out in zip(gs, outs, strict=True)
    )
    return fit(xp, pull(xp, filled, *saved), x)


def _traced(args: Any, kwargs: dict[str, Any], /) -> Iterator[Traced]:
    """Go through the traced arrays of a call, those in lists and tuples included."""
    for x in (*args, *kwargs.values()):
        if type(x) is Traced:
            yield x
        elif isinstance(x, list | tuple):
            yield from _traced(x, {})


def _deepest(args: Any, kwargs: dict[str, Any], ns: Any, /) -> Any:
    """Return the deepest level of a call's arrays and of the namespace that it was made to."""
    for x in _traced(args, kwargs):
        if x._namespace.depth > ns.depth:
            ns = x._namespace
    return ns


def _lowered(ns: Any, x: Any, /) -> Any:
    """Return an argument with the values of its arrays at the level below."""
    if type(x) is Traced:
        return ns.lower(x)
    if isinstance(x, list | tuple):
        items = [_lowered(ns, item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if isinstance(x, slice):
        return slice(*(_lowered(ns, part) for part in (x.start, x.stop, x.step)))
    return ns.lower(x)
