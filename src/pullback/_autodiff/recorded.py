"""A function recorded at some arguments."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pullback._autodiff.namespace import TracedNamespace, is_plain_array, libraries, library, namespace_for
from pullback._autodiff.shapes import Like, cast, full, like
from pullback._autodiff.tape import LostGradientError, Tape, pull_back, raise_two_tapes
from pullback._autodiff.traced import Traced
from pullback._core import trees
from pullback._core.operators import is_operator

Function = Callable[..., Any]


class Recorded:
    """A function recorded at some arguments: its output, and the nodes that pull cotangents of it back."""

    def __init__(
        self,
        name: str,
        function: Function,
        primals: Sequence[Any],
        /,
        *,
        has_aux: bool = False,
        tangents: Sequence[Any] | None = None,
    ) -> None:
        self.name = name
        self.namespace: TracedNamespace
        tape = Tape()
        with tape:
            # The arrays among the arguments, as the level below has them.
            self.inputs: list[Any] = []
            # Whether the arguments are arrays without containers around them.
            self.flat = False
            arguments = self._open_all(tape, primals)
            if tangents:
                tape.tangents = self.tangents = Tangents(tape, self.namespace, self.inputs, tangents)
            result = function(*arguments)
            if has_aux:
                result, aux = _pair(name, result)
                self.aux = trees.rebuild(aux, partial(_plain, tape))
            # The node and the dtype of each output; -1 for a constant, and no dtype for a Python number.
            self.outputs: list[tuple[int, Any]] = []
            if type(result) is Traced:
                self.out = self._close(tape, result)
            else:
                self.out = trees.rebuild(result, partial(self._close, tape))
            if tape.floats:
                self._check_floats(tape)
            self.nodes = tape.nodes
            self.mixed = tape.mixed
        if not self.inputs:
            msg = f"{name}: there is no array to differentiate; got {primals!r}"
            raise TypeError(msg)

    def _check_floats(self, tape: Tape, /) -> None:
        """Check that each Python float that was made of an active array has been returned."""
        returned = {index for index, _ in self.outputs}
        for _, index, where in tape.floats:
            if index not in returned:
                msg = (
                    f"{self.name}: float() of an active array at {where} left the traced world, so that its gradient "
                    "would be lost. Keep it an array, or write float(stop_gradient(x)) if its gradient is meant to be "
                    "zero"
                )
                raise LostGradientError(msg)

    def _open_all(self, tape: Tape, primals: Sequence[Any], /) -> list[Any]:
        """Make active arrays of the arguments."""
        kinds = set(map(type, primals))
        self.flat = libraries.keys() >= kinds
        if self.flat and len(kinds) == 1 and tape.depth == 1:
            # Arrays of one library, as most arguments are: what else an argument may be takes longer to ask.
            ns = self.namespace = namespace_for(primals[0], 1)
            if all([x.dtype in ns.floating for x in primals]):  # noqa: C419 - a generator takes longer
                self.inputs.extend(primals)
                tape.nodes.extend([()] * len(primals))
                return [Traced(x, tape, i, ns) for i, x in enumerate(primals)]
        return [trees.rebuild(x, partial(self._open, tape)) for x in primals]

    def _open(self, tape: Tape, x: Any, /) -> Traced:
        """Make an active array of an argument."""
        if not is_array(x):
            way = "Convert it first, for example with numpy.asarray"
            if is_operator(x):
                way = "It is a constant: name the other arguments in argnums"
            msg = (
                f"{self.name}: an argument to differentiate must be an array or a container of arrays; got "
                f"{type(x).__name__}. {way}"
            )
            raise TypeError(msg)
        if type(x) is Traced and x._namespace.depth >= tape.depth:
            raise_two_tapes()
        ns = namespace_for(x, tape.depth)
        if x.dtype not in ns.floating and not ns.is_floating(x.dtype):
            msg = (
                f"{self.name}: an argument to differentiate must have a floating dtype; got {x.dtype}. Cast it first, "
                "for example with xp.astype(x, xp.float64), or name the arguments to differentiate in argnums"
            )
            raise TypeError(msg)
        value = ns.lower(x) if tape.depth > 1 or type(x) is Traced else x
        if self.inputs and ns.raw is not self.namespace.raw:
            tape.mixed = True
        self.namespace = ns
        self.inputs.append(value)
        nodes = tape.nodes
        nodes.append(())
        return Traced(value, tape, len(nodes) - 1, ns)

    def _close(self, tape: Tape, x: Any, /) -> Any:
        """Return an output as the caller gets it, and note its node."""
        if type(x) is Traced and x._tape is tape:
            value = x._value
            self.outputs.append((x._index, value.dtype))
            return value
        if not is_array(x):
            if type(x) in (int, float, complex, bool):
                made = (index for number, index, _ in tape.floats if number is x)
                self.outputs.append((next(made, -1), None))
                return x
            msg = (
                f"{self.name}: the function must return arrays, or containers of arrays; got {type(x).__name__}. "
                "Return anything else as auxiliary output with has_aux=True"
            )
            raise TypeError(msg)
        self.outputs.append((-1, x.dtype))
        return _plain(tape, x)

    def pull(self, cotangents: list[Any], *, last: bool) -> list[Any]:
        """Pull cotangents of the outputs back to the arguments; the nodes are freed if this was the `last` time."""
        xp, lift = _namespace_of(self.namespace, cotangents)
        space = _space_at(getattr(xp, "depth", 0)) if self.mixed else None
        places: list[Any] = [None] * len(self.nodes)
        for (index, dtype), seed in zip(self.outputs, cotangents, strict=True):
            if index >= 0 and seed is not None:
                g = seed if lift is None else lift(seed)
                if dtype is not None and g.dtype != dtype:
                    g = cast(xp if space is None else space(g), g, dtype)
                places[index] = g if places[index] is None else places[index] + g
        pull_back(xp, self.nodes, places, len(self.inputs), lift, space)
        if last:
            self.nodes = []
        taken = set(map(id, cotangents))
        found = []
        for value, g in zip(self.inputs, places, strict=False):
            if g is None or id(g) in taken or g.shape != value.shape or g.dtype != value.dtype:
                found.append(_owned(xp if space is None else space(value), g, value, taken))
            else:
                found.append(g)
                taken.add(id(g))
        return found


class Tangents:
    """The tangents of some arrays of a function that is recorded, which give those of the others at any time.

    The arguments' are known, and those that an operation finds along with its value.
    """

    def __init__(self, tape: Tape, level: TracedNamespace, inputs: Sequence[Any], tangents: Sequence[Any], /) -> None:
        self._tape, self._level = tape, level
        # The tape lets go of its nodes when it is closed.
        self._nodes = tape.nodes
        self._known = {i: (like(x), t) for i, (x, t) in enumerate(zip(inputs, tangents, strict=True))}

    def know(self, index: int, value: Any, tangent: Any, /) -> None:
        """Note the tangent of a node, whose array has this value."""
        self._known[index] = like(value), tangent

    def of(self, indices: Sequence[int], zeros: Sequence[Any], /) -> list[Any]:
        """Return the tangents of some nodes, given zeros like their arrays.

        The pull from these to the nodes of known tangents is linear, and is recorded. Its own pull is the push.
        """
        nodes = [() if k in self._known else node for k, node in enumerate(self._nodes)]
        reached: list[int] = []

        def pull(*seeds: Any) -> list[Any]:
            xp, lift = _namespace_of(self._level, seeds)
            space = _space_at(xp.depth) if self._tape.mixed else None
            places: list[Any] = [None] * len(nodes)
            for k, seed in zip(indices, seeds, strict=True):
                places[k] = seed if places[k] is None else places[k] + seed
            pull_back(xp, nodes, places, 0, lift, space)
            reached.extend(k for k in self._known if places[k] is not None)
            return [full(xp if space is None else space(places[k]), places[k], self._known[k][0]) for k in reached]

        with self._tape.suspended():
            transposed = Recorded("jvp", pull, zeros)
        return transposed.pull([self._known[k][1] for k in reached], last=True)


def _namespace_of(level: TracedNamespace, cotangents: Sequence[Any], /) -> tuple[Any, Callable[[Any], Any] | None]:
    """Return the namespace to pull back in, and what lifts to its level what was saved, where that is deeper."""
    deepest, depth = level.base, level.depth - 1
    for g in cotangents:
        if type(g) is Traced and g._namespace.depth > depth:
            deepest, depth = g._namespace, g._namespace.depth
    return deepest, None if depth == 0 else _lifter(depth)


def _owned(xp: Any, g: Any, value: Any, taken: set[int], /) -> Any:
    """Return a gradient in the shape and dtype of its primal, in memory that nobody else has."""
    if g is None:
        return xp.zeros_like(value if getattr(xp, "depth", 0) == 0 else xp.lift(value))
    if g.shape != value.shape:
        g = xp.asarray(full(xp, g, like(value)), copy=True)
    elif id(g) in taken:
        g = xp.asarray(g, copy=True)
    taken.add(id(g))
    return g if g.dtype == value.dtype else cast(xp, g, value.dtype)


def _space_at(depth: int, /) -> Callable[[Any], Any]:
    """Return what gives the namespace of an array, or of the first of several, at a level; 0 is that of the library."""

    def space(g: Any) -> Any:
        x = next(part for part in g if part is not None) if isinstance(g, tuple) else g
        return library(x) if depth == 0 else namespace_for(x, depth)

    return space


def _lifter(depth: int, /) -> Callable[[Any], Any]:
    """Return what lifts the arrays among the things that a node saved."""

    def lift(x: Any) -> Any:
        if is_array(x):
            return namespace_for(x, depth).lift(x)
        if isinstance(x, Like):
            return x if x.array is None else x._replace(array=lift(x.array))
        if isinstance(x, tuple | list) and not isinstance(x, Like):
            items = [lift(item) for item in x]
            return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
        return x

    return lift


def is_array(x: Any, /) -> bool:
    """Whether this is a plain or a traced array."""
    kind = type(x)
    return kind is Traced or kind in libraries or is_plain_array(x)


def _plain(tape: Tape, x: Any, /) -> Any:
    """Return an array of a tape's level as the level below has it; whatever is no array stays as it is."""
    if type(x) is Traced and x._namespace.depth == tape.depth:
        if x._index >= 0 and x._tape is not tape:
            raise_two_tapes()
        return x._value
    return x


def _pair(name: str, result: Any, /) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        msg = f"{name}: with has_aux=True the function must return (output, auxiliary); got {type(result).__name__}"
        raise TypeError(msg)
    return result
