"""Jacobians and Hessians of functions of arrays: as arrays, and as linear operators that form no matrix."""

import math
from collections.abc import Callable
from typing import Any

from pullback._autodiff.namespace import space_of
from pullback._autodiff.recorded import Recorded
from pullback._autodiff.transforms import argument_chooser, grad, linearize, vjp
from pullback._core import trees
from pullback._core.flat_operator import FlatOperator
from pullback._core.memory import place
from pullback._core.typing import Namespace

Function = Callable[..., Any]


def jacobian(function: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """Return a function that computes the Jacobian of a function of arrays.

    Parameters
    ----------
    function : callable
        ``function(*args, **kwargs)`` returns an array, or a nested container of arrays.
    argnums : int or tuple of int, default 0
        The positional arguments to differentiate for: real arrays, or nested containers of them.

    Returns
    -------
    callable
        ``evaluate(*args, **kwargs)`` returns, in the structure of the output, for each of its arrays the structure of
        the argument, with an array of shape ``(*output.shape, *argument.shape)``: entry ``[i, j]`` is ``∂out_i/∂x_j``.

    Raises
    ------
    TypeError
        When called: if an argument to differentiate is no array or has no real floating dtype. For complex arguments,
        use `vjp` and `jvp`: a function that is not holomorphic has no complex matrix of derivatives.
    ValueError
        When called: if a size is unknown, or `argnums` names no positional argument.

    See Also
    --------
    jacobian_operator : Multiplies by the Jacobian and forms no matrix.

    Notes
    -----
    For m entries out and n in, it takes m pulls where m ≤ n, and n pushes elsewhere or where an output is complex. The
    result has m n entries: 800 MB for 10,000 float64 entries in and out. `jacobian_operator` needs the memory of one
    gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import jacobian
    >>> jacobian(lambda x: x * x[0])(np.asarray([1.0, 2.0]))
    array([[2., 0.],
           [2., 1.]])
    """
    choose = argument_chooser("jacobian", function, argnums)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = choose(args, kwargs)
        out, blocks = _blocks(of_chosen, chosen)
        remaining = iter(blocks)

        def of_output(_: Any, /) -> Any:
            filled = trees.fill(chosen, next(remaining))
            return filled if isinstance(argnums, tuple) else filled[0]

        return trees.rebuild(out, of_output)

    return evaluate


def hessian(function: Function, argnums: int = 0) -> Function:
    """Return a function that computes the Hessian of a scalar function of arrays.

    Parameters
    ----------
    function : callable
        ``function(*args, **kwargs)`` returns a real scalar.
    argnums : int, default 0
        The positional argument to differentiate for: a real array, or a nested container of them.

    Returns
    -------
    callable
        ``evaluate(*args, **kwargs)`` returns an array of shape ``(*x.shape, *x.shape)`` for an array x; for a
        container, its structure nested in itself.

    Raises
    ------
    TypeError
        When called: if the function does not return a real scalar, or the argument is no real floating array.
    ValueError
        When called: if a size is unknown, or `argnums` names no positional argument.

    See Also
    --------
    hessian_operator : Multiplies by the Hessian and forms no matrix.
    hvp : A single product.

    Notes
    -----
    It is the Jacobian of the gradient: n products with the Hessian for n entries.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import hessian
    >>> hessian(lambda x: x[0] ** 2 * x[1])(np.asarray([1.0, 2.0]))
    array([[4., 2.],
           [2., 0.]])
    """
    return jacobian(grad(function, argnums), argnums)


def _blocks(function: Function, chosen: tuple[Any, ...], /) -> tuple[Any, list[list[Any]]]:
    """Return the output, and for each of its arrays the Jacobian for each array of the arguments."""
    recorded = Recorded("jacobian", function, chosen)
    outputs, inputs = trees.leaves(recorded.out), trees.leaves(chosen)
    space, raw = recorded.namespace.base, recorded.namespace.raw
    if any(raw.isdtype(x.dtype, "complex floating") for x in inputs):
        msg = "jacobian: arguments must have real floating dtypes; got a complex one. Use vjp and jvp for those"
        raise TypeError(msg)
    sizes = [[_size(x.shape) for x in leaves] for leaves in (outputs, inputs)]
    if sum(sizes[0]) <= sum(sizes[1]) and not any(raw.isdtype(x.dtype, "complex floating") for x in outputs):
        return recorded.out, [
            [
                space.reshape(space.stack(rows), (*a.shape, *x.shape))
                if rows
                else space.zeros((*a.shape, *x.shape), dtype=x.dtype, **place(x))
                for x, rows in zip(inputs, _transposed(_pulls(space, recorded, outputs, k), len(inputs)), strict=True)
            ]
            for k, a in enumerate(outputs)
        ]
    _, push = linearize(function, *chosen)
    columns = [_pushes(space, push, chosen, inputs, k) for k in range(len(inputs))]
    return recorded.out, [
        [
            space.reshape(space.stack([column[k] for column in of_input], axis=-1), (*a.shape, *x.shape))
            if of_input
            else space.zeros((*a.shape, *x.shape), dtype=a.dtype, **place(a))
            for x, of_input in zip(inputs, columns, strict=True)
        ]
        for k, a in enumerate(outputs)
    ]


def _size(shape: Any, /) -> int:
    """Return the number of entries of an array of known shape."""
    if not all(isinstance(size, int) for size in shape):
        msg = f"jacobian: all sizes must be known; got {tuple(shape)}. On Dask, x.compute_chunk_sizes() finds them"
        raise ValueError(msg)
    return math.prod(shape)


def _basis(space: Namespace, x: Any, /) -> list[Any]:
    """Return the unit arrays of the shape and dtype of an array."""
    n = math.prod(x.shape)
    eye = space.eye(n, dtype=x.dtype, **place(x))
    return [space.reshape(eye[i, ...], x.shape) for i in range(n)]


def _pulls(space: Namespace, recorded: Recorded, outputs: list[Any], k: int, /) -> list[list[Any]]:
    """Pull each unit array of one output back."""
    return [
        recorded.pull([unit if i == k else None for i in range(len(outputs))], last=False)
        for unit in _basis(space, outputs[k])
    ]


def _pushes(space: Namespace, push: Function, chosen: Any, inputs: list[Any], k: int, /) -> list[list[Any]]:
    """Push each unit array of one input forward; the parts of each output are flattened."""
    zeros = [space.zeros_like(x) for x in inputs]
    pushed = []
    for unit in _basis(space, inputs[k]):
        tangents = trees.fill(chosen, [unit if i == k else zero for i, zero in enumerate(zeros)])
        pushed.append([space.reshape(t, (-1,)) for t in trees.leaves(push(*tangents))])
    return pushed


def _transposed(rows: list[list[Any]], count: int, /) -> list[list[Any]]:
    """Return the columns of a list of rows; there are `count` of them, also where there is no row."""
    return [[row[i] for row in rows] for i in range(count)]


def ravel_tree(tree: Any, /) -> tuple[Any, Function]:
    """Flatten the arrays of a nested container into one vector.

    Parameters
    ----------
    tree
        An array or a nested container of arrays of one library.

    Returns
    -------
    vector : Array, shape (n,)
        All entries, array by array, in the promoted dtype of the arrays.
    unravel : callable
        ``unravel(vector)`` returns a container of the same structure, with arrays of the same shapes and dtypes.

    Raises
    ------
    ValueError
        If there is no array, or `unravel` gets a vector of another shape.

    See Also
    --------
    grad : Its results have the structure of the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import ravel_tree
    >>> vector, unravel = ravel_tree({"w": np.asarray([[1.0, 2.0]]), "b": np.asarray([3.0])})
    >>> vector
    array([1., 2., 3.])
    >>> unravel(vector + 1)
    {'w': array([[2., 3.]]), 'b': array([4.])}
    """
    arrays = trees.leaves(tree)
    if not arrays:
        msg = "ravel_tree: the container must hold an array; got none"
        raise ValueError(msg)
    xp = space_of(arrays)
    dtype = xp.result_type(*(x.dtype for x in arrays))
    flat = [xp.astype(xp.reshape(x, (-1,)), dtype, copy=False) for x in arrays]
    vector = flat[0] if len(flat) == 1 else xp.concat(flat)
    described = [(tuple(x.shape), x.dtype) for x in arrays]
    size = sum(math.prod(shape) for shape, _ in described)

    def unravel(vector: Any, /) -> Any:
        if tuple(vector.shape) != (size,):
            msg = f"unravel: the vector must have shape ({size},); got {tuple(vector.shape)}"
            raise ValueError(msg)
        xp, start, parts = space_of([vector]), 0, []
        for shape, dtype in described:
            stop = start + math.prod(shape)
            part = xp.reshape(vector[start:stop], shape)
            if xp.isdtype(part.dtype, "complex floating") and not xp.isdtype(dtype, "complex floating"):
                part = xp.real(part)
            parts.append(xp.astype(part, dtype, copy=False))
            start = stop
        return trees.fill(tree, parts)

    return vector, unravel


class _FunctionOperator(FlatOperator):
    """The Jacobian of a function at a point."""

    def __init__(self, function: Function, x: Any, /) -> None:
        flat, self._unravel = ravel_tree(x)
        self._out, self._forward = linearize(function, x)
        _, self._backward = vjp(function, x)
        flat_out, self._unravel_out = ravel_tree(self._out)
        xp = space_of([flat])
        super().__init__(flat, (flat_out.shape[0], flat.shape[0]), xp.result_type(flat.dtype, flat_out.dtype))

    def _push(self, v: Any, /) -> Any:
        return ravel_tree(self._forward(self._unravel(v)))[0]

    def _pull(self, u: Any, /) -> Any:
        return ravel_tree(self._backward(self._unravel_out(u))[0])[0]


class _HessianOperator(FlatOperator):
    """The Hessian of a scalar function at a point."""

    def __init__(self, function: Function, x: Any, /) -> None:
        flat, self._unravel = ravel_tree(x)
        _, self._product = vjp(grad(function), x)
        super().__init__(flat, (flat.shape[0], flat.shape[0]), flat.dtype)

    def _push(self, v: Any, /) -> Any:
        return ravel_tree(self._product(self._unravel(v))[0])[0]

    _pull = _push


def jacobian_operator(function: Function, x: Any, /) -> FlatOperator:
    """Return the Jacobian of a function at a point as a linear operator on flat vectors, which forms no matrix.

    Parameters
    ----------
    function : callable
        ``function(x)`` returns an array, or a nested container of arrays.
    x
        An array or a nested container of arrays, of floating dtypes.

    Returns
    -------
    FlatOperator
        With ``shape`` (M, N) for M entries out and N in, ``dtype``, ``matvec``, ``rmatvec``, ``matmat`` and
        ``rmatmat``. Vectors hold the entries of all arrays in order, as `ravel_tree` flattens them, in the library and
        on the device of `x`. ``scipy.sparse.linalg`` takes it as it is.

    Raises
    ------
    TypeError
        If `x` holds no array, or one that has no floating dtype.

    See Also
    --------
    jacobian : The matrix.
    JacobianOperator : The same for an affine map, by closed forms.

    Notes
    -----
    The function is recorded once, and its record kept: a product costs about what a gradient costs.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse.linalg import lsqr
    >>> from pullback import jacobian_operator
    >>> operator = jacobian_operator(lambda x: x * x, np.asarray([1.0, 2.0]))
    >>> operator.matvec(np.ones(2))
    array([2., 4.])
    >>> lsqr(operator, np.asarray([2.0, 4.0]))[0].round(6)
    array([1., 1.])
    """
    return _FunctionOperator(function, x)


def hessian_operator(function: Function, x: Any, /) -> FlatOperator:
    """Return the Hessian of a scalar function at a point as a linear operator on flat vectors, which forms no matrix.

    Parameters
    ----------
    function : callable
        ``function(x)`` returns a real scalar.
    x
        A real array or a nested container of real arrays.

    Returns
    -------
    FlatOperator
        Symmetric, with ``shape`` (N, N) for N entries; else as `jacobian_operator`.

    Raises
    ------
    TypeError
        If the function does not return a real scalar, or `x` holds no array or one that has no floating dtype.

    See Also
    --------
    hvp : A single product.
    hessian : The matrix.

    Examples
    --------
    A Newton step by conjugate gradients:

    >>> import numpy as np
    >>> from scipy.sparse.linalg import cg
    >>> from pullback import grad, hessian_operator
    >>> def f(x):
    ...     return x[0] ** 4 + x[0] * x[1] + x[1] ** 2
    >>> x = np.asarray([1.0, 1.0])
    >>> step, _ = cg(hessian_operator(f, x), -grad(f)(x))
    >>> step.round(6)
    array([-0.304348, -1.347826])
    """
    return _HessianOperator(function, x)
