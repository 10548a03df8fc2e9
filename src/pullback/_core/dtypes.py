"""Kinds, sizes and promotion of dtypes, also of those that another package adds to NumPy, such as ``ml_dtypes``."""

from contextlib import suppress

from pullback._core.typing import Array, ArrayT, DType, Namespace


def is_dtype(xp: Namespace, dtype: DType, /, *kinds: str) -> bool:
    """Whether a dtype is of one of the standard's kinds; ``ml_dtypes.bfloat16`` in a NumPy array is real floating."""
    with suppress(TypeError):
        of_kind: bool = xp.isdtype(dtype, kinds)
        if of_kind or "real floating" not in kinds or xp.isdtype(dtype, ("bool", "numeric")):
            return of_kind
    # Another package's dtype: it is floating, and narrow, if float32 takes it up and an integer does not.
    return "real floating" in kinds and _promotes_to(xp, dtype, xp.float32) and _promotes_to(xp, xp.int8, dtype)


# By the type of the dtype, too: those of array-api-strict warn when they are compared with NumPy's.
_complex: dict[tuple[type, DType], bool] = {}


def is_complex(xp: Namespace, dtype: DType, /) -> bool:
    """Whether a dtype is complex. Asking for the kind of a dtype takes as long as a small product: it is cached."""
    key = (type(dtype), dtype)
    found = _complex.get(key)
    if found is None:
        found = _complex[key] = is_dtype(xp, dtype, "complex floating")
    return found


def floating_bits(xp: Namespace, dtype: DType, /) -> int:
    """Return the bits of a floating dtype, or of either part of a complex one."""
    try:
        bits: int = xp.finfo(dtype).bits
    except (AttributeError, ValueError):
        return 16  # another package's dtype in a NumPy array, which `is_dtype` takes only if float32 is wider
    return bits


def epsilon(xp: Namespace, dtype: DType, /) -> float:
    """Return the spacing of a floating dtype's numbers around 1."""
    try:
        return float(xp.finfo(dtype).eps)
    except (AttributeError, ValueError):  # another package's dtype in a NumPy array
        return next(eps for eps in (2.0**-k for k in range(32)) if xp.astype(xp.asarray(1 + eps / 2), dtype) == 1)


def result_dtype(xp: Namespace, /, *arrays: Array) -> DType:
    """Return the promoted dtype of the arrays. A weak type of JAX promotes no other dtype, as in JAX itself."""
    return xp.result_type(*(x if getattr(x, "weak_type", False) else x.dtype for x in arrays))


def real_like(xp: Namespace, x: ArrayT, dtype: DType, /) -> ArrayT:
    """Return `x`, or its real part where `x` is complex and `dtype` is real."""
    if is_dtype(xp, x.dtype, "complex floating") and not is_dtype(xp, dtype, "complex floating"):
        return xp.real(x)
    return x


def _promotes_to(xp: Namespace, dtype: DType, wide: DType, /) -> bool:
    """Whether a dtype and `wide` promote to `wide`."""
    try:
        promoted = xp.result_type(dtype, wide)
    except TypeError:
        return False
    return bool(promoted == wide)
