"""What users call: gradients, Jacobians and products with them of functions of arrays."""

from collections.abc import Callable, Sequence
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from pullback._autodiff import trees
from pullback._autodiff.namespace import TracedNamespace, namespace_of_level
from pullback._autodiff.shapes import Like, cast, full, like
from pullback._autodiff.tape import LostGradientError, Tape, pull_back
from pullback._autodiff.traced import Traced

Function = Callable[..., Any]


class _Recorded:
    """A function recorded at some arguments: its output, and the nodes that pull cotangents of it back."""

    def __init__(self, name: str, function: Function, primals: Sequence[Any], /, *, has_aux: bool = False) -> None:
        self.name = name
        tape = Tape()
        with tape:
            self.specs: list[tuple[TracedNamespace, Like, Any]] = []
            arguments = [trees.rebuild(primal, lambda x: self._open(tape, x)) for primal in primals]
            result = function(*arguments)
            if has_aux:
                result, aux = _pair(name, result)
                self.aux = trees.rebuild(aux, lambda x: _plain(tape, x))
            floats = {id(number): (index, number) for number, index, _ in tape.floats}
            self.outputs: list[tuple[int, Any]] = []
            self.out = trees.rebuild(result, lambda x: self._close(tape, x, floats))
            returned = {index for index, _ in self.outputs}
            for _, index, where in tape.floats:
                if index not in returned:
                    msg = (
                        f"{name}: float() of an active array at {where} left the traced world, so that its gradient "
                        "would be lost. Keep it an array, or write float(stop_gradient(x)) if its gradient is meant "
                        "to be zero"
                    )
                    raise LostGradientError(msg)
            self.nodes = tape.nodes

    def _open(self, tape: Tape, x: Any, /) -> Traced:
        """Make an active array of an argument."""
        if not _is_array(x):
            msg = (
                f"{self.name}: an argument to differentiate must be an array or a container of arrays; got "
                f"{type(x).__name__}. Convert it first, for example with numpy.asarray"
            )
            raise TypeError(msg)
        raw = x._namespace.raw if type(x) is Traced else array_namespace(x)
        ns = namespace_of_level(raw, tape.depth)
        value = ns.lower(x)
        if not raw.isdtype(x.dtype, ("real floating", "complex floating")):
            msg = (
                f"{self.name}: an argument to differentiate must have a floating dtype; got {x.dtype}. Cast it first, "
                "for example with xp.astype(x, xp.float64), or name the arguments to differentiate in argnums"
            )
            raise TypeError(msg)
        self.specs.append((ns, like(value), value))
        return Traced(value, tape, tape.input(), ns)

    def _close(self, tape: Tape, x: Any, floats: dict[int, Any], /) -> Any:
        """Return an output as the caller gets it, and note its node."""
        if type(x) is float and id(x) in floats:
            self.outputs.append((floats[id(x)][0], None))
            return x
        if not _is_array(x):
            if type(x) in (int, float, complex, bool):
                self.outputs.append((-1, None))
                return x
            msg = (
                f"{self.name}: the function must return arrays, or containers of arrays; got {type(x).__name__}. "
                "Return anything else as auxiliary output with has_aux=True"
            )
            raise TypeError(msg)
        value = _plain(tape, x)
        active = type(x) is Traced and x._tape is tape
        self.outputs.append((x._index if active else -1, like(value)))
        return value

    def pull(self, cotangents: list[Any], *, last: bool) -> list[Any]:
        """Pull cotangents of the outputs back to the arguments; the nodes are freed if this was the `last` time."""
        xp, lift = self._namespace_of(cotangents)
        places: list[Any] = [None] * len(self.nodes)
        for (index, spec), seed in zip(self.outputs, cotangents, strict=True):
            if index >= 0:
                g = seed if lift is None else lift(seed)
                g = g if spec is None else cast(xp, g, spec.dtype)
                places[index] = g if places[index] is None else places[index] + g
        pull_back(xp, self.nodes, places, len(self.specs), lift)
        if last:
            self.nodes = []
        gradients: list[Any] = []
        for (_, spec, value), g in zip(self.specs, places, strict=False):
            gradients.append(_owned(xp, g, spec, value, [*cotangents, *gradients]))
        return gradients

    def _namespace_of(self, cotangents: list[Any], /) -> tuple[Any, Callable[[Any], Any] | None]:
        """Return the namespace to pull back in, and what lifts to its level what was saved, where that is deeper."""
        level = self._level()
        deepest = level.base
        for g in cotangents:
            if type(g) is Traced and g._namespace.depth > getattr(deepest, "depth", 0):
                deepest = g._namespace
        return deepest, None if deepest is level.base and level.depth == 1 else _lifter(deepest)

    def _level(self) -> TracedNamespace:
        """Return the namespace of the level at which the function was recorded."""
        return self.specs[0][0]


def _owned(xp: Any, g: Any, spec: Like, value: Any, others: list[Any], /) -> Any:
    """Return a gradient in the shape and dtype of its primal, in memory that nobody else has."""
    if g is None:
        return xp.zeros_like(value if getattr(xp, "depth", 0) == 0 else xp.lift(value))
    if tuple(g.shape) != spec.shape:
        g = xp.asarray(full(xp, g, spec), copy=True)
    elif any(g is other for other in others):
        g = xp.asarray(g, copy=True)
    return cast(xp, g, spec.dtype)


def _lifter(ns: TracedNamespace, /) -> Callable[[Any], Any]:
    """Return what lifts the arrays among the things that a node saved."""

    def lift(x: Any) -> Any:
        if type(x) is Traced or is_array_api_obj(x):
            return ns.lift(x)
        if isinstance(x, Like):
            return x if x.array is None else x._replace(array=ns.lift(x.array))
        if isinstance(x, tuple | list) and not isinstance(x, Like):
            items = [lift(item) for item in x]
            return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
        return x

    return lift


def _is_array(x: Any, /) -> bool:
    return type(x) is Traced or is_array_api_obj(x)


def _plain(tape: Tape, x: Any, /) -> Any:
    """Return an array of a tape's level as the level below has it; whatever is no array stays as it is."""
    if type(x) is Traced and x._namespace.depth == tape.depth:
        return x._value
    return x


def _pair(name: str, result: Any, /) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        msg = f"{name}: with has_aux=True the function must return (output, auxiliary); got {type(result).__name__}"
        raise TypeError(msg)
    return result


def _chosen(name: str, argnums: Any, args: tuple[Any, ...], /) -> tuple[int, ...]:
    """Return the positions of the arguments to differentiate."""
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    for n in numbers:
        if type(n) is not int or not -len(args) <= n < len(args):
            msg = f"{name}: argnums must be positions of the {len(args)} positional arguments; got {argnums!r}"
            raise ValueError(msg)
    return tuple(n % len(args) for n in numbers)


def _bind(function: Function, argnums: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, /) -> Any:
    """Return a function of the arguments in `argnums` alone, and these; the others are constants."""
    numbers = _chosen(name, argnums, args)

    def of_chosen(*chosen: Any) -> Any:
        every = list(args)
        for n, x in zip(numbers, chosen, strict=True):
            every[n] = x
        return function(*every, **kwargs)

    return of_chosen, [args[n] for n in numbers]


def value_and_grad(function: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Function:
    """Return a function that computes the value of `function` and its gradient."""

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        recorded = _Recorded(
            "value_and_grad", *_bind(function, argnums, args, kwargs, "value_and_grad"), has_aux=has_aux
        )
        gradients = _gradient("value_and_grad", recorded, argnums, args)
        value = recorded.out
        return ((value, recorded.aux), gradients) if has_aux else (value, gradients)

    return evaluate


def grad(function: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Function:
    """Return a function that computes the gradient of `function`, which returns a real scalar."""

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        recorded = _Recorded("grad", *_bind(function, argnums, args, kwargs, "grad"), has_aux=has_aux)
        gradients = _gradient("grad", recorded, argnums, args)
        return (gradients, recorded.aux) if has_aux else gradients

    return evaluate


def _gradient(name: str, recorded: _Recorded, argnums: Any, args: tuple[Any, ...], /) -> Any:
    """Pull 1 back from a real scalar to the arguments in `argnums`."""
    out = recorded.out
    level = recorded._level()
    if type(out) is float:
        one = level.base.asarray(1.0, dtype=recorded.specs[0][2].dtype)
    elif not _is_array(out) or tuple(out.shape) != () or not level.raw.isdtype(out.dtype, "real floating"):
        got = f"shape {tuple(out.shape)} and dtype {out.dtype}" if _is_array(out) else type(out).__name__
        msg = (
            f"{name}: the function must return a real scalar, an array of shape (); got {got}. Use vjp for other "
            "outputs"
        )
        raise TypeError(msg)
    else:
        one = level.base.ones_like(out)
    found = recorded.pull([one], last=True)
    return _in_structure(found, argnums, args)


def _in_structure(gradients: list[Any], argnums: Any, args: tuple[Any, ...], /) -> Any:
    """Give gradients the structure of the arguments in `argnums`."""
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    filled = tuple(trees.fill(tuple(args[n] for n in numbers), gradients))
    return filled if isinstance(argnums, tuple) else filled[0]


def vjp(function: Function, *primals: Any, has_aux: bool = False) -> Any:
    """Return the output of `function` and what pulls a cotangent of it back to cotangents of all arguments."""
    recorded = _Recorded("vjp", function, primals, has_aux=has_aux)
    structure = recorded.out

    def pull(cotangent: Any, /) -> Any:
        seeds = _seeds("vjp", structure, cotangent)
        found = trees.fill(primals, recorded.pull(seeds, last=False))
        return tuple(found)

    return (recorded.out, pull, recorded.aux) if has_aux else (recorded.out, pull)


def _seeds(name: str, structure: Any, cotangent: Any, /) -> list[Any]:
    """Check that a cotangent has the structure and shapes of the output; return its leaves."""
    seeds = trees.leaves(cotangent)
    expected = trees.leaves(structure)
    shapes = [tuple(getattr(x, "shape", ())) for x in expected]
    if len(seeds) != len(expected) or any(
        not same_sizes(tuple(getattr(x, "shape", ())), shape) for x, shape in zip(seeds, shapes, strict=True)
    ):
        got = [tuple(getattr(x, "shape", ())) for x in seeds]
        msg = f"{name}: the cotangent must have the structure and shapes of the output, {shapes}; got {got}"
        raise ValueError(msg)
    return seeds


def same_sizes(shape: tuple[Any, ...], other: tuple[Any, ...], /) -> bool:
    """Whether two shapes can be equal."""
    return len(shape) == len(other) and all(
        a == b or not (type(a) is int and type(b) is int) for a, b in zip(shape, other, strict=True)
    )


def linearize(function: Function, *primals: Any) -> tuple[Any, Function]:
    """Return the output of `function` and what pushes tangents of its arguments to a tangent of the output."""
    recorded = _Recorded("linearize", function, primals)
    expected = trees.leaves(recorded.out)

    # The pull is linear in its cotangent. Recorded once and pulled back, it is the push.
    def pull(*seeds: Any) -> list[Any]:
        return recorded.pull(list(seeds), last=False)

    level = recorded._level()
    zeros_out = [level.base.zeros_like(x) for x in expected]
    transposed = _Recorded("linearize", pull, zeros_out)

    def push(*tangents: Any) -> Any:
        given = trees.leaves(tangents)
        shapes = [spec.shape for _, spec, _ in recorded.specs]
        if len(given) != len(shapes) or any(
            not same_sizes(tuple(x.shape), shape) for x, shape in zip(given, shapes, strict=True)
        ):
            got = [tuple(x.shape) for x in given]
            msg = f"linearize: tangents must have the shapes of the arguments, {shapes}; got {got}"
            raise ValueError(msg)
        return trees.fill(recorded.out, transposed.pull(given, last=False))

    return recorded.out, push


def jvp(function: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the output of `function` and its tangent along tangents of the arguments."""
    out, push = linearize(function, *primals)
    return out, push(*tangents)


def hvp(function: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Multiply the Hessian of a scalar function by a vector: the gradient of its derivative along `tangents`."""
    _, pull = vjp(grad(function, argnums=tuple(range(len(primals)))), *primals)
    return pull(tuple(tangents))


def stop_gradient(x: Any, /) -> Any:
    """Return the value of an array as a constant."""
    return trees.rebuild(
        x, lambda leaf: Traced(leaf._value, None, -1, leaf._namespace) if type(leaf) is Traced else leaf
    )
