"""The namespace that a traced array answers with: the standard's functions, which record what is done to active arrays.

There is one for each array library and level of differentiation. At the first level it calls the library; at a deeper
one, the namespace of the level below, so that derivatives are differentiated in turn.
"""

import contextlib
import functools
import importlib
import operator
import threading
from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, is_array_api_obj

from pullback._autodiff.functions import (
    VIEWS_OF_SEVERAL,
    arithmetic_function,
    call_rule,
    constant_function,
    general_function,
    inspecting_function,
    refusing_function,
    unary_function,
    viewing_function,
)
from pullback._autodiff.hot import HOT
from pullback._autodiff.rules.arithmetic import OPERATORS as ARITHMETIC_RULES
from pullback._autodiff.rules.manipulation import VIEWS
from pullback._autodiff.rules.registry import METHODS, RULES, UNARY, UNSUPPORTED, WITHOUT_DERIVATIVE
from pullback._autodiff.rules.special import special
from pullback._autodiff.traced import SCALARS, Traced, innermost
from pullback._autodiff.typing import Array
from pullback._autodiff.views import changed, changes, is_basic, link
from pullback._core.arguments import check_entries
from pullback._core.dtypes import is_dtype
from pullback._core.memory import is_host_memory
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
        example = raw.empty((0,))
        self.lazy, self.host = hasattr(example, "chunks"), is_host_memory(example)
        self.writable, self.views, self.entry_views = changes(raw)
        self.transpose_function = self._by_rule("T")
        self.real_dtypes = _dtypes(raw, "float16", "bfloat16", "float32", "float64")
        # Those that a sum keeps.
        self.full_dtypes = _dtypes(raw, "float32", "float64")
        # Dtypes of arrays that were found to hold numbers.
        self.checked: set[Any] = set()
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
            return self._by_rule(name)
        if plain is not None and name in WITHOUT_DERIVATIVE:
            return constant_function(self, name, plain)
        if plain is not None and (name in UNSUPPORTED or name.startswith(f"{SPECIAL}.")):
            return refusing_function(self, name, plain)
        msg = (
            f"{self!r} has no attribute {name!r}. It has the functions of the array API standard that "
            f"{self.raw.__name__} has"
        )
        raise AttributeError(msg)

    def _by_rule(self, name: str) -> Callable[..., Any]:
        """Return a function that has a rule; where arrays change in place, with views that follow them."""
        if self.writable and name in VIEWS:
            return viewing_function(self, name, RULES[name])
        if self.writable and name in VIEWS_OF_SEVERAL:
            return VIEWS_OF_SEVERAL[name](self, RULES[name])
        return general_function(self, name, RULES[name])

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
        if type(x) is not Traced:
            self._check(x)
        return Traced(self.base.lift(x) if self.depth > 1 else x, None, -1, self)

    def _check(self, x: Any, /) -> None:
        """Check once for each dtype that a plain array holds numbers; for masks and matrices, `library` has."""
        if x.dtype not in self.checked:
            check_entries("a function that is differentiated", "x", x)
            self.checked.add(x.dtype)

    def lower(self, x: Any, /) -> Any:
        """Return the value of an array at the level below; whatever is no array stays as it is."""
        if type(x) is Traced:
            return (x if x._namespace is self else self.lift(x))._value
        if not self.holds(x):
            return x
        self._check(x)
        return self.base.lift(x) if self.depth > 1 else x

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
        value = innermost(x)
        return value.size if not callable(value.size) else functools.reduce(lambda a, b: a * b, value.shape, 1)

    def transposed(self, x: Traced, /) -> Traced:
        """Return ``x.T``."""
        return self.transpose_function(x)

    def getitem(self, x: Traced, key: Any, /) -> Traced:
        """Return ``x[key]``."""
        out = call_rule(self, RULES["getitem"], (x, key), {})
        if out._value is x._value:  # of the whole array, some libraries return the array itself
            return x
        if self.views and is_basic(key):
            self.link_item(x, out, key)
        return out

    def link_item(self, x: Traced, out: Traced, key: Any, /) -> None:
        """Link ``out = x[key]``, if the library makes a view of it."""
        if out.ndim == 0 and not self.entry_views and not (isinstance(key, tuple) and Ellipsis in key):
            return

        def read(parent: Traced) -> Traced:
            return call_rule(self, RULES["getitem"], (parent, key), {})

        def write(parent: Traced, view: Traced) -> Traced:
            return call_rule(self, RULES["setitem"], (parent, view, key), {})

        link(x, out, read, write)

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
        return hasattr(type(innermost(x)), f"__i{name}__")

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
        for chapter in _CHAPTERS:
            importlib.import_module(f"pullback._autodiff.rules.{chapter}")
        base = raw if depth == 1 else namespace_of_level(raw, depth - 1)
        # Another thread may have made it while this one waited.
        return _levels.setdefault((raw, depth), TracedNamespace(base, raw, depth))


def is_plain_array(x: Any, /) -> bool:
    """Whether this is an array of a library; the classes of NumPy's scalars, which are dtypes too, are none."""
    return is_array_api_obj(x) and not isinstance(x, type)


libraries: dict[type, Namespace] = {}


def library(x: Array, /) -> Namespace:
    """Return the library's namespace of a plain array; by its type, since asking takes as long as a small product."""
    found = libraries.get(type(x))
    if found is None:
        check_entries("a function that is differentiated", "x", x)
        found = libraries[type(x)] = array_namespace(x)
    return found


# By the type of plain arrays: what `library` and `namespace_of_level` return.
_level_of_type: dict[tuple[type, int], TracedNamespace] = {}


def namespace_for(x: Array, depth: int, /) -> TracedNamespace:
    """Return the traced namespace of the library of a plain or traced array at a level."""
    found = _level_of_type.get((type(x), depth))
    if found is not None:
        return found
    if type(x) is Traced:
        return namespace_of_level(x._namespace.raw, depth)
    found = _level_of_type[type(x), depth] = namespace_of_level(library(x), depth)
    return found


def space_of(arrays: Any, /) -> Namespace:
    """Return the namespace of arrays of one library: that of the deepest level, where some are traced."""
    found = None
    for x in arrays:
        if type(x) is Traced and (found is None or x._namespace.depth > found.depth):
            found = x._namespace
    return library(arrays[0]) if found is None else found
