"""Dispatch of NumPy's and PyTorch's functions on traced arrays to functions of the standard; others raise."""

from typing import Any, NoReturn

from pullback._autodiff.callers import calling_function
from pullback._autodiff.traced import Traced

# The standard's names of what the libraries call otherwise.
_NAMES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "bitwise_not": "bitwise_invert",
    "concatenate": "concat",
    "conjugate": "conj",
    "cumprod": "cumulative_prod",
    "cumsum": "cumulative_sum",
    "eq": "equal",
    "float_power": "pow",
    "ge": "greater_equal",
    "gt": "greater",
    "invert": "bitwise_invert",
    "le": "less_equal",
    "left_shift": "bitwise_left_shift",
    "lt": "less",
    "mul": "multiply",
    "ne": "not_equal",
    "neg": "negative",
    "power": "pow",
    "right_shift": "bitwise_right_shift",
    "rsub": "subtract",
    "sub": "subtract",
    "true_divide": "divide",
    "truediv": "divide",
}


def _level(args: Any, /) -> Any:
    """Return the namespace of the deepest traced array among the arguments."""
    found = None
    for x in args:
        inner = _level(x) if isinstance(x, list | tuple) else x._namespace if type(x) is Traced else None
        if inner is not None and (found is None or inner.depth > found.depth):
            found = inner
    return found


def _raise(library: str, name: str, /) -> NoReturn:
    msg = (
        f"{calling_function()}{library}.{name} is not followed by gradients. Call the standard's functions of the "
        "array's own namespace, xp = array_api_compat.array_namespace(x), or give the function a derivative with "
        "custom_vjp"
    )
    raise TypeError(msg)


def _in_place(library: str, name: str, /) -> str:
    """Say why the library's own arrays are not written into."""
    return (
        f"{calling_function()}{library}.{name}: a result that is differentiated is not written into an array of "
        f"{library} itself, by out= or an operation in place. Write a = a + x in place of a += x, or write into "
        "constant(a)"
    )


def _call(library: str, name: str, args: Any, kwargs: dict[str, Any], /) -> Any:
    if kwargs.get("out") is not None:
        raise TypeError(_in_place(library, name))
    ns = _level((*args, *kwargs.values()))
    function = getattr(ns, _NAMES.get(name, name), None) or getattr(ns.special, name.lstrip("_"), None)
    if function is None:
        _raise(library, name)
    return function(*args, **kwargs)


def array_ufunc(self: Traced, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """Answer NumPy's ufuncs."""
    del self
    if method != "__call__":
        _raise("numpy", f"{ufunc.__name__}.{method}")
    return _call("numpy", ufunc.__name__, inputs, kwargs)


def array_function(self: Traced, func: Any, types: Any, args: Any, kwargs: dict[str, Any], /) -> Any:
    """Answer NumPy's other functions."""
    del self, types
    return _call("numpy", func.__name__, args, kwargs)


def torch_function(cls: type, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """Answer PyTorch's functions and the methods of its tensors."""
    del cls, types
    name = func.__name__
    if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
        # After a TypeError, Python would go on with a = a + x, of which other names of the tensor know nothing.
        raise RuntimeError(_in_place("torch", name))
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        if name.startswith("r") and name[1:] in ("add", "sub", "mul", "truediv", "pow", "matmul", "div"):
            name, args = name[1:], args[::-1]
    elif name == "rsub":
        args = args[::-1]
    return _call("torch", {"div": "divide"}.get(name, name), args, kwargs or {})


Traced.__array_ufunc__ = array_ufunc  # type: ignore[attr-defined]
Traced.__array_function__ = array_function  # type: ignore[attr-defined]
Traced.__torch_function__ = classmethod(torch_function)  # type: ignore[attr-defined]
