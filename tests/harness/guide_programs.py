"""The functions of the guide to gradients of functions, each with arguments: NumPy arrays to differentiate for."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from pullback import constant, ravel_tree
from tests.harness.guide import functions

PAGE = "guides/own-functions.md"
_rng = np.random.default_rng(0)
_normal = _rng.standard_normal

Program = tuple[Callable[..., Any], tuple[Any, ...]]
Put = Callable[[Any], Any]


def _first(put: Put, /) -> Program:
    z, y = put(_Z), put(_Y)
    loss = functions(PAGE, "Gradients of functions")["loss"]
    return lambda w: loss(w, constant(z), constant(y)), (_W[:, 0],)


def _network(put: Put, /) -> Program:
    names = functions(PAGE, "A network with a residual connection, layer norm and attention")
    x, labels = put(_SEQUENCES), put(_LABELS)

    def loss(block: Any, readout: Any) -> Any:
        return names["loss"](names["Block"](*block), readout, constant(x), constant(labels))

    return loss, (_BLOCK, _READOUT)


def _quantile(put: Put, /) -> Program:
    z, y = put(_Z), put(_Y)
    loss = functions(PAGE, "Custom losses")["quantile_loss"]
    return lambda w: loss(w, constant(z), constant(y)), (np.concatenate([_W[:2, 0], np.zeros(2)]),)


def _flat(put: Put, /) -> Program:
    parameters = {"w": _W[:, 0], "b": np.asarray(0.5)}
    _, unravel = ravel_tree({key: put(x) for key, x in parameters.items()})
    names = functions(PAGE, "Optimization with SciPy", unravel=unravel, z=put(_Z), y=put((_Y > 0) * 1.0))
    return names["loss"], (ravel_tree(parameters)[0],)


def _chain(put: Put, /) -> Program:
    del put
    return functions(PAGE, "Newton's method without a matrix")["loss"], (np.linspace(-2.0, 2.0, 50),)


def _implicit(put: Put, /) -> Program:
    names = functions(PAGE, "Implicit layers")
    ones = put(np.ones(5))

    def loss(w: Any, z: Any) -> Any:
        # To PyTorch's own gradient, this is the iterations that it consists of.
        return array_namespace(w, z).sum((names["fixed_point"](w, z) ** 2)[0, :] * ones)

    return loss, (_RECURRENT, _INPUTS)


def _special(put: Put, /) -> Program:
    names = functions(PAGE, "Special functions", z=put(_Z), y=put(np.abs(np.round(_Y * 3))))
    parameters = {"w": _W[:, 0], "b": np.asarray(0.5), "log_r": np.asarray(0.25)}
    _, names["unravel"] = ravel_tree({key: put(x) for key, x in parameters.items()})
    of_torch = getattr(array_namespace(names["z"]), "lgamma", None)
    return names["loss"] if of_torch is None else _with(names, gammaln=of_torch), (ravel_tree(parameters)[0],)


def _with(names: dict[str, Any], /, **others: Any) -> Callable[..., Any]:
    """Return the loss with functions of PyTorch in place of SciPy's."""
    names.update(others)
    return names["loss"]


_Z, _W, _Y = _normal((20, 4)), _normal((4, 1)), _normal(20)
_SEQUENCES, _LABELS = _normal((6, 5, 8)), _rng.integers(0, 3, 6)
_BLOCK = tuple(_normal(shape) / 8**0.5 for shape in ((8, 8), (8, 8), (8, 8), 8, 8, (8, 16), (16, 8)))
_READOUT = _normal((8, 3))
_RECURRENT, _INPUTS = 0.1 * _normal((5, 5)), _normal((3, 5))

PROGRAMS: dict[str, Callable[[Put], Program]] = {
    "first": _first,
    "network": _network,
    "quantile loss": _quantile,
    "flat parameters": _flat,
    "chain": _chain,
    "implicit layer": _implicit,
    "special functions": _special,
}
