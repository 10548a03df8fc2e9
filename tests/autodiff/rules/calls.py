"""Calls of every function of the standard: arguments that Hypothesis draws for its signature, as NumPy arrays."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import numpy as xp_numpy
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

xps = make_strategies_namespace(xp_numpy, api_version="2024.12")

Draw = Callable[[Any], Any]


class Call(NamedTuple):
    """The arguments of a call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


BOOL = ("bool",)
INTEGER = ("int8", "uint8", "int32", "int64", "uint32")
REAL = ("float32", "float64")
COMPLEX = ("complex64", "complex128")
FLOATING = REAL + COMPLEX
NUMERIC = INTEGER + FLOATING
ORDERED = INTEGER + REAL
ALL = BOOL + NUMERIC

SHAPES = xps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
FILLED = xps.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)

_finite = st.floats(-4, 4, width=32)
_special = st.sampled_from([0.0, -0.0, 1.0, 0.5, float("inf"), float("-inf"), float("nan"), 2.0**-149, 2.0**127])
_real = st.one_of(_finite, _finite, _special)


def elements(dtype: str, /) -> Any:
    """Return what an array of a dtype holds: numbers of usual size, and special ones."""
    if dtype == "bool":
        return st.booleans()
    if dtype in INTEGER:
        return st.integers(0 if dtype.startswith("u") else -5, 9)
    if dtype in REAL:
        return _real
    return st.builds(complex, _real, _real)


@st.composite
def arrays(
    draw: Draw,
    dtypes: Sequence[str],
    shape: Any = SHAPES,
    of: Callable[[str], Any] = elements,
) -> Any:
    """Draw an array of one of some dtypes, of a shape or a strategy of shapes."""
    dtype = draw(st.sampled_from(dtypes))
    return draw(xps.arrays(dtype, shape, elements=of(dtype)))


def number_of(dtypes: Sequence[str], /) -> Any:
    """Return a strategy of Python numbers of the kinds of some dtypes."""
    kinds: list[Any] = []
    if "bool" in dtypes:
        kinds.append(st.booleans())
    if "int64" in dtypes:
        kinds.append(st.integers(0, 4))
    if "float64" in dtypes:
        kinds.append(st.sampled_from([-1.5, 0.0, 0.5, 2.0]))
    if "complex128" in dtypes:
        kinds.append(st.sampled_from([0.5 - 1j, 2j]))
    return st.one_of(kinds)


@st.composite
def shapes_that_broadcast(draw: Draw, count: int) -> Any:
    return draw(xps.mutually_broadcastable_shapes(count, max_dims=3, max_side=3, min_side=0)).input_shapes


def axes_of(ndim: int, /) -> Any:
    """Return a strategy of one axis of an array."""
    return st.integers(-ndim, ndim - 1)


@st.composite
def some_axes(draw: Draw, ndim: int) -> Any:
    """Draw None, one axis or several."""
    if ndim == 0:
        return draw(st.sampled_from([None, ()]))
    return draw(st.one_of(st.none(), axes_of(ndim), xps.valid_tuple_axes(ndim, min_size=1)))


@st.composite
def options(draw: Draw, /, **choices: Any) -> Any:
    """Draw some of the keywords of a function."""
    return {name: draw(choice) for name, choice in choices.items() if draw(st.booleans())}


CALLS: dict[str, Any] = {}


def _calls(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of `draw` and the function's name that draws its calls."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            CALLS[name] = st.composite(function)(name)
        return function

    return register


# Functions of each entry by itself.

_UNARY: dict[Sequence[str], tuple[str, ...]] = {
    FLOATING: (
        *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "exp", "expm1", "log", "log1p", "log2"),
        *("log10", "reciprocal", "sin", "sinh", "sqrt", "tan", "tanh"),
    ),
    NUMERIC: ("abs", "conj", "isfinite", "isinf", "isnan", "negative", "positive", "real", "round", "sign", "square"),
    ORDERED: ("ceil", "floor", "trunc"),
    COMPLEX: ("imag",),
    REAL: ("signbit",),
    BOOL + INTEGER: ("bitwise_invert",),
    BOOL: ("logical_not",),
}


@_calls(*(name for names in _UNARY.values() for name in names))
def _unary(draw: Draw, name: str) -> Call:
    dtypes = next(dtypes for dtypes, names in _UNARY.items() if name in names)
    return Call((draw(arrays(dtypes)),), {})


_BINARY: dict[Sequence[str], tuple[str, ...]] = {
    REAL: ("atan2", "copysign", "hypot", "logaddexp", "nextafter"),
    ORDERED: ("floor_divide", "remainder", "greater", "greater_equal", "less", "less_equal", "maximum", "minimum"),
    FLOATING: ("divide",),
    NUMERIC: ("add", "multiply", "pow", "subtract"),
    ALL: ("equal", "not_equal"),
    BOOL + INTEGER: ("bitwise_and", "bitwise_or", "bitwise_xor"),
    INTEGER: ("bitwise_left_shift", "bitwise_right_shift"),
    BOOL: ("logical_and", "logical_or", "logical_xor"),
}


def _shift(dtype: str, /) -> Any:
    del dtype
    return st.integers(0, 6)


@_calls(*(name for names in _BINARY.values() for name in names))
def _binary(draw: Draw, name: str) -> Call:
    dtypes = next(dtypes for dtypes, names in _BINARY.items() if name in names)
    shape, other = draw(shapes_that_broadcast(2))
    x = draw(arrays(dtypes, shape))
    # Mostly of the same dtype: promotion is one case, and mixed kinds are an error in some libraries.
    same = (x.dtype.name,) if draw(st.integers(0, 2)) else dtypes
    y = draw(arrays(same, other, _shift if name.endswith("shift") else elements))
    number = st.integers(0, 6) if name.endswith("shift") else number_of(dtypes)
    form = draw(st.integers(0, 5))
    return Call((x, draw(number)) if form == 0 else (draw(number), y) if form == 1 else (x, y), {})


@_calls("clip")
def _clip(draw: Draw, name: str) -> Call:
    del name
    shape, low, high = draw(shapes_that_broadcast(3))
    x = draw(arrays(ORDERED, shape))
    limits = [
        draw(
            st.one_of(
                st.none(),
                number_of((x.dtype.name,)) if x.dtype.name in {"int64", "float64"} else st.none(),
                arrays((x.dtype.name,), s),
            )
        )
        for s in (low, high)
    ]
    if draw(st.booleans()):
        return Call((x, *limits), {})
    return Call((x,), dict(zip(("min", "max"), limits, strict=True)))


@_calls("where")
def _where(draw: Draw, name: str) -> Call:
    del name
    shape, first, second = draw(shapes_that_broadcast(3))
    x = draw(arrays(ALL, first))
    y = draw(arrays((x.dtype.name,) if draw(st.integers(0, 2)) else ALL, second))
    condition = draw(arrays(BOOL, shape))
    form = draw(st.integers(0, 4))
    kind = (x.dtype.name,) if x.dtype.name in {"int64", "float64", "complex128", "bool"} else ("int64",)
    if form == 0:
        return Call((condition, x, draw(number_of(kind))), {})
    return Call((condition, draw(number_of(kind)), x) if form == 1 else (condition, x, y), {})


# Reductions, searching and sorting.


@_calls("all", "any", "count_nonzero", "max", "mean", "min", "prod", "std", "sum", "var", "linalg.vector_norm")
def _reduction(draw: Draw, name: str) -> Call:
    kinds: dict[str, Sequence[str]] = {
        **dict.fromkeys(("all", "any", "count_nonzero"), ALL),
        **dict.fromkeys(("max", "min"), ORDERED),
        **dict.fromkeys(("prod", "sum"), NUMERIC),
        **dict.fromkeys(("std", "var"), REAL),
        **dict.fromkeys(("mean", "linalg.vector_norm"), FLOATING),
    }
    x = draw(arrays(kinds[name], draw(FILLED if name in {"max", "min", "linalg.vector_norm"} else SHAPES)))
    more: dict[str, Any] = {"axis": some_axes(x.ndim), "keepdims": st.booleans()}
    if name in {"std", "var"}:
        more["correction"] = st.sampled_from([0.0, 1.0, 0.5])
    if name in {"prod", "sum"}:
        more["dtype"] = st.sampled_from(["float64", "complex128"] if x.dtype.kind in "fc" else ["int64", "float64"])
    if name == "linalg.vector_norm":
        more["ord"] = st.sampled_from([1, 2, 3, 2.5, float("inf"), -float("inf"), 0])
    return Call((x,), draw(options(**more)))


@_calls("argmax", "argmin", "argsort", "sort", "cumulative_sum", "cumulative_prod", "diff")
def _along_an_axis(draw: Draw, name: str) -> Call:
    x = draw(arrays(NUMERIC if name.startswith(("cum", "diff")) else ORDERED, FILLED))
    axis: Any = axes_of(x.ndim)
    if name.startswith("arg") and name != "argsort":
        return Call((x,), draw(options(axis=st.one_of(st.none(), axis), keepdims=st.booleans())))
    if name.startswith("cum"):
        found = draw(options(include_initial=st.booleans()))
        return Call((x,), {"axis": draw(axis), **found} if x.ndim > 1 or draw(st.booleans()) else found)
    if name == "diff":
        found = draw(options(axis=axis, n=st.integers(0, 2)))
        for end in ("prepend", "append"):
            if draw(st.booleans()):
                shape = list(x.shape)
                shape[found.get("axis", -1)] = draw(st.integers(0, 2))
                found[end] = draw(arrays((x.dtype.name,), tuple(shape)))
        return Call((x,), found)
    return Call((x,), draw(options(axis=axis, descending=st.booleans(), stable=st.just(value=True))))


@_calls("nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values")
def _of_one(draw: Draw, name: str) -> Call:
    return Call((draw(arrays(ALL if name == "nonzero" else ORDERED, FILLED)),), {})


@_calls("isin")
def _isin(draw: Draw, name: str) -> Call:
    del name
    x = draw(arrays(INTEGER))
    return Call((x, draw(arrays((x.dtype.name,)))), draw(options(invert=st.booleans())))


@_calls("searchsorted")
def _searchsorted(draw: Draw, name: str) -> Call:
    del name
    x = draw(arrays(REAL, st.tuples(st.integers(1, 4)), lambda _: _finite))
    y = draw(arrays((x.dtype.name,), SHAPES, lambda _: _finite))
    side = draw(options(side=st.sampled_from(["left", "right"])))
    return Call((x, y), {**side, "sorter": np.argsort(x)}) if draw(st.booleans()) else Call((np.sort(x), y), side)


# Manipulation.


@_calls("broadcast_arrays", "meshgrid")
def _several(draw: Draw, name: str) -> Call:
    count = draw(st.integers(1, 3))
    if name == "meshgrid":
        dtype = draw(st.sampled_from(NUMERIC))
        found = tuple(draw(arrays((dtype,), st.tuples(st.integers(0, 3)))) for _ in range(count))
        return Call(found, draw(options(indexing=st.sampled_from(["xy", "ij"]))))
    return Call(tuple(draw(arrays(ALL, shape)) for shape in draw(shapes_that_broadcast(count))), {})


@_calls("broadcast_to")
def _broadcast_to(draw: Draw, name: str) -> Call:
    del name
    x = draw(arrays(ALL))
    shape = tuple(draw(st.integers(0, 3)) if n == 1 else n for n in x.shape)
    return Call((x, (*draw(xps.array_shapes(min_dims=0, max_dims=1, min_side=0, max_side=2)), *shape)), {})


@_calls("concat", "stack")
def _join(draw: Draw, name: str) -> Call:
    shape, dtype = draw(FILLED), draw(st.sampled_from(ALL))
    flat = name == "concat" and draw(st.integers(0, 3)) == 0
    axis = draw(axes_of(len(shape) + (name == "stack")))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        sizes: Any = SHAPES if flat else list(shape)
        if name == "concat" and not flat:
            sizes[axis] = draw(st.integers(0, 3))
        same = (dtype,) if draw(st.integers(0, 4)) else FLOATING
        found.append(draw(arrays(same, sizes if flat else tuple(sizes))))
    several = draw(st.sampled_from([list, tuple]))(found)
    return Call((several,), {"axis": None} if flat else {"axis": axis} if draw(st.booleans()) or axis else {})


@_calls("expand_dims", "flip", "matrix_transpose", "roll", "tril", "triu")
def _change(draw: Draw, name: str) -> Call:
    least = 2 if name in {"matrix_transpose", "tril", "triu"} else 1
    x = draw(arrays(ALL, xps.array_shapes(min_dims=least, max_dims=3, min_side=0, max_side=3)))
    if name == "expand_dims":
        return Call((x,), {"axis": draw(axes_of(x.ndim + 1))})
    if name == "flip":
        return Call((x,), draw(options(axis=some_axes(x.ndim))))
    if name == "roll":
        axis, one = draw(some_axes(x.ndim)), st.integers(-4, 4)
        shift = draw(st.tuples(*(one for _ in axis)) if isinstance(axis, tuple) else one)
        return Call((x, shift), {} if axis is None else {"axis": axis})
    return Call((x,), draw(options(k=st.integers(-3, 3))) if name in {"tril", "triu"} else {})


@_calls("moveaxis", "permute_dims", "squeeze")
def _move(draw: Draw, name: str) -> Call:
    x = draw(arrays(ALL, FILLED))
    if name == "squeeze":
        axis = draw(axes_of(x.ndim))
        ones = {a for a in range(x.ndim) if x.shape[a] == 1}
        return Call((x, draw(st.sampled_from([axis, tuple(ones), (*(ones - {axis % x.ndim}), axis)]))), {})
    if name == "moveaxis":
        if draw(st.booleans()):
            return Call((x, draw(axes_of(x.ndim)), draw(axes_of(x.ndim))), {})
        ends = st.permutations(range(x.ndim))
        count = draw(st.integers(1, x.ndim))
        return Call((x, tuple(draw(ends)[:count]), tuple(draw(ends)[:count])), {})
    axes = tuple(draw(st.permutations(range(x.ndim))))
    return draw(st.sampled_from([Call((x, axes), {}), Call((x,), {"axes": axes})]))


@_calls("repeat")
def _repeat(draw: Draw, name: str) -> Call:
    del name
    x = draw(arrays(ALL, FILLED))
    axis = draw(st.one_of(st.none(), axes_of(x.ndim)))
    size = x.size if axis is None else x.shape[axis]
    each = np.asarray([draw(st.integers(0, 2)) for _ in range(size)])
    count = draw(st.one_of(st.integers(0, 3), st.just(each)))
    return Call((x, count), {} if axis is None and draw(st.booleans()) else {"axis": axis})


@_calls("reshape")
def _reshape(draw: Draw, name: str) -> Call:
    del name
    x = draw(arrays(ALL))
    shapes = [(-1,), tuple(reversed(x.shape)), (*x.shape, 1), (1, x.size), (2, -1)]
    shape = draw(st.sampled_from(shapes))
    copies = draw(options(copy=st.sampled_from([None, True])))
    return Call((x, shape), copies) if draw(st.booleans()) else Call((x,), {"shape": shape, **copies})


@_calls("tile", "unstack")
def _tile(draw: Draw, name: str) -> Call:
    x = draw(arrays(ALL, FILLED))
    if name == "unstack":
        return Call((x,), draw(options(axis=axes_of(x.ndim))))
    return Call((x, tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)))), {})


@_calls("take", "take_along_axis")
def _take(draw: Draw, name: str) -> Call:
    x = draw(arrays(ALL, FILLED))
    axis = draw(axes_of(x.ndim))
    inside = st.integers(-x.shape[axis], x.shape[axis] - 1)
    if name == "take_along_axis":
        shape = list(x.shape)
        shape[axis] = draw(st.integers(0, 3))
        chosen = draw(arrays(("int64",), tuple(shape), lambda _: inside))
        return Call((x, chosen), {} if axis == -1 else {"axis": axis})
    chosen = draw(arrays(("int64", "int32"), st.tuples(st.integers(0, 4)), lambda _: inside))
    return Call((x, chosen), {} if x.ndim == 1 and draw(st.booleans()) else {"axis": axis})


# Creation and inspection.


@_calls("arange", "linspace", "eye", "fft.fftfreq", "fft.rfftfreq")
def _numbers(draw: Draw, name: str) -> Call:
    if name == "arange":
        whole = draw(st.booleans())
        ends = st.integers(-4, 4) if whole else st.floats(-4, 4, width=32)
        steps = st.sampled_from([-2, -1, 1, 2] if whole else [-1.5, 0.5, 1.0])
        args = draw(st.one_of(st.tuples(ends), st.tuples(ends, ends), st.tuples(ends, ends, steps)))
        return Call(args, draw(options(dtype=st.sampled_from(REAL))))
    if name == "linspace":
        more = draw(options(dtype=st.sampled_from(REAL), endpoint=st.booleans()))
        return Call((draw(_finite), draw(_finite), draw(st.integers(0, 5))), more)
    if name == "eye":
        args = draw(st.one_of(st.tuples(st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3))))
        return Call(args, draw(options(k=st.integers(-2, 2), dtype=st.sampled_from(NUMERIC))))
    return Call((draw(st.integers(1, 6)),), draw(options(d=st.sampled_from([0.5, 2.0]))))


@_calls("empty", "ones", "zeros", "full", "empty_like", "ones_like", "zeros_like", "full_like")
def _filled(draw: Draw, name: str) -> Call:
    dtype = draw(options(dtype=st.sampled_from(ALL)))
    fill: tuple[Any, ...] = ()
    if name.startswith("full"):
        dtype = draw(options(dtype=st.sampled_from(FLOATING)))
        fill = (draw(st.sampled_from([1, 2.5, -0.5])),)
    if name.endswith("_like"):
        return Call((draw(arrays(FLOATING if fill else ALL)), *fill), dtype)
    shape = draw(st.one_of(SHAPES, st.integers(0, 3)))
    return Call((shape, *fill), dtype)


@_calls("asarray", "astype", "from_dlpack")
def _convert(draw: Draw, name: str) -> Call:
    if name == "from_dlpack":
        return Call((draw(arrays(INTEGER)),), {})
    x = draw(arrays(NUMERIC))
    wider = {"i": "float64", "u": "float64", "f": "complex128", "c": "complex128"}[x.dtype.kind]
    if name == "astype":
        return Call((x, draw(st.sampled_from([wider, x.dtype.name]))), draw(options(copy=st.booleans())))
    obj = draw(st.sampled_from([x, 1.5, 2, [1, 2], [[0.5, 1.0], [2.0, -1.0]], True, [True, False]]))
    more = draw(options(copy=st.sampled_from([None, True])))
    return Call((obj,), {**more, "dtype": wider} if draw(st.booleans()) else more)


@_calls("can_cast", "finfo", "iinfo", "isdtype", "result_type", "broadcast_shapes")
def _inspect(draw: Draw, name: str) -> Call:
    dtype = st.sampled_from(ALL)
    kinds = ("bool", "integral", "real floating", "complex floating", "numeric", "signed integer")
    if name == "broadcast_shapes":
        return Call(tuple(draw(shapes_that_broadcast(draw(st.integers(1, 3))))), {})
    if name == "isdtype":
        kind = draw(st.one_of(st.sampled_from(kinds), st.just(kinds[1:3])))
        return Call((draw(dtype), kind), {})
    if name == "can_cast":
        return Call((draw(st.one_of(dtype, arrays(ALL))), draw(dtype)), {})
    if name == "result_type":
        return Call((draw(arrays(NUMERIC)), draw(st.one_of(st.sampled_from(NUMERIC), arrays(NUMERIC)))), {})
    of = FLOATING if name == "finfo" else INTEGER
    return Call((draw(st.one_of(st.sampled_from(of), arrays(of))),), {})


# Linear algebra and Fourier transforms.

_SIDE = st.integers(1, 3)
_BATCH = xps.array_shapes(min_dims=0, max_dims=1, min_side=0, max_side=2)


@_calls("matmul", "vecdot", "tensordot")
def _product(draw: Draw, name: str) -> Call:
    dtype = draw(st.sampled_from(NUMERIC))
    other = (dtype,) if draw(st.integers(0, 3)) else NUMERIC
    batch, n = draw(_BATCH), draw(st.integers(0, 3))
    if name == "vecdot":
        shapes = [draw(xps.mutually_broadcastable_shapes(2, max_dims=2, max_side=3, min_side=0))][0].input_shapes
        x, y = draw(arrays((dtype,), (*shapes[0], n))), draw(arrays(other, (*shapes[1], n)))
        return Call((x, y), draw(options(axis=st.just(-1))))
    if name == "tensordot":
        joined = draw(st.integers(0, 2))
        shared = tuple(draw(_SIDE) for _ in range(joined))
        left, right = ((draw(_SIDE),) * draw(st.integers(0, 1)) for _ in range(2))
        x = draw(arrays((dtype,), (*left, *shared)))
        if draw(st.booleans()):
            return Call((x, draw(arrays(other, (*shared, *right)))), {"axes": joined})
        y = draw(arrays(other, (*right, *reversed(shared))))
        axes = tuple(range(len(left), x.ndim)), tuple(reversed(range(len(right), y.ndim)))
        return Call((x, y), {"axes": axes})
    left = draw(st.sampled_from([(n,), (2, n), (*batch, 3, n)]))
    right = draw(st.sampled_from([(n,), (n, 2), (*batch, n, 1), (n, 0)]))
    return Call((draw(arrays((dtype,), left)), draw(arrays(other, right))), {})


@_calls("linalg.outer", "linalg.cross")
def _vectors(draw: Draw, name: str) -> Call:
    dtype = draw(st.sampled_from(FLOATING))
    if name == "linalg.outer":
        x, y = (draw(arrays((dtype,), st.tuples(st.integers(0, 3)))) for _ in range(2))
        return Call((x, y), {})
    x, y = (draw(arrays((dtype,), (*draw(_BATCH), 3), lambda _: _finite)) for _ in range(2))
    return Call((x, y), draw(options(axis=st.just(-1))))


@_calls("linalg.diagonal", "linalg.trace")
def _diagonal(draw: Draw, name: str) -> Call:
    x = draw(arrays(NUMERIC if name == "linalg.trace" else ALL, (*draw(_BATCH), draw(_SIDE), draw(_SIDE))))
    return Call((x,), draw(options(offset=st.integers(-2, 2))))


@st.composite
def matrices(draw: Draw, *, square: bool, hermitian: bool = False) -> Any:
    """Draw matrices that are far from singular, and positive if they are Hermitian."""
    m = draw(_SIDE)
    n = m if square else draw(_SIDE)
    shape, dtype = (*draw(_BATCH), m, n), draw(st.sampled_from(FLOATING))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.uniform(-1, 1, shape) + (1j * rng.uniform(-1, 1, shape) if dtype in COMPLEX else 0)
    x = 0.2 * x + np.eye(m, n) * np.arange(1.0, n + 1)
    return ((x + np.conj(np.swapaxes(x, -1, -2))) / 2 if hermitian else x).astype(dtype)


@_calls(*(f"linalg.{x}" for x in ("det", "inv", "slogdet", "matrix_power", "solve")))
def _square(draw: Draw, name: str) -> Call:
    x = draw(matrices(square=True))
    if name == "linalg.matrix_power":
        return Call((x, draw(st.integers(-2, 4))), {})
    if name == "linalg.solve":
        right = draw(st.sampled_from([(x.shape[-1],), (*x.shape[:-1], 2), (x.shape[-1], 1)]))
        return Call((x, draw(arrays((x.dtype.name,), right, lambda _: _finite))), {})
    return Call((x,), {})


@_calls(*(f"linalg.{x}" for x in ("cholesky", "eigh", "eigvalsh")))
def _hermitian(draw: Draw, name: str) -> Call:
    x = draw(matrices(square=True, hermitian=True))
    return Call((x,), draw(options(upper=st.booleans())) if name == "linalg.cholesky" else {})


@_calls(*(f"linalg.{x}" for x in ("matrix_norm", "matrix_rank", "pinv", "qr", "svd", "svdvals")))
def _rectangular(draw: Draw, name: str) -> Call:
    choices: dict[str, dict[str, Any]] = {
        "linalg.matrix_norm": {
            "keepdims": st.booleans(),
            "ord": st.sampled_from(["fro", "nuc", 1, 2, float("inf"), -1, -2, -float("inf")]),
        },
        "linalg.qr": {"mode": st.sampled_from(["reduced", "complete"])},
        "linalg.svd": {"full_matrices": st.booleans()},
    }
    return Call((draw(matrices(square=False)),), draw(options(**choices.get(name, {}))))


_NORMS = st.sampled_from(["backward", "ortho", "forward"])


@_calls(*(f"fft.{x}" for x in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")))
def _fft(draw: Draw, name: str) -> Call:
    kinds = {"fft.rfft": REAL, "fft.ihfft": REAL}
    x = draw(
        arrays(
            kinds.get(name, COMPLEX), FILLED, lambda d: _finite if d in REAL else st.builds(complex, _finite, _finite)
        )
    )
    return Call((x,), draw(options(n=st.integers(1, 5), axis=axes_of(x.ndim), norm=_NORMS)))


@_calls(*(f"fft.{x}" for x in ("fftn", "ifftn", "rfftn", "irfftn")))
def _fftn(draw: Draw, name: str) -> Call:
    x = draw(
        arrays(
            REAL if name == "fft.rfftn" else COMPLEX,
            FILLED,
            lambda d: _finite if d in REAL else st.builds(complex, _finite, _finite),
        )
    )
    found = draw(options(norm=_NORMS))
    if draw(st.booleans()):
        found["axes"] = draw(xps.valid_tuple_axes(x.ndim, min_size=1))
        if draw(st.booleans()):
            found["s"] = tuple(draw(st.integers(1, 5)) for _ in found["axes"])
    return Call((x,), found)


@_calls("fft.fftshift", "fft.ifftshift")
def _fftshift(draw: Draw, name: str) -> Call:
    del name
    x = draw(arrays(FLOATING, FILLED))
    return Call((x,), draw(options(axes=some_axes(x.ndim))))
