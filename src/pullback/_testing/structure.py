"""The law of structure: the namespace, dtype, device and shape of the arrays that a pair returns."""

from collections.abc import Sequence
from typing import Any

from array_api_compat import array_namespace, device, is_array_api_obj

from pullback._core.arguments import same_shape
from pullback._core.dtypes import epsilon, is_dtype
from pullback._core.typing import Array, DType
from pullback._testing.report import Finding


def outputs_like_inputs(outputs: Sequence[Any], inputs: Sequence[Array], /) -> list[Finding]:
    """Compare outputs with the inputs: namespace, device, and the promoted dtype or its real or complex counterpart."""
    if not outputs:
        return [Finding("structure", "the number of outputs", "0", "at least 1")]
    floating = [x for x in inputs if is_floating(x)]
    xp = array_namespace(*floating)
    like = xp.astype(floating[0], xp.result_type(*(x.dtype for x in floating)))
    found = []
    for x in outputs:
        got = type(x).__name__
        if is_array_api_obj(x):
            same_precision = is_floating(x) and eps(x) == eps(like)
            got = _describe(x, like.dtype if same_precision else x.dtype)
        found.append(Finding("structure", "the output", got, _describe(like, like.dtype)))
    return found


def all_alike(what: str, names: Sequence[str], got: Sequence[Any], like: Sequence[Array], /) -> list[Finding]:
    """Compare arrays with others one by one: namespace, dtype, device and shape."""
    if len(got) != len(like):
        return [Finding("structure", f"the number of {what}", f"{len(got)}", f"{len(like)}")]
    return [_alike(name, x, y) for name, x, y in zip(names, got, like, strict=True)]


def fields_of(results: Any, names: Sequence[str], /) -> list[Finding]:  # noqa: ANN401 - whatever a backward returns
    """Compare the names of the fields of a NamedTuple that are not None."""
    if not hasattr(results, "_fields"):
        return []
    fields = [field for field, x in zip(results._fields, results, strict=True) if x is not None]
    return [Finding("structure", "the fields", ", ".join(fields), ", ".join(names))]


def is_floating(x: Array, /) -> bool:
    """Whether an array has a real or complex floating dtype."""
    return is_dtype(array_namespace(x), x.dtype, "real floating", "complex floating")


def eps(x: Array, /) -> float:
    """Return the machine epsilon of the dtype of an array."""
    return epsilon(array_namespace(x), x.dtype)


def _alike(of: str, x: Any, like: Array, /) -> Finding:  # noqa: ANN401 - whatever a function returns
    """Compare the namespace, dtype, device and shape of two arrays."""
    expected = _describe(like, like.dtype)
    if not is_array_api_obj(x):
        return Finding("structure", of, type(x).__name__, expected)
    # An unknown size matches every size, but compares unequal.
    shape = like.shape if same_shape(x.shape, like.shape) else x.shape
    return Finding("structure", of, f"{_describe(x, x.dtype)} {tuple(shape)}", f"{expected} {tuple(like.shape)}")


def _describe(x: Any, dtype: DType, /) -> str:  # noqa: ANN401 - an array of any library
    """Return ``numpy float32 on cpu``."""
    library = array_namespace(x).__name__.removeprefix("array_api_compat.")
    return f"{library} {str(dtype).rpartition('.')[2]} on {device(x)}"
