"""Functions that most small programs spend their time in, with a way past the general rule for the usual arguments."""

from collections.abc import Callable
from typing import Any

from pullback._autodiff.rules.registry import RULES
from pullback._autodiff.tape import raise_two_tapes
from pullback._autodiff.traced import Traced
from pullback._autodiff.typing import Array
from pullback._core.memory import is_host_memory
from pullback._core.reduction_policy import SHORT, SHORT_ROWS
from pullback._core.reductions import contract_rows, sum_last
from pullback._core.typing import Namespace


def make_sum(ns: Any, call_rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `sum`, fast over all axes or over one."""
    plain, rule = ns.base.sum, RULES["sum"]
    if ns.host and ns.depth == 1:
        # Functions of NumPy take 1.2 μs more than its methods.
        def plain(x: Array, /, *, axis: Any, keepdims: bool) -> Array:
            return x.sum(axis=axis, keepdims=keepdims)

    def function(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        usual = type(x) is Traced and x._namespace is ns and dtype is None and (axis is None or type(axis) is int)
        if not usual or x._value.dtype not in ns.full_dtypes:
            return call_rule(ns, rule, (x,), {"axis": axis, "dtype": dtype, "keepdims": keepdims})
        value, i = x._value, x._index
        if axis is not None and value.ndim == 2 and axis in {-1, 1} and _many_short_rows(value):
            out = sum_last(ns.base, value)
            out = out if keepdims else out[:, 0]
        else:
            out = plain(value, axis=axis, keepdims=keepdims)
        if i < 0:
            return Traced(out, None, -1, ns)
        nodes = x._tape.nodes
        right = None if axis is None or keepdims else (value.ndim - 1 - axis if axis >= 0 else -1 - axis)
        nodes.append(((i, _spread, (right,)),))
        return Traced(out, x._tape, len(nodes) - 1, ns)

    return function


def _many_short_rows(x: Array, /) -> bool:
    """Whether a product with ones sums the rows of a matrix: NumPy's own sum starts a loop for each."""
    return is_host_memory(x) and x.shape[0] >= SHORT_ROWS and 1 < x.shape[1] <= SHORT


def _spread(_: Namespace, g: Array, right: int | None, /) -> Array:
    """Give a cotangent the axis back that was summed, which had `right` axes on its right; it broadcasts from there."""
    if right is None or g.ndim <= right:
        return g
    return g[(..., None, *(slice(None),) * right)]


def make_matmul(ns: Any, call_rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `matmul`, fast for real matrices of one dtype."""
    rule, real = RULES["matmul"], set() if ns.lazy else ns.real_dtypes

    def function(x1: Any, x2: Any, /) -> Any:
        if type(x1) is not Traced or type(x2) is not Traced or x1._namespace is not ns or x2._namespace is not ns:
            return call_rule(ns, rule, (x1, x2), {})
        x, y, i, j = x1._value, x2._value, x1._index, x2._index
        dtype = x.dtype
        if x.ndim != 2 or y.ndim != 2 or dtype != y.dtype or dtype not in real:
            return call_rule(ns, rule, (x1, x2), {})
        out = x @ y
        shape = out.shape
        if None in shape:  # a size that a broadcast cannot be told
            return call_rule(ns, rule, (x1, x2), {})
        if i < 0 and j < 0:
            return Traced(out, None, -1, ns)
        tape = x1._tape if i >= 0 else x2._tape
        if j >= 0 and x2._tape is not tape:
            raise_two_tapes()
        nodes = tape.nodes
        if j < 0:
            nodes.append(((i, _left, (y, shape)),))
        elif i < 0:
            nodes.append(((j, _right, (x, shape)),))
        else:
            nodes.append(((i, _left, (y, shape)), (j, _right, (x, shape))))
        return Traced(out, tape, len(nodes) - 1, ns)

    return function


def _left(xp: Namespace, g: Array, y: Array, shape: tuple[int, ...], /) -> Array:
    if g.shape != shape:
        g = xp.broadcast_to(g, shape)
    return g @ y.T


def _right(xp: Namespace, g: Array, x: Array, shape: tuple[int, ...], /) -> Array:
    if g.shape != shape:
        g = xp.broadcast_to(g, shape)
    return contract_rows(xp, x, g)


def make_asarray(ns: Any, call_rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `asarray`, which hands on the array itself where it can."""
    rule = RULES["asarray"]

    def function(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
        own = type(obj) is Traced and obj._namespace is ns and not copy and device is None
        if own and (dtype is None or dtype == obj._value.dtype):
            return obj
        if type(obj) is not Traced and not isinstance(obj, list | tuple):  # of what is no array of numbers, too
            return ns.lift(ns.base.asarray(obj, dtype=dtype, device=device, copy=copy))
        return call_rule(ns, rule, (obj,), {"dtype": dtype, "device": device, "copy": copy})

    return function


def make_astype(ns: Any, call_rule: Callable[..., Any], /) -> Callable[..., Any]:
    """Return `astype`, which hands on the array itself where it may and can."""
    rule = RULES["astype"]

    def function(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
        same = type(x) is Traced and x._namespace is ns and not copy and device is None and dtype == x._value.dtype
        return x if same else call_rule(ns, rule, (x, dtype), {"copy": copy, "device": device})

    return function


HOT = {"asarray": make_asarray, "astype": make_astype, "matmul": make_matmul, "sum": make_sum}
