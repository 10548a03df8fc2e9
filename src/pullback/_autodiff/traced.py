"""`Traced`: the array that a differentiated function receives, with the operators of the standard's array object.

Each operation computes its value. Where an operand is active, it also appends a node to the tape.
"""

import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from array_api_compat import device

from pullback._autodiff.callers import calling_function
from pullback._autodiff.rules import arithmetic
from pullback._autodiff.rules.arithmetic import Arithmetic, identity
from pullback._autodiff.shapes import Like, cast, fit, fit_small, full, like
from pullback._autodiff.tape import LostGradientError, raise_two_tapes
from pullback._core.arguments import check_operand
from pullback._core.reductions import sum_rows
from pullback._core.typing import Namespace

SCALARS = frozenset({bool, int, float, complex})


class Traced:
    """An array of the backend at one level of differentiation: active if it has a node on a tape, else constant."""

    __slots__ = ("__weakref__", "_family", "_index", "_namespace", "_tape", "_value")
    _family: Any
    __hash__ = None  # type: ignore[assignment] # arrays compare entry by entry

    def __init__(self, value: Any, tape: Any, index: int, namespace: Any) -> None:
        self._value = value
        self._tape = tape
        self._index = index
        self._namespace = namespace

    def __array_namespace__(self, api_version: str | None = None) -> Namespace:
        """Return the namespace whose functions record."""
        del api_version
        return self._namespace

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self._value.dtype

    @property
    def device(self) -> Any:
        """The device of the value, where the backend tells it."""
        return device(self._value)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._value.ndim

    @property
    def shape(self) -> Any:
        """The shape of the value."""
        return self._value.shape

    @property
    def size(self) -> Any:
        """The number of entries; None where it is unknown."""
        return self._namespace.raw_size(self)

    @property
    def T(self) -> "Traced":  # noqa: N802 - the standard's name
        """The transposed matrix."""
        return self._namespace.transposed(self)

    @property
    def mT(self) -> "Traced":  # noqa: N802 - the standard's name
        """The array with its last two axes swapped."""
        return self._namespace.matrix_transpose(self)

    @property
    def chunks(self) -> Any:
        """The chunks of a chunked array; other arrays have no such attribute."""
        return self._value.chunks

    @property
    def spec(self) -> Any:
        """The limits of the plan that computes the array; other arrays have no such attribute."""
        return self._value.spec

    def to_device(self, device: Any, /, *, stream: Any = None) -> "Traced":
        """Move to a device; the cotangent moves back."""
        return self._namespace.moved(self, device, stream)

    def __repr__(self) -> str:
        state = "active" if self._index >= 0 else "constant"
        return f"Traced({state}, level {self._namespace.depth}, {self._value!r})"

    # Conversions: what is not differentiable is right on an eager array, and an active one raises.

    def __bool__(self) -> bool:
        return bool(self._concrete("bool"))

    def __int__(self) -> int:
        return int(self._concrete("int"))

    def __index__(self) -> int:
        return operator.index(self._concrete("an index"))

    def __float__(self) -> float:
        number = float(self._concrete("float"))
        if self._index >= 0:
            # CPython's `float(x)` returns the very object made here, so that a function that returns it is recognised.
            self._tape.floats.append((number, self._index, _caller()))
        return number

    def __complex__(self) -> complex:
        value = self._concrete("complex")
        if self._index >= 0:
            self._lost("complex()")
        return complex(value)

    def __len__(self) -> int:
        if self.ndim == 0:
            msg = "len() of an array without axes"
            raise TypeError(msg)
        return self.shape[0]

    def __iter__(self) -> Iterator["Traced"]:
        """Iterate over the first axis."""
        if self.ndim == 0:
            msg = "iteration over an array without axes"
            raise TypeError(msg)
        return (self[(i, ...) if self.ndim > 1 else i] for i in range(self.shape[0]))

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        if self._index >= 0:
            self._lost("numpy.asarray")
        return self._concrete("numpy.asarray").__array__(*args, **kwargs)

    def __dlpack__(self, **options: Any) -> Any:
        if self._index >= 0:
            self._lost("from_dlpack")
        return self._value.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._value.__dlpack_device__()

    def __dask_tokenize__(self) -> Any:
        self._lost("Dask's tokenize")

    def __reduce__(self) -> NoReturn:
        self._lost("pickle or copy")

    def __invert__(self) -> "Traced":
        return Traced(~self._value, None, -1, self._namespace)

    def _concrete(self, what: str, /) -> Any:
        """Return the value, if it is not lazy."""
        if self._namespace.lazy:
            msg = (
                f"{what} of a lazy array would compute it while its gradient is recorded. Compute it first, or use "
                "where() in place of a branch"
            )
            raise TypeError(msg)
        return self._value

    def _lost(self, where: str, /) -> NoReturn:
        msg = (
            f"{calling_function()}{where} cannot follow the gradient of an array that is differentiated: its gradient "
            "would be lost. Stay in the array's own namespace, array_namespace(x), write x = stop_gradient(x) if the "
            "gradient is meant to be zero, or give the function a derivative with custom_vjp"
        )
        raise LostGradientError(msg)

    # Indexing.

    def __getitem__(self, key: Any, /) -> "Traced":
        return self._namespace.getitem(self, key)

    def __setitem__(self, key: Any, value: Any, /) -> None:
        self._namespace.setitem(self, key, value)

    def _become(self, other: "Traced", /) -> "Traced":
        """Take the value and the node of another array: what an in-place operation leaves behind."""
        self._value, self._tape, self._index = other._value, other._tape, other._index
        return self


def innermost(x: Any, /) -> Any:
    """Return the library's array that an array of any level holds; whatever is not traced stays as it is."""
    while type(x) is Traced:
        x = x._value
    return x


def value_of(x: Any, /) -> Any:
    """Return the array that a constant holds; an active array stays as it is, as does whatever is not traced."""
    while type(x) is Traced and x._index < 0:
        x = x._value
    return x


def _caller() -> str:
    """Say where the code stands that called into this package."""
    frame: Any = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _operand(namespace: Any, x: Any, /) -> Any:
    """Lift the other operand of an operator; NotImplemented for what is no array."""
    if type(x) is Traced or namespace.is_array(x):
        return namespace.lift(x)
    check_operand(x)
    return NotImplemented


Operator = Callable[[Traced, Any], Any]


def binary(rule: Arithmetic, /) -> tuple[Operator, Operator]:
    """Return an operator that records, and the reflected one."""
    record = _recorder(rule)
    return _forward(rule, record), _reflected(rule, record)


def _operators(rule: Arithmetic, name: str, /) -> tuple[Operator, Operator, Operator]:
    """Return the operator, the reflected one and the one in place."""
    forward, reflected = binary(rule)
    return forward, reflected, _in_place(forward, name)


def _recorder(rule: Arithmetic, /) -> Operator:
    """Return what carries out and records an operator on two arrays of one level."""
    op, pull_x, saves_x, pull_y, saves_y = rule.op, rule.pull_x, rule.saves_x, rule.pull_y, rule.saves_y
    pull_same = rule.pull_same

    def record(self: Traced, other: Traced, /) -> Traced:
        ns = self._namespace
        x, y, i, j = self._value, other._value, self._index, other._index
        out = op(x, y)
        if i < 0 and j < 0:
            return Traced(out, None, -1, ns)
        tape = self._tape if i >= 0 else other._tape
        if j >= 0 and other._tape is not tape:
            raise_two_tapes()
        nodes = tape.nodes
        dtype = x.dtype
        plain = dtype == y.dtype and dtype in ns.real_dtypes
        if not plain or x.shape != y.shape:
            edges = []
            if i >= 0:
                saved = saves_x(x, y, out)
                same = plain and x.shape == out.shape
                edges.append((i, pull_x, saved) if same else _edge(ns, i, x, pull_x, saved, out, plain))
            if j >= 0:
                saved = saves_y(x, y, out)
                same = plain and y.shape == out.shape
                edges.append((j, pull_y, saved) if same else _edge(ns, j, y, pull_y, saved, out, plain))
            nodes.append(edges)
        elif j < 0:
            nodes.append(((i, pull_x, saves_x(x, y, out)),))
        elif i < 0:
            nodes.append(((j, pull_y, saves_y(x, y, out)),))
        elif self is other and pull_same is not None:
            nodes.append(((i, pull_same, saves_x(x, y, out)),))
        else:
            nodes.append(((i, pull_x, saves_x(x, y, out)), (j, pull_y, saves_y(x, y, out))))
        return Traced(out, tape, len(nodes) - 1, ns)

    return record


def _edge(ns: Any, i: int, x: Any, pull: Callable[..., Any], saved: Any, out: Any, plain: bool, /) -> Any:  # noqa: FBT001
    """Return the edge to an operand that may have been broadcast or, unless `plain`, promoted."""
    shape = out.shape
    if plain and pull is identity and x.shape == shape[-1:] and not ns.lazy and None not in shape:
        return i, _to_row, (shape,)
    return i, *adapted(ns, pull, saved, like(out), like(x))


def _forward(rule: Arithmetic, record: Operator, /) -> Operator:
    """Return an operator whose left operand is traced."""
    op, pull, saves = rule.op, rule.scalar_x, rule.saves_x

    def forward(self: Traced, other: Any, /) -> Any:
        ns = self._namespace
        kind = type(other)
        if kind is Traced:
            if other._namespace is ns:
                return record(self, other)
            if other._namespace.depth > ns.depth:
                return op(other._namespace.lift(self), other)
        elif kind in SCALARS:
            x = self._value
            out = op(x, other)
            return _with_scalar(self, out, pull, saves(x, other, out), kind)
        other = _operand(ns, other)
        return NotImplemented if other is NotImplemented else record(self, other)

    return forward


def _reflected(rule: Arithmetic, record: Operator, /) -> Operator:
    """Return an operator whose right operand is traced and whose left one is not."""
    op, pull, saves = rule.op, rule.scalar_y, rule.saves_y

    def reflected(self: Traced, other: Any, /) -> Any:
        kind = type(other)
        if kind in SCALARS:
            y = self._value
            out = op(other, y)
            return _with_scalar(self, out, pull, saves(other, y, out), kind)
        other = _operand(self._namespace, other)
        return NotImplemented if other is NotImplemented else record(other, self)

    return reflected


def _with_scalar(self: Traced, out: Any, pull: Callable[..., Any], saved: tuple[Any, ...], kind: type, /) -> Traced:
    """Record an operation of an array and a Python number of some kind."""
    ns, i, value = self._namespace, self._index, self._value
    if i < 0:
        return Traced(out, None, -1, ns)
    tape = self._tape
    nodes = tape.nodes
    if kind is not complex and value.dtype in ns.real_dtypes:
        nodes.append(((i, pull, saved),))
    else:
        nodes.append(((i, *adapted(ns, pull, saved, like(out), like(value))),))
    return Traced(out, tape, len(nodes) - 1, ns)


def _to_row(xp: Namespace, g: Any, shape: Any, /) -> Any:
    """Pull back to a vector that was added to each row of an array of some shape."""
    if g.shape != shape:
        out, row = Like(shape, g.dtype, None), Like(shape[-1:], g.dtype, None)
        return _adapted(xp, g, identity, out, row)
    return sum_rows(xp, g)


def adapted(
    ns: Any, pull: Callable[..., Any], saved: tuple[Any, ...], out: Any, x: Any, /
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Wrap a pull of equal shapes and real dtypes for shapes that broadcast and dtypes that promote."""
    wrapper = _adapted if out.dtype in ns.real_dtypes else _adapted_complex
    return wrapper, (pull, out, x, *saved)


def _adapted(xp: Namespace, g: Any, pull: Callable[..., Any], out: Any, x: Any, /, *saved: Any) -> Any:
    if not saved and g.shape == out.shape:
        # What saves nothing hands the cotangent on or negates it, which is cheaper once it is summed.
        return pull(xp, fit(xp, g, x))
    if g.shape != out.shape:
        if g.ndim < len(out.shape) and out.array is None:
            # A cotangent that was not broadcast yet: a sum over equal entries is a product with their number.
            return fit_small(xp, pull(xp, g, *saved), out, x)
        g = full(xp, g, out)
    return fit(xp, pull(xp, g, *saved), x)


def _adapted_complex(xp: Namespace, g: Any, pull: Callable[..., Any], out: Any, x: Any, /, *saved: Any) -> Any:
    # `pull` multiplies by a derivative d, and a complex cotangent takes its conjugate: g conj(d) = conj(conj(g) d).
    g = cast(xp, full(xp, g, out), out.dtype)
    return fit(xp, xp.conj(pull(xp, xp.conj(g), *saved)), x)


def _without_derivative(name: str, /) -> tuple[Operator, Operator, Operator]:
    """Return an operator whose result is constant, the reflected one and the one in place."""
    op = getattr(operator, name)

    def forward(self: Traced, other: Any, /) -> Any:
        ns = self._namespace
        if type(other) not in SCALARS:
            if type(other) is Traced and other._namespace.depth > ns.depth:
                return op(other._namespace.lift(self), other)
            other = _operand(ns, other)
            if other is NotImplemented:
                return NotImplemented
            other = other._value
        return Traced(op(self._value, other), None, -1, ns)

    def reflected(self: Traced, other: Any, /) -> Any:
        if type(other) not in SCALARS:
            other = _operand(self._namespace, other)
            if other is NotImplemented:
                return NotImplemented
            other = other._value
        return Traced(op(other, self._value), None, -1, self._namespace)

    return forward, reflected, _in_place(forward, name.strip("_"))


def _in_place(forward: Operator, name: str, /) -> Operator:
    """Return the operator in place, which leaves its result in the array where the library's arrays have it."""

    def in_place(self: Traced, other: Any, /) -> Any:
        out = forward(self, other)
        ns = self._namespace
        return ns.assign(self, out) if type(out) is Traced and ns.changes_by(name, self) else out

    return in_place


def _by_function(name: str, /) -> tuple[Operator, Operator, Operator]:
    """Return an operator that is a function of the namespace, the reflected one and the one in place."""

    def forward(self: Traced, other: Any, /) -> Any:
        ns = self._namespace
        if type(other) is Traced:
            if other._namespace is not ns and other._namespace.depth > ns.depth:
                ns = other._namespace
        elif type(other) not in SCALARS and (other := _operand(ns, other)) is NotImplemented:
            return NotImplemented
        return getattr(ns, name)(self, other)

    def reflected(self: Traced, other: Any, /) -> Any:
        if type(other) not in SCALARS and (other := _operand(self._namespace, other)) is NotImplemented:
            return NotImplemented
        return getattr(self._namespace, name)(other, self)

    return forward, reflected, _in_place(forward, name.removeprefix("operator."))


def _unary(name: str, /) -> Callable[[Traced], Traced]:
    def method(self: Traced, /) -> Traced:
        return getattr(self._namespace, name)(self)

    return method


# Methods of NumPy's arrays and others', and what the standard has in their place.
_METHODS = {
    name: f"xp.{name}(x)"
    for name in (
        *("all", "any", "argmax", "argmin", "argsort", "astype", "clip", "conj", "imag", "max", "mean", "min", "prod"),
        *("real", "repeat", "reshape", "round", "sort", "squeeze", "std", "sum", "take", "var"),
    )
} | {
    "cumsum": "xp.cumulative_sum(x)",
    "cumprod": "xp.cumulative_prod(x)",
    "dot": "x @ y",
    "flatten": "xp.reshape(x, (-1,))",
    "ravel": "xp.reshape(x, (-1,))",
    "transpose": "x.T or xp.permute_dims(x, axes)",
}


def _missing(name: str, function: str, /) -> property:
    """Return an attribute that does not exist, and says what does."""

    def get(_: Traced, /) -> NoReturn:
        msg = (
            f"an array that is differentiated has the attributes of the standard, and no {name}. Write {function}, "
            "with xp = array_api_compat.array_namespace(x)"
        )
        raise AttributeError(msg)

    return property(get)


def _install() -> None:
    """Give `Traced` the operators of the standard."""
    for name, function in _METHODS.items():
        setattr(Traced, name, _missing(name, function))
    for name, rule in arithmetic.OPERATORS.items():
        forward, reflected, in_place = _operators(rule, name)
        for prefix, method in (("", forward), ("r", reflected), ("i", in_place)):
            setattr(Traced, f"__{prefix}{name}__", method)
    by_name = ("matmul", "matmul"), *((name, f"operator.{name}") for name in ("pow", "floordiv", "mod"))
    for name, function in by_name:
        for prefix, method in zip(("", "r", "i"), _by_function(function), strict=True):
            setattr(Traced, f"__{prefix}{name}__", method)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Traced, f"__{name}__", _without_derivative(name)[0])
    for name in ("and_", "or_", "xor", "lshift", "rshift"):
        for prefix, method in zip(("", "r", "i"), _without_derivative(name), strict=True):
            setattr(Traced, f"__{prefix}{name.strip('_')}__", method)
    for name, function in (("neg", "negative"), ("pos", "positive"), ("abs", "abs")):
        setattr(Traced, f"__{name}__", _unary(function))


_install()
