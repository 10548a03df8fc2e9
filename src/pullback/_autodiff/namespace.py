"""The namespace that a traced array answers with: the standard's functions, which record what is done to active arrays.

There is one for each array library and level of differentiation. At the first level it calls the library; at a deeper
one, the namespace of the level below, so that derivatives are differentiated in turn.
"""

import contextlib
import functools
import importlib
import inspect
import operator
import threading
from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from pullback._autodiff.hot import HOT
from pullback._autodiff.rules.arithmetic import OPERATORS as ARITHMETIC_RULES
from pullback._autodiff.rules.arithmetic import Arithmetic
from pullback._autodiff.rules.manipulation import INVERSES
from pullback._autodiff.rules.registry import METHODS, REFUSED, RULES, UNARY, WITHOUT_DERIVATIVE, Unary
from pullback._autodiff.rules.special import special
from pullback._autodiff.shapes import cast, fit, full, like, zeros
from pullback._autodiff.tape import Joint, refuse_two_tapes
from pullback._autodiff.traced import SCALARS, Traced, adapted, binary
from pullback._autodiff.typing import Array
from pullback._autodiff.views import changed, changes, is_basic, link
from pullback._core.dtypes import is_dtype
from pullback._core.typing import Namespace

CONSTANTS = ("e", "inf", "nan", "newaxis", "pi", "__array_api_version__")
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "complex64", "complex128"),
    *("float16", "bfloat16"),  # not in the standard; where the library has them, so does its namespace here
)
CREATION = ("empty", "empty_like", "eye", "ones", "ones_like", "zeros", "zeros_like")
INSPECTION = ("broadcast_shapes", "can_cast", "finfo", "iinfo", "isdtype", "result_type")
ARITHMETIC = {"add": "add", "divide": "truediv", "multiply": "mul", "subtract": "sub"}
EXTENSIONS = ("fft", "linalg")
SPECIAL = "special"  # no extension of the standard: see rules/special.py
_CHAPTERS = (
    "creation",
    "elementwise",
    "fft",
    "indexing",
    "linear_algebra",
    "manipulation",
    "searching_sorting",
    "special",
    "statistical",
)


class TracedNamespace:
    """The functions of the standard for traced arrays of one library at one level."""

    def __init__(self, base: Namespace, raw: Namespace, depth: int) -> None:
        self.base, self.raw, self.depth = base, raw, depth
        # A name of its own: with the library's, helpers would take it for the library's namespace.
        self.__name__ = f"pullback.traced({raw.__name__}, level {depth})"
        self.lazy = hasattr(raw.empty((0,)), "chunks")
        self.writable, self.views = changes(raw)
        self.transpose_function = general_function(self, "T", RULES["T"])
        self.real_dtypes = _dtypes(raw, "float16", "bfloat16", "float32", "float64")
        # Those that a sum keeps.
        self.full_dtypes = _dtypes(raw, "float32", "float64")
        self.floating = self.real_dtypes | _dtypes(raw, "complex64", "complex128")

    def __repr__(self) -> str:
        return (
            f"<the traced namespace of {self.raw.__name__}: arrays of {self.raw.__name__} itself must be lifted by its "
            "functions, xp.asarray(x), or with pullback.constant(x)>"
        )

    def __array_namespace_info__(self) -> Any:
        """Describe the library: its devices and dtypes."""
        return self.raw.__array_namespace_info__()

    def __getattr__(self, name: str) -> Any:
        """Make a function of the namespace when it is first asked for."""
        value = self._make(name)
        setattr(self, name, value)
        return value

    def _make(self, name: str) -> Any:
        if name in EXTENSIONS or name == SPECIAL:
            return Extension(self, name, special(self.base) if name == SPECIAL else getattr(self.base, name))
        if name in CONSTANTS or name in DTYPES:
            return getattr(self.raw, name)
        if name in INSPECTION:
            return inspecting_function(getattr(self.raw, name))
        if name in CREATION:
            return constant_function(self, name, getattr(self.base, name))
        if name.startswith("operator."):
            return self.function(name, getattr(operator, name.removeprefix("operator.")))
        return self.function(name, getattr(self.base, name, None))

    def function(self, name: str, plain: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return a recording function, by its name in the rules and the function of the level below."""
        if name in HOT:
            return HOT[name](self, call_rule)
        if name in ARITHMETIC:
            return arithmetic_function(self, name, ARITHMETIC_RULES[ARITHMETIC[name]])
        if plain is not None and name in UNARY:
            return unary_function(self, name, plain, UNARY[name])
        if plain is not None and name in RULES and name not in METHODS:
            return general_function(self, name, RULES[name])
        if plain is not None and name in WITHOUT_DERIVATIVE:
            return constant_function(self, name, plain)
        if plain is not None and (name in REFUSED or name.startswith(f"{SPECIAL}.")):
            return refusing_function(self, name, plain)
        msg = (
            f"{self!r} has no attribute {name!r}. It has the functions of the array API standard that "
            f"{self.raw.__name__} has"
        )
        raise AttributeError(msg)

    def named(self, name: str, /) -> Any:
        """Return a function by its name in the rules, which is that of its extension and its own."""
        extension, _, function = name.partition(".")
        return (
            getattr(getattr(self, extension), function) if function and extension != "operator" else getattr(self, name)
        )

    def is_floating(self, dtype: Any, /) -> bool:
        """Whether arrays of a dtype are differentiated: of the library's dtypes, and narrow ones that packages add."""
        new = dtype not in self.floating and is_dtype(self.raw, dtype, "real floating")
        if new and self.raw.result_type(dtype, self.raw.float32) == self.raw.float32:
            self.real_dtypes.add(dtype)
            self.floating.add(dtype)
        return dtype in self.floating

    # Arrays of this level.

    def is_array(self, x: Any, /) -> bool:
        """Whether this is an array of any library, or a traced one."""
        return type(x) is Traced or is_plain_array(x)

    def lift(self, x: Any, /) -> Traced:
        """Return an array at this level: a plain one, or one of a level below, as a constant."""
        if type(x) is Traced:
            ns = x._namespace
            if ns is self:
                return x
            if ns.raw is self.raw and ns.depth > self.depth:
                msg = (
                    f"an array of level {ns.depth} of differentiation was used at level {self.depth}, where its "
                    "gradient is not followed. Return it from the function that it was made in"
                )
                raise TypeError(msg)
            raw = ns.raw
        else:
            raw = library(x)
        if raw is not self.raw:
            msg = f"arrays of {raw.__name__} and {self.raw.__name__} do not mix. Convert them to one library first"
            raise TypeError(msg)
        return Traced(self.base.lift(x) if self.depth > 1 else x, None, -1, self)

    def lower(self, x: Any, /) -> Any:
        """Return the value of an array at the level below; whatever is no array stays as it is."""
        if type(x) is Traced:
            return (x if x._namespace is self else self.lift(x))._value
        if self.depth > 1 and self.holds(x):
            return self.base.lift(x)
        return x

    def holds(self, x: Any, /) -> bool:
        """Whether this is a plain array of the library."""
        return is_plain_array(x) and library(x) is self.raw

    def constants(self, x: Any, /) -> Any:
        """Lift all arrays of a result, which may be a tuple of them, as constants."""
        if isinstance(x, tuple | list):
            items = [self.constants(item) for item in x]
            return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
        return Traced(x, None, -1, self) if type(x) is Traced or is_plain_array(x) else x

    def call_internal(self, rule: Callable[..., Any], *args: Any) -> Any:
        """Record an operation that is no function of the standard, by its rule."""
        return call_rule(self, rule, args, {})

    # What the array object asks for.

    def raw_size(self, x: Traced, /) -> Any:
        """Return the number of entries."""
        while type(x) is Traced:
            x = x._value
        return x.size if not callable(x.size) else functools.reduce(lambda a, b: a * b, x.shape, 1)

    def transposed(self, x: Traced, /) -> Traced:
        """Return ``x.T``."""
        return self.transpose_function(x)

    def getitem(self, x: Traced, key: Any, /) -> Traced:
        """Return ``x[key]``."""
        out = call_rule(self, RULES["getitem"], (x, key), {})
        if out._value is x._value:  # of the whole array, some libraries return the array itself
            return x
        if self.views and is_basic(key):

            def read(parent: Traced) -> Traced:
                return call_rule(self, RULES["getitem"], (parent, key), {})

            def write(parent: Traced, view: Traced) -> Traced:
                return call_rule(self, RULES["setitem"], (parent, view, key), {})

            link(x, out, read, write)
        return out

    def setitem(self, x: Traced, key: Any, value: Any, /) -> None:
        """Carry out ``x[key] = value``: a new value and a new node for the same object."""
        if not self.writable:
            msg = (
                f"arrays of {self.raw.__name__} do not change in place, nor do they where they are differentiated. "
                "Make a new array, for example with where or concat"
            )
            raise TypeError(msg)
        value = value if type(value) in SCALARS else self.asarray(value)
        x._become(call_rule(self, RULES["setitem"], (x, value, key), {}))
        changed(x)

    def moved(self, x: Traced, device: Any, stream: Any, /) -> Traced:
        """Return ``x.to_device(device)``."""
        return call_rule(self, RULES["to_device"], (x, device), {"stream": stream})

    def changes_by(self, name: str, x: Traced, /) -> bool:
        """Whether the library's arrays have an operation in place, by the operator's name."""
        value: Any = x
        while type(value) is Traced:
            value = value._value
        return hasattr(type(value), f"__i{name}__")

    def assign(self, x: Traced, new: Traced, /) -> Traced:
        """Carry out an in-place operation whose result is `new`: in the dtype and shape of `x`."""
        if tuple(new.shape) != tuple(x.shape):
            msg = f"the result of an in-place operation, of shape {tuple(new.shape)}, does not fit {tuple(x.shape)}"
            raise ValueError(msg)
        if new.dtype != x.dtype:
            if not _casts_in_place(self.raw, new.dtype, x.dtype):
                msg = f"the result of an in-place operation, of dtype {new.dtype}, does not fit {x.dtype}"
                raise TypeError(msg)
            new = self.astype(new, x.dtype)
        x._become(new)
        changed(x)
        return x


class Extension:
    """An extension of a traced namespace: ``xp.linalg``, ``xp.fft``."""

    def __init__(self, namespace: TracedNamespace, name: str, plain: Any) -> None:
        self._namespace, self._name, self._plain = namespace, name, plain

    def __getattr__(self, name: str) -> Any:
        """Make a function of the extension when it is first asked for."""
        main = name in ("matmul", "matrix_transpose", "tensordot", "vecdot") and self._name == "linalg"
        full_name = name if main else f"{self._name}.{name}"
        value = self._namespace.function(full_name, getattr(self._plain, name, None))
        setattr(self, name, value)
        return value


@functools.cache
def _casts_in_place(raw: Namespace, dtype: Any, to: Any, /) -> bool:
    """Whether the library casts the result of an operation in place from one dtype to another."""
    x = raw.zeros((0,), dtype=to)
    try:
        x += raw.zeros((0,), dtype=dtype)
    except (TypeError, RuntimeError):
        return False
    return bool(x.dtype == to)


def _dtypes(raw: Namespace, /, *names: str) -> set[Any]:
    """Return those dtypes that a library has, as its arrays show them."""
    found = set()
    for name in names:
        # Some libraries do not name all dtypes that they have, or name some that they cannot make.
        with contextlib.suppress(Exception):
            found.add(raw.empty((0,), dtype=getattr(raw, name, name)).dtype)
    return found


_levels: dict[tuple[Namespace, int], TracedNamespace] = {}
_making = threading.RLock()


def namespace_of_level(raw: Namespace, depth: int, /) -> TracedNamespace:
    """Return the one traced namespace of a library at a level."""
    found = _levels.get((raw, depth))
    return _make_level(raw, depth) if found is None else found


def _make_level(raw: Namespace, depth: int, /) -> TracedNamespace:
    """Make the traced namespace of a library at a level, in one thread: arrays of two do not mix."""
    with _making:
        if (raw, depth) not in _levels:
            for chapter in _CHAPTERS:
                importlib.import_module(f"pullback._autodiff.rules.{chapter}")
            base = raw if depth == 1 else namespace_of_level(raw, depth - 1)
            _levels[raw, depth] = TracedNamespace(base, raw, depth)
        return _levels[raw, depth]


def is_plain_array(x: Any, /) -> bool:
    """Whether this is an array of a library; the classes of NumPy's scalars, which are dtypes too, are none."""
    return is_array_api_obj(x) and not isinstance(x, type)


libraries: dict[type, Namespace] = {}


def library(x: Array, /) -> Namespace:
    """Return the library's namespace of a plain array; by its type, since asking takes as long as a small product."""
    found = libraries.get(type(x))
    if found is None:
        found = libraries[type(x)] = array_namespace(x)
    return found


def namespace_for(x: Array, depth: int, /) -> TracedNamespace:
    """Return the traced namespace of the library of a plain or traced array at a level."""
    return namespace_of_level(x._namespace.raw if type(x) is Traced else library(x), depth)


def unary_function(ns: TracedNamespace, name: str, plain: Callable[..., Any], entry: Unary, /) -> Callable[..., Any]:
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


def arithmetic_function(ns: TracedNamespace, name: str, rule: Arithmetic, /) -> Callable[..., Traced]:
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


def constant_function(ns: TracedNamespace, name: str, plain: Callable[..., Any], /) -> Callable[..., Any]:
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
        def value(x: Any) -> Any:
            while type(x) is Traced:
                x = x._value
            return x

        return plain(*map(value, args), **{k: value(v) for k, v in kwargs.items()})

    function.__name__ = plain.__name__
    return function


def refusing_function(ns: TracedNamespace, name: str, plain: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function that cannot be differentiated: right for constants, and an error for active arrays."""
    of_lazy_length = ns.lazy and name == "arange"

    def function(*args: Any, **kwargs: Any) -> Any:
        # Dask computes the length of a range of lazy arrays.
        if any(x._index >= 0 or of_lazy_length for x in _traced(args, kwargs)):
            advice = REFUSED.get(name, "it has no rule. Give it a derivative with custom_vjp")
            msg = f"{name} cannot be differentiated: {advice}"
            raise NotImplementedError(msg)
        return constant_function(ns, name, plain)(*args, **kwargs)

    function.__name__ = name
    return function


def general_function(ns: TracedNamespace, name: str, rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a function that is recorded by its rule."""
    inverse = INVERSES.get(name) if ns.views else None

    def function(*args: Any, **kwargs: Any) -> Any:
        out = call_rule(ns, rule, args, kwargs)
        if inverse is not None and type(args[0]) is Traced and args[0]._namespace is ns:
            x, *options = args
            link(
                x,
                out,
                lambda parent: call_rule(ns, rule, (parent, *options), kwargs),
                lambda _, view: inverse(ns, view, *options, **kwargs),
            )
        return out

    function.__name__ = name
    return function


@functools.cache
def _parameters(rule: Callable[..., Any], /) -> tuple[str, ...]:
    """Return the names of a rule's parameters after the namespace."""
    return tuple(inspect.signature(rule).parameters)[1:]


def call_rule(ns: TracedNamespace, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
    """Carry out an operation by its rule, and record it if one of its arrays is active."""
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
        return all(map(_holds_no_array, x))
    return kind is slice and type(x.start) in _PLAIN and type(x.stop) in _PLAIN and type(x.step) in _PLAIN


def _call_mixed(ns: TracedNamespace, rule: Callable[..., Any], args: Any, kwargs: dict[str, Any], /) -> Any:
    """Carry out an operation whose arguments are of several levels, plain arrays, containers or keywords."""
    ns = _deepest(args, kwargs, ns)
    leaves = list(_flat(ns, (*args, *(kwargs.get(name) for name in _parameters(rule)[len(args) :]))))
    values = [_lowered(ns, x) for x in args]
    return _record(ns, rule(ns.base, *values, **{k: _lowered(ns, v) for k, v in kwargs.items()}), leaves)


def _record(ns: TracedNamespace, result: Any, leaves: list[Any], /) -> Any:
    """Record what a rule returned, if one of the arrays that it took is active."""
    out, *pulls = result
    several = isinstance(out, tuple | list)
    pull_rule = _pull_joint if several else _pull_rule
    tape, spec, edges = None, None, []
    for leaf, pull in zip(leaves, pulls, strict=False):
        if leaf is not None and leaf._index >= 0 and pull is not None:
            if tape is None:
                tape = leaf._tape
                spec = tuple(map(like, out)) if several else like(out)
            elif leaf._tape is not tape:
                refuse_two_tapes()
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


_PLAIN = frozenset({bool, int, float, complex, str, type(None), type(Ellipsis)})


def _flat(ns: TracedNamespace, args: Any, /) -> Iterator[Traced | None]:
    """Go through the arguments, and those in lists and tuples: traced arrays at this level, None for others."""
    for x in args:
        if isinstance(x, list | tuple):
            yield from _flat(ns, x)
        else:
            yield ns.lift(x) if type(x) is Traced else None


def _pull_rule(xp: Namespace, g: Any, out: Any, x: Any, pull: Callable[..., Any], /, *saved: Any) -> Any:
    """Pull a cotangent back by a rule, which gets it in full and leaves undoing broadcasts and promotions to this."""
    return fit(xp, pull(xp, cast(xp, full(xp, g, out), out.dtype), *saved), x)


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


def _deepest(args: Any, kwargs: dict[str, Any], ns: TracedNamespace, /) -> TracedNamespace:
    """Return the deepest level of a call's arrays and of the namespace that it was made to."""
    for x in _traced(args, kwargs):
        if x._namespace.depth > ns.depth:
            ns = x._namespace
    return ns


def _lowered(ns: TracedNamespace, x: Any, /) -> Any:
    """Return an argument with the values of its arrays at the level below."""
    if type(x) is Traced:
        return ns.lower(x)
    if isinstance(x, list | tuple):
        items = [_lowered(ns, item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    if isinstance(x, slice):
        return slice(*(_lowered(ns, part) for part in (x.start, x.stop, x.step)))
    return ns.lower(x)


def space_of(arrays: Any, /) -> Namespace:
    """Return the namespace of arrays of one library: that of the deepest level, where some are traced."""
    found = None
    for x in arrays:
        if type(x) is Traced and (found is None or x._namespace.depth > found.depth):
            found = x._namespace
    return library(arrays[0]) if found is None else found
