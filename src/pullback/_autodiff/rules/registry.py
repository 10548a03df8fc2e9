"""Tables of the derivative rules by function name."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

Rule = Callable[..., Any]


class Unary(NamedTuple):
    """An elementwise function of one array."""

    pull: Callable[..., Any]
    """``pull(xp, g)``, or with what it saves after that."""

    saves: str
    """What it saves: "x", the argument; "out", the value; or nothing, ""."""

    complex_pull: Callable[..., Any] | None
    """The pull of complex arrays; None where the function is holomorphic, so that its derivative says all."""


RULES: dict[str, Rule] = {}
"""Functions with a derivative; those of an extension as ``linalg.solve``, operators as ``operator.pow``."""

METHODS = frozenset({"T", "getitem", "setitem", "to_device"})
"""Rules of what an array does, and no function of the namespace."""

UNARY: dict[str, Unary] = {}
"""Elementwise functions of one array."""

WITHOUT_DERIVATIVE: set[str] = set()
"""Functions whose results are constant almost everywhere, or no numbers."""

UNSUPPORTED: dict[str, str] = {}
"""Functions that cannot be differentiated, and what to do instead."""


def rule(function: Rule, /, *, name: str | None = None) -> Rule:
    """Register a rule by its own name, without the underscore that keeps it from hiding a builtin."""
    RULES[name or function.__name__.rstrip("_")] = function
    return function


def in_extension(extension: str, /) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a rule of an extension."""
    return lambda function: rule(function, name=f"{extension}.{function.__name__.rstrip('_')}")


def unary(pull: Callable[..., Any], /, *, complex_pull: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Register an elementwise function by its pull, whose last parameter names what is saved: `x`, `out` or nothing."""
    *_, last = inspect.signature(pull).parameters
    UNARY[pull.__name__.rstrip("_")] = Unary(pull, last if last in {"x", "out"} else "", complex_pull)
    return pull
