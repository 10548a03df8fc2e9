"""Public transforms: gradients of functions of arrays, and products with their Jacobians and Hessians."""

from collections.abc import Callable
from typing import Any

from pullback._autodiff.namespace import libraries, namespace_for, space_of
from pullback._autodiff.recorded import Recorded, is_array
from pullback._autodiff.tape import open_depth
from pullback._autodiff.traced import Traced
from pullback._core import trees
from pullback._core.arguments import same_shape
from pullback._core.memory import place

Function = Callable[..., Any]


def grad(function: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Function:
    """Return a function that computes the gradient of a scalar function of arrays.

    Parameters
    ----------
    function : callable
        ``function(*args, **kwargs)`` returns a real scalar, an array of shape ``()``. It is written against the array
        API standard: operators, methods, and functions of ``array_namespace(x)``. Arguments may be arrays, or nested
        tuples, lists, dicts, NamedTuples and dataclasses of arrays.
    argnums : int or tuple of int, default 0
        The positional arguments to differentiate for. Their arrays have a real or complex floating dtype.
    has_aux : bool, default False
        Whether the function returns ``(value, auxiliary)``, where the auxiliary output is not differentiated.

    Returns
    -------
    callable
        ``gradient(*args, **kwargs)`` returns the gradient for the argument in `argnums`: in the structure of the
        argument, each array in the library, shape, dtype and device of its primal. It is a tuple of gradients where
        `argnums` is one, and ``(gradient, auxiliary)`` with `has_aux`.

    Raises
    ------
    TypeError
        When called: if the function does not return a real scalar, an argument to differentiate is no array or has no
        floating dtype, or an array that is differentiated leaves the array world (``float``, ``numpy.asarray``).
    ValueError
        When called: if `argnums` names no positional argument.

    See Also
    --------
    value_and_grad : The value, too, at no cost.
    vjp : For outputs that are no scalars.

    Notes
    -----
    The function runs once, on arrays that record what is done to them. The record is then pulled back: each operation
    takes the cotangent of its output to those of its inputs. An argument that does not reach the output has gradient
    zero. At a kink the derivative is the limit where there is one; else 0 for ``abs`` and ``sign``, and equal shares
    for tied maxima. A cotangent that is exactly 0 contributes 0, also where the derivative is infinite.

    For complex arguments, minus the gradient is the direction of steepest descent (PyTorch's convention).

    Arrays among the other arguments are constants. So are arrays that the function takes from around it: where such an
    array meets functions of a namespace, write ``constant(x)``. One that is overwritten before the gradient is computed
    cannot be noticed. Derivatives of any order come by nesting: ``grad(lambda x: grad(f)(x)[0])``.

    Examples
    --------
    >>> import numpy as np
    >>> from array_api_compat import array_namespace
    >>> from pullback import grad
    >>> def loss(w, z, y):
    ...     xp = array_namespace(w)
    ...     return xp.mean((xp.tanh(z @ w) - y) ** 2)
    >>> z, y = np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.asarray([0.0, 1.0])
    >>> grad(loss)(np.zeros(2), z, y)
    array([-3., -4.])
    """
    choose = argument_chooser("grad", function, argnums)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = choose(args, kwargs)
        recorded = Recorded("grad", of_chosen, chosen, has_aux=has_aux)
        found = _pull_one("grad", recorded, chosen, argnums)
        return (found, recorded.aux) if has_aux else found

    return gradient


def value_and_grad(function: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Function:
    """Return a function that computes the value of a scalar function of arrays and its gradient.

    Parameters
    ----------
    function : callable
        ``function(*args, **kwargs)`` returns a real scalar, as for `grad`.
    argnums : int or tuple of int, default 0
        The positional arguments to differentiate for.
    has_aux : bool, default False
        Whether the function returns ``(value, auxiliary)``.

    Returns
    -------
    callable
        ``evaluate(*args, **kwargs)`` returns ``(value, gradient)``, with the gradient as `grad` returns it; with
        `has_aux` ``((value, auxiliary), gradient)``.

    Raises
    ------
    TypeError, ValueError
        When called, as for `grad`.

    See Also
    --------
    grad : The gradient alone. Its notes say what is differentiated, and how.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import value_and_grad
    >>> value, gradient = value_and_grad(lambda x: x @ x)(np.asarray([1.0, 2.0]))
    >>> float(value), gradient
    (5.0, array([2., 4.]))
    """
    choose = argument_chooser("value_and_grad", function, argnums)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        of_chosen, chosen = choose(args, kwargs)
        recorded = Recorded("value_and_grad", of_chosen, chosen, has_aux=has_aux)
        found = _pull_one("value_and_grad", recorded, chosen, argnums)
        return ((recorded.out, recorded.aux) if has_aux else recorded.out), found

    return evaluate


def vjp(function: Function, *primals: Any, has_aux: bool = False) -> Any:
    """Compute a function, and return what pulls a cotangent of its output back to its arguments.

    Parameters
    ----------
    function : callable
        ``function(*primals)`` returns arrays, or nested containers of arrays.
    *primals
        Arrays or nested containers of arrays, of floating dtypes; all are differentiated.
    has_aux : bool, default False
        Whether the function returns ``(output, auxiliary)``.

    Returns
    -------
    out
        The output of the function.
    pull : callable
        ``pull(cotangent)`` takes a cotangent in the structure, shapes and dtypes of the output, and returns a tuple of
        cotangents, one for each primal in its structure. It may be called any number of times.
    aux
        The auxiliary output, only with `has_aux`.

    Raises
    ------
    TypeError
        If a primal is no array or has no floating dtype, or an output is no array.
    ValueError
        If a cotangent does not have the structure and the shapes of the output.

    See Also
    --------
    jvp : The other direction.

    Notes
    -----
    With the Jacobian J at the primals, `pull` computes ``Jᴴ g``: ``Re ⟨g, J t⟩ = Re ⟨pull(g), t⟩`` for each tangent t.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import vjp
    >>> out, pull = vjp(lambda x, y: x * y, np.asarray([1.0, 2.0]), np.asarray([3.0, 4.0]))
    >>> pull(np.ones(2))
    (array([3., 4.]), array([1., 2.]))
    """
    recorded = Recorded("vjp", function, primals, has_aux=has_aux)
    out = recorded.out

    def pull(cotangent: Any, /) -> Any:
        seeds = _matching("vjp", "the cotangent must have the structure and shapes of the output", out, cotangent)
        return tuple(trees.fill(primals, recorded.pull(seeds, last=False)))

    return (out, pull, recorded.aux) if has_aux else (out, pull)


def linearize(function: Function, *primals: Any) -> tuple[Any, Function]:
    """Compute a function, and return what pushes tangents of its arguments to a tangent of its output.

    Parameters
    ----------
    function : callable
        ``function(*primals)`` returns arrays, or nested containers of arrays.
    *primals
        Arrays or nested containers of arrays, of floating dtypes.

    Returns
    -------
    out
        The output of the function.
    push : callable
        ``push(*tangents)`` takes a tangent for each primal, in its structure and shapes, and returns the tangent of the
        output. It may be called any number of times, and costs about what a pull costs.

    Raises
    ------
    TypeError
        If a primal is no array or has no floating dtype, or an output is no array.
    ValueError
        If a tangent does not have the structure and the shapes of its primal.

    See Also
    --------
    jvp : For a single tangent.

    Notes
    -----
    The pull ``g ↦ Jᴴ g`` is linear. It is recorded in turn, and its own pull is the push ``t ↦ J t``: rules of one
    direction give both.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import linearize
    >>> out, push = linearize(lambda x: x * x, np.asarray([1.0, 2.0]))
    >>> push(np.asarray([1.0, 0.5]))
    array([2., 2.])
    """
    recorded = Recorded("linearize", function, primals)
    still, moving = _zero_tangents(recorded)

    def pull(*seeds: Any) -> list[Any]:
        by_output = dict(zip(moving, seeds, strict=True))
        return recorded.pull([by_output.get(i) for i in range(len(still))], last=False)

    transposed = Recorded("linearize", pull, [still[i] for i in moving]) if moving else None

    def push(*tangents: Any) -> Any:
        given = _matching(
            "linearize", "a tangent must have the structure and shapes of its argument", primals, tangents
        )
        moved = [] if transposed is None else transposed.pull(given, last=False)
        by_output = dict(zip(moving, moved, strict=True))
        return trees.fill(recorded.out, (by_output.get(i, x) for i, x in enumerate(still)))

    return recorded.out, push


def _zero_tangents(recorded: Recorded, /) -> tuple[list[Any], list[int]]:
    """Return tangents of zero for the outputs, and which of them may move: an output of integers does not."""
    level = recorded.namespace
    still = [_zero(level.base, x, recorded.inputs[0]) for x in trees.leaves(recorded.out)]
    return still, [i for i, x in enumerate(still) if level.is_floating(x.dtype)]


def _zero(xp: Any, x: Any, like: Any, /) -> Any:
    """Return a tangent of zero; of a Python number, on the device of an argument, and of a float in its dtype."""
    if is_array(x):
        return xp.zeros_like(x)
    return xp.asarray(0 * x, dtype=like.dtype if type(x) is float else None, **place(like))


def jvp(function: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Compute a function and its derivative along tangents of its arguments.

    Parameters
    ----------
    function : callable
        ``function(*primals)`` returns arrays, or nested containers of arrays.
    primals : tuple
        The arguments: arrays or nested containers of arrays, of floating dtypes.
    tangents : tuple
        A tangent for each primal, in its structure and shapes.

    Returns
    -------
    out, tangent
        The output of the function, and its tangent ``J t`` in the same structure.

    Raises
    ------
    TypeError
        If a primal is no array or has no floating dtype, or an output is no array.
    ValueError
        If a tangent does not have the structure and the shapes of its primal.

    See Also
    --------
    vjp : The other direction.
    linearize : For several tangents at the same primals.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import jvp
    >>> jvp(lambda x: x * x, (np.asarray([1.0, 2.0]),), (np.asarray([1.0, 0.5]),))
    (array([1., 4.]), array([2., 2.]))
    """
    _check_tuples("jvp", primals=primals, tangents=tangents)
    rule = "a tangent must have the structure and shapes of its argument"
    recorded = Recorded("jvp", function, primals, tangents=_matching("jvp", rule, primals, tangents))
    moved, moving = _zero_tangents(recorded)
    # A constant does not move, either.
    moving = [i for i in moving if recorded.outputs[i][0] >= 0]
    if moving:
        found = recorded.tangents.of([recorded.outputs[i][0] for i in moving], [moved[i] for i in moving])
        for i, x in zip(moving, found, strict=True):
            moved[i] = x
    return recorded.out, trees.fill(recorded.out, moved)


def hvp(function: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, ...]:
    """Multiply the Hessian of a scalar function by a vector.

    Parameters
    ----------
    function : callable
        ``function(*primals)`` returns a real scalar.
    primals : tuple
        The arguments: arrays or nested containers of arrays, of floating dtypes.
    tangents : tuple
        The vector: a tangent for each primal, in its structure and shapes.

    Returns
    -------
    tuple
        ``H t``, an entry for each primal in its structure.

    Raises
    ------
    TypeError
        If the function does not return a real scalar, or a primal is no array or has no floating dtype.
    ValueError
        If a tangent does not have the structure and the shapes of its primal.

    See Also
    --------
    hessian_operator : The same as a linear operator, for ``scipy.sparse.linalg``.
    hessian : The matrix.

    Notes
    -----
    It is the gradient of ``⟨grad f, t⟩``, at about twice the cost of a gradient: the Hessian is symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import hvp
    >>> hvp(lambda x: x @ x * x[0], (np.asarray([1.0, 2.0]),), (np.asarray([1.0, 0.0]),))
    (array([6., 4.]),)
    """
    _check_tuples("hvp", primals=primals, tangents=tangents)
    _, pull = vjp(grad(function, argnums=tuple(range(len(primals)))), *primals)
    return pull(tuple(tangents))


def stop_gradient(x: Any, /) -> Any:
    """Return arrays whose gradient is zero.

    Parameters
    ----------
    x
        An array, or a nested container of arrays, inside a function that is differentiated; elsewhere it is returned as
        it is.

    Returns
    -------
    Any
        The same values as constants.

    Examples
    --------
    >>> import numpy as np
    >>> from pullback import grad, stop_gradient
    >>> grad(lambda x: x @ stop_gradient(x))(np.asarray([1.0, 2.0]))
    array([1., 2.])
    """

    def stop(leaf: Any) -> Any:
        if type(leaf) is not Traced:
            return leaf
        ns = leaf._namespace
        return Traced(stop(leaf._value), None, -1, ns)

    return trees.rebuild(x, stop)


def constant(x: Any, /) -> Any:
    """Lift plain arrays into the function that is being differentiated, as constants.

    Parameters
    ----------
    x
        An array, or a nested container of arrays, that the function takes from around it.

    Returns
    -------
    Any
        The same values with the traced namespace; outside of a function that is differentiated, `x` itself.

    Notes
    -----
    Arrays of most libraries can be either operand where the other one is differentiated. Those of array-api-strict
    raise as the left operand, and functions of a plain namespace raise for arrays that are differentiated. A constant
    works in all these places.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> from pullback import constant, grad
    >>> z = xp.asarray([1.0, 2.0])
    >>> grad(lambda w: constant(z) @ w)(xp.asarray([3.0, 4.0]))
    Array([1., 2.], dtype=array_api_strict.float64)
    """
    depth = open_depth()
    if depth == 0:
        return x
    if depth == 1 and type(x) in libraries:  # a plain array, as most constants are
        return namespace_for(x, 1).lift(x)

    def lift(leaf: Any) -> Any:
        return leaf if not is_array(leaf) else namespace_for(leaf, depth).lift(leaf)

    return trees.rebuild(x, lift)


def argument_chooser(name: str, function: Function, argnums: Any, /) -> Callable[..., tuple[Function, tuple[Any, ...]]]:
    """Return what chooses the arguments to differentiate: ``choose(args, kwargs)`` returns a function of them alone.

    It returns these arguments, too. Arrays among the others are constants.
    """
    if any(type(n) is not int for n in (argnums if type(argnums) is tuple else (argnums,))):
        got, way = repr(argnums), ""
        if hasattr(argnums, "shape"):  # an array belongs to the function that is returned
            got, way = type(argnums).__name__, f". Pass arrays as {name}(function)(x)"
        msg = f"{name}: argnums must be an integer or a tuple of them; got {got}{way}"
        raise TypeError(msg)
    # By the number of arguments: the positions, and whether these are all arguments in order.
    known: dict[int, tuple[tuple[int, ...], bool]] = {}

    def choose(args: tuple[Any, ...], kwargs: dict[str, Any], /) -> tuple[Function, tuple[Any, ...]]:
        count = len(args)
        if count not in known:
            positions = _positions(name, argnums, count)
            known[count] = positions, positions == tuple(range(count))
        positions, every = known[count]
        if every and not kwargs:
            return function, args

        def of_chosen(*chosen: Any) -> Any:
            given = [x if i in positions else constant(x) for i, x in enumerate(args)]
            for n, x in zip(positions, chosen, strict=True):
                given[n] = x
            return function(*given, **{key: constant(x) for key, x in kwargs.items()})

        return of_chosen, tuple(args[n] for n in positions)

    return choose


def _check_tuples(name: str, /, **given: Any) -> None:
    """Check that primals and tangents are tuples with an entry for each argument."""
    for what, x in given.items():
        if not isinstance(x, tuple | list):
            got = type(x).__name__
            msg = (
                f"{name}: {what} must be a tuple with an entry for each argument; got {got}. Pass (x,) for one argument"
            )
            raise TypeError(msg)


def _positions(name: str, argnums: Any, count: int, /) -> tuple[int, ...]:
    """Return the positions of the arguments to differentiate."""
    positions = []
    for n in argnums if isinstance(argnums, tuple) else (argnums,):
        if not -count <= n < count:
            msg = f"{name}: argnums must be positions of the {count} positional arguments; got {argnums!r}"
            raise ValueError(msg)
        positions.append(n % count)
    if len(set(positions)) < len(positions):
        msg = f"{name}: argnums must name each argument once; got {argnums!r}"
        raise ValueError(msg)
    return tuple(positions)


def _pull_one(name: str, recorded: Recorded, chosen: tuple[Any, ...], argnums: Any, /) -> Any:
    """Pull 1 back from a real scalar, and return the gradient in the structure of the arguments."""
    out, level = recorded.out, recorded.namespace
    # Python numbers have no dtype, and containers no axes.
    _, dtype = recorded.outputs[0] if recorded.outputs else (-1, None)
    if dtype in level.real_dtypes and getattr(out, "ndim", None) == 0:
        one = out**0 if level.depth == 1 else space_of([out]).ones_like(out)
    elif type(out) is float:
        one = level.base.asarray(1.0, dtype=recorded.inputs[0].dtype, **place(recorded.inputs[0]))
    else:
        got = f"shape {tuple(out.shape)} and dtype {out.dtype}" if is_array(out) else type(out).__name__
        fields = " or ".join(getattr(out, "_fields", ()))
        way = f"Return one of its fields, {fields}" if fields else "Use vjp for other outputs"
        msg = f"{name}: the function must return a real scalar, shape (); got {got}. {way}"
        raise TypeError(msg)
    found = recorded.pull([one], last=True)
    filled = tuple(found) if recorded.flat else trees.fill(chosen, found)
    return filled if isinstance(argnums, tuple) else filled[0]


def _matching(name: str, rule: str, expected: Any, given: Any, /) -> list[Any]:
    """Return the leaves of a tree that has the structure and the shapes of another one."""
    ours, theirs = trees.leaves(expected), trees.leaves(given)
    shapes, got = ([tuple(getattr(x, "shape", ())) for x in leaves] for leaves in (ours, theirs))
    if len(shapes) != len(got) or not all(map(same_shape, shapes, got)):
        msg = f"{name}: {rule}, {shapes}; got {got}"
        raise ValueError(msg)
    return theirs
