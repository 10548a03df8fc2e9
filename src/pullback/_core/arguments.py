"""Read the arrays and options of a call: one namespace, one device, floating dtypes, fitting shapes; or raise."""

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from numbers import Number
from typing import Any, SupportsFloat, SupportsIndex

from array_api_compat import array_namespace

from pullback._core.dtypes import floating_bits, is_dtype, real_like, result_dtype
from pullback._core.tracing import lifted, lifters
from pullback._core.typing import Array, Cast, DType, Elementwise, Namespace

_LARGEST = sys.float_info.max

# The namespaces of arrays of float32 and float64, by type and dtype: the checks take longer than a small product.
_usual: dict[tuple[type, DType], Namespace] = {}
# The types and dtypes that passed `check_entries`. Not Dask's, for its blocks may be of any
# type, and not traced ones, whose namespace depends on the level. A dict: torch.compile fails where a set has changed.
_plain: dict[tuple[type, DType], bool] = {}


def validate_arrays(
    function: str, names: tuple[str, ...], /, *arrays: Array
) -> tuple[Namespace, Elementwise, Cast, Sequence[Any]]:
    """Check that the arrays belong together and have floating dtypes.

    Returns their namespace, complex conjugation, the cast of a result to a dtype (by default to the promoted dtype,
    which a forward returns), and the arrays in the dtype to compute in.
    """
    xp = cached_namespace(*arrays)
    if xp is not None:
        return xp, identity, identity, arrays
    arrays = lifted(arrays)
    xp = validate_library_and_device(function, names, *arrays)
    checked: list[DType] = []
    for name, x in zip(names, arrays, strict=True):
        if x.dtype in checked:
            continue
        if not is_dtype(xp, x.dtype, "real floating", "complex floating"):
            msg = (
                f"{function}: {name} must have a floating dtype; got {x.dtype}. "
                f"Cast it first, for example with xp.astype({name}, xp.float32)"
            )
            raise TypeError(msg)
        checked.append(x.dtype)
        if x.dtype in (xp.float32, xp.float64) and (type(x), x.dtype) in _plain:
            _usual[type(x), x.dtype] = xp
    promoted = compute = _promoted(function, xp, names, arrays)
    conj: Elementwise = identity
    if is_dtype(xp, promoted, "complex floating"):
        conj = xp.conj
    elif promoted not in (xp.float32, xp.float64):
        # A narrow product has no BLAS behind it in NumPy, and a running sum of narrow numbers soon stops growing.
        compute = xp.float32

    def cast_output(x: Array, dtype: DType = promoted, /) -> Array:
        return _cast(xp, x, dtype)

    return xp, conj, cast_output, [_cast(xp, x, compute) for x in arrays]


def cached_namespace(x: Array, /, *others: Array) -> Namespace | None:
    """Return the namespace of arrays whose type and dtype passed `validate_arrays` before; None for others."""
    cls, dtype = type(x), getattr(x, "dtype", None)
    xp = _usual.get((cls, dtype))
    if xp is not None:
        device = getattr(x, "device", None)
        for y in others:
            if type(y) is not cls or y.dtype != dtype or getattr(y, "device", None) != device:
                return None
    return xp


def validate_optional_arrays(
    function: str, arrays: dict[str, Array | None], optional: Collection[str], /
) -> tuple[Namespace, Elementwise, Cast, Sequence[Any]]:
    """Validate arrays of which those named in `optional` may be None; None stays in its place."""
    named: dict[str, Any] = {name: x for name, x in arrays.items() if x is not None or name not in optional}
    xp, conj, cast_output, ready = validate_arrays(function, tuple(named), *named.values())
    found = dict(zip(named, ready, strict=True))
    return xp, conj, cast_output, [found.get(name) for name in arrays]


def validate_real_arrays(
    function: str, names: tuple[str, ...], /, *arrays: Array
) -> tuple[Namespace, Cast, Sequence[Any]]:
    """Check that the arrays belong together, have real floating dtypes and one shape; return as `validate_arrays`."""
    xp, conj, cast_output, ready = validate_arrays(function, names, *arrays)
    given = dict(zip(names, arrays, strict=True))
    for name, x in given.items():
        if conj is not identity and is_dtype(xp, x.dtype, "complex floating"):
            msg = f"{function}: {name} must have a real floating dtype; got {x.dtype}"
            raise TypeError(msg)
        if not same_shape(x.shape, arrays[0].shape):
            msg = f"{function}: {names[0]} must have the shape of {name}; got {shapes(**given)}"
            raise ValueError(msg)
    return xp, cast_output, ready


def validate_library_and_device(function: str, names: tuple[str, ...], /, *arrays: Array) -> Namespace:
    """Check that the arrays come from one library and lie on one device; return their namespace."""
    namespaces = {}
    for name, x in zip(names, arrays, strict=True):
        try:
            namespaces[name] = array_namespace(x)
        except TypeError:
            msg = f"{function}: {name} must be an array; got {type(x).__name__}{_conversion(name, x)}"
            raise TypeError(msg) from None
        if (type(x), x.dtype) not in _plain:
            check_entries(function, name, x)
    xp = namespaces[names[0]]
    if any(namespace is not xp for namespace in namespaces.values()):
        libraries = [namespace.__name__.removeprefix("array_api_compat.") for namespace in namespaces.values()]
        got = " and ".join(f"{name} of {library}" for name, library in zip(names, libraries, strict=True))
        msg = f"{function}: the arrays must come from one library; got {got}. Convert them to one library first"
        raise TypeError(msg)
    devices = {name: getattr(x, "device", None) for name, x in zip(names, arrays, strict=True)}
    if _differ(devices):
        # A JAX tracer has no device, and JAX itself checks arrays that are sharded over several devices.
        # The list of devices is slow, and PyTorch cannot trace it.
        known = xp.__array_namespace_info__().devices()
        devices = {name: device for name, device in devices.items() if device is not None and device in known}
    if _differ(devices):
        got = " and ".join(f"{name} on {device}" for name, device in devices.items())
        msg = (
            f"{function}: the arrays must lie on one device; got {got}. "
            "Move them first, for example with array_api_compat.to_device"
        )
        raise ValueError(msg)
    return xp


def compatible_size(size: int, other: int, /) -> bool:
    """Whether two sizes can be equal: an unknown size (NaN, None or a symbol) can equal any."""
    return size == other or not (isinstance(size, int) and isinstance(other, int))


def same_shape(shape: Sequence[int], other: Sequence[int], /) -> bool:
    """Whether two shapes can be equal, axis by axis."""
    return shape == other or (len(shape) == len(other) and all(map(compatible_size, shape, other)))


def shapes(**arrays: Array) -> str:
    """Return ``z (32, 64) and w (63, 10)`` for an error."""
    return " and ".join(f"{name} {tuple(x.shape)}" for name, x in arrays.items())


def check_alike(function: str, name: str, x: Array | None, primal_name: str, primal: Array, /) -> None:
    """Check that a tangent or a cotangent, if there is one, has the shape of its primal."""
    if x is not None and not same_shape(x.shape, primal.shape):
        got = shapes(**{name: x, primal_name: primal})
        msg = f"{function}: {name} must have the shape of {primal_name}; got {got}"
        raise ValueError(msg)


def check_value(function: str, dvalue: Array, shape: tuple[int, ...], /) -> None:
    """Check that dvalue has the shape of the forward's value."""
    if not same_shape(dvalue.shape, shape):
        msg = f"{function}: dvalue must have the shape of the value, {tuple(shape)}; got {shapes(dvalue=dvalue)}"
        raise ValueError(msg)


def check_wrt(function: str, wrt: Collection[str], names: tuple[str, ...], /) -> None:
    """Check that `wrt` is a collection of some of `names`."""
    if wrt is names:
        return
    # Usual: what follows takes as long as a small product.
    if type(wrt) is tuple and all(map(names.__contains__, wrt)):
        return
    if isinstance(wrt, str) or not isinstance(wrt, Collection) or not all(name in names for name in wrt):
        msg = f"{function}: wrt must be a tuple of names out of {names}; got {wrt!r}"
        raise ValueError(msg)


def float_option(  # noqa: PLR0913 - the option, its range and advice on it
    function: str,
    name: str,
    value: object,
    /,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = _LARGEST,
    advice: str = "",
) -> float:
    """Return a scalar option as a Python float, which changes no dtype that it meets.

    A value outside ``above < value <= most`` or ``least <= value < below`` is a ValueError, NaN included; so is
    infinity unless `most` is infinite. Anything but one real number whose value is known, such as a traced or a lazy
    array, is a TypeError.
    """
    number = value if type(value) is float else _number(function, name, value)
    if above < number <= most and least <= number and (number < below or below == math.inf):
        return number
    rules = ["finite"] if most == _LARGEST else []
    rules += [f"above {above:g}"] if above > -math.inf else []
    rules += [f"at least {least:g}"] if least > -math.inf else []
    rules += [f"below {below:g}"] if below < math.inf else []
    rules += [f"at most {most:g}"] if most < _LARGEST else []
    msg = f"{function}: {name} must be {' and '.join(rules)}; got {number!r}{advice and f'. {advice}'}"
    raise ValueError(msg)


def _number(function: str, name: str, value: object, /) -> float:
    """Convert a number or a 0-d array of a real dtype, which must hold its value already."""
    shape, dtype = getattr(value, "shape", ()), str(getattr(value, "dtype", ""))
    if isinstance(value, SupportsFloat | SupportsIndex) and shape == () and "complex" not in dtype:
        if hasattr(value, "requires_grad"):
            msg = f"{function}: {name} has no derivative; got a {type(value).__name__}. Pass a number, float({name})"
            raise TypeError(msg)
        # A lazy array would compute; a traced one raises an error of its library's own.
        if not hasattr(value, "chunks"):
            with suppress(TypeError, ValueError, RuntimeError):
                return float(value)
        msg = (
            f"{function}: {name} must be a number whose value is known during the call; got a traced or lazy "
            f"{type(value).__name__}. Pass a Python float, which jax.jit takes by static_argnames=({name!r},)"
        )
        raise TypeError(msg)
    got = f"an array of shape {tuple(shape)} and dtype {dtype}" if dtype else type(value).__name__
    msg = f"{function}: {name} must be a real number; got {got}. Pass a Python float"
    raise TypeError(msg)


def _conversion(name: str, x: object, /) -> str:
    """Return the way out for what is not an array, if there is one."""
    if hasattr(x, "_fields"):  # a result of this library, such as a Loss
        return f". Pass one of its fields, {' or '.join(x._fields)}"
    for method in ("toarray", "todense", "to_numpy"):  # of scipy.sparse, of other sparse arrays, of tables
        if hasattr(x, method):
            return f". Convert it first, with {name}.{method}()"
    if isinstance(x, Number | Sequence) and not isinstance(x, str | bytes):
        return f". Convert it first, for example with numpy.asarray({name})"
    return ""


def check_operand(x: object, /) -> None:
    """Check that an operand of an array that is differentiated is no container that would take the operator over."""
    if isinstance(x, list | tuple) or any(hasattr(x, name) for name in ("A1", "toarray", "todense", "to_numpy")):
        way = ". Convert it first, with numpy.asarray(x)" if hasattr(x, "A1") else _conversion("x", x)
        msg = (
            "a function that is differentiated: an operand must be an array or a Python number; got "
            f"{type(x).__name__}{way}"
        )
        raise TypeError(msg)


def check_entries(function: str, name: str, x: Array, /) -> None:
    """Check that an array holds numbers, none of them masked, and that its operators are the standard's."""
    block = getattr(x, "_meta", x)  # Dask's empty array of the type of its blocks
    if hasattr(block, "mask") or hasattr(block, "get_mask"):
        ways = {"filled": f"{name}.filled(0)", "to_tensor": f"{name}.to_tensor(0)"}
        fill = next((way for method, way in ways.items() if hasattr(x, method)), f"dask.array.ma.filled({name}, 0)")
        rule, got, way = "not be masked", type(block).__name__, f"Fill it first, for example with {fill}"
    elif hasattr(block, "A1"):
        asarray = f"numpy.asarray({name})" if block is x else f"{name}.map_blocks(numpy.asarray)"
        rule, got, way = "multiply entry by entry, as arrays do", "a matrix", f"Convert it first, with {asarray}"
    elif x.dtype == object:
        rule, got, way = "hold numbers", "an array of objects", f"Convert it first, with {name}.astype(float)"
    else:
        if block is x and type(x) not in lifters:
            _plain[type(x), x.dtype] = True
        return
    msg = f"{function}: {name} must {rule}; got {got}. {way}"
    raise TypeError(msg)


def _promoted(function: str, xp: Namespace, names: tuple[str, ...], arrays: tuple[Array, ...], /) -> DType:
    """Return the dtype of a result of the arrays, of at most 64 bits, or twice 64 if complex."""
    try:
        promoted = result_dtype(xp, *arrays)
    except (TypeError, ValueError):
        got = " and ".join(f"{name} {x.dtype}" for name, x in zip(names, arrays, strict=True))
        msg = f"{function}: the dtypes of the arrays must have a common one; got {got}. Cast to one dtype first"
        raise TypeError(msg) from None
    if promoted not in (xp.float32, xp.float64) and floating_bits(xp, promoted) > 64:
        name, x = next((name, x) for name, x in zip(names, arrays, strict=True) if floating_bits(xp, x.dtype) > 64)
        widest = "complex128" if is_dtype(xp, x.dtype, "complex floating") else "float64"
        msg = (
            f"{function}: {name} must have a dtype no wider than {widest}; got {x.dtype}. "
            f"Cast it first, for example with xp.astype({name}, xp.{widest})"
        )
        raise TypeError(msg)
    return promoted


def _differ(devices: dict[str, Any], /) -> bool:
    """Whether the devices are not all the same."""
    return any(device != other for device, other in pairwise(devices.values()))


def _cast(xp: Namespace, x: Array, dtype: DType, /) -> Array:
    """Return `x` in `dtype`: its real part where `x` is complex and `dtype` is real."""
    if x.dtype == dtype:
        return x
    return xp.astype(real_like(xp, x, dtype), dtype, copy=False)


def identity(x: Array, _: DType = None, /) -> Array:
    """Return the conjugate of a real array, or the cast of an array that has the dtype already."""
    return x


def check_factors(function: str, z: Array, w: Array, /, *, vector: bool = False) -> None:
    """Check that z (..., k) and w (k, n), or a vector w (k,) where one is accepted, fit."""
    if w.ndim != 2 and not (vector and w.ndim == 1):
        rule = "a matrix or a vector, shape (k, n) or (k,)" if vector else "a matrix, shape (k, n)"
        way = "" if vector or w.ndim != 1 else ". A vector is w[:, None]"
        msg = f"{function}: w must be {rule}; got {shapes(w=w)}{way}"
        raise ValueError(msg)
    if z.ndim == 0:
        msg = f"{function}: z must have at least one axis, shape (..., k); got {shapes(z=z)}"
        raise ValueError(msg)
    if not compatible_size(z.shape[-1], w.shape[0]):
        msg = f"{function}: the last axis of z must equal the first axis of w; got {shapes(z=z, w=w)}"
        raise ValueError(msg)


def check_upstream(function: str, da: Array, z: Array, w: Array, /) -> None:
    """Check that da (..., n), or (...) for a vector w, has the shape of the output."""
    if not same_shape(da.shape, (*z.shape[:-1], *w.shape[1:])):
        output = "(..., n)" if w.ndim == 2 else "(...) for a vector w"
        msg = f"{function}: da must have the shape of the output z w, {output}; got {shapes(da=da, z=z, w=w)}"
        raise ValueError(msg)


def check_bias(function: str, name: str, b: Array | None, w: Array, /) -> None:
    """Check that a bias, or a tangent or cotangent of it, has shape (n,), or () for a vector w, if there is one."""
    if b is not None and not same_shape(b.shape, w.shape[1:]):
        got = shapes(**{name: b, "w": w})
        rule = "have one entry for each column of w, shape (n,)" if w.ndim == 2 else "be 0-d for a vector w"
        msg = f"{function}: {name} must {rule}; got {got}"
        raise ValueError(msg)


def check_directions(function: str, directions: Mapping[str, Array | None], z: Array, w: Array, /) -> None:
    """Check tangents or cotangents, named in the order z, w, b: each has the shape of its primal, if there is one."""
    of_z, of_w, of_b = directions
    check_alike(function, of_z, directions[of_z], "z", z)
    check_alike(function, of_w, directions[of_w], "w", w)
    check_bias(function, of_b, directions[of_b], w)


def check_known(function: str, z: Array, w: Array, /) -> None:
    """Check that no size is unknown."""
    if not all(isinstance(size, int) for size in (*z.shape, *w.shape)):
        msg = (
            f"{function}: the sizes of z and w must be known; got {shapes(z=z, w=w)}. On Dask, z.compute_chunk_sizes()"
        )
        raise ValueError(msg)
