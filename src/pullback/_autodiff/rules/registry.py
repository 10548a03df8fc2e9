"""Where the rules of all functions are found by name."""

import inspect
from collections.abc import Callable
from typing import Any

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
"""Functions with a derivative; those of an extension as ``linalg.solve``."""

UNARY: dict[str, tuple[Callable[..., Any], bool]] = {}
"""Elementwise functions of one real array: ``pull(xp, g, saved)``, and whether what it takes is the output."""

WITHOUT_DERIVATIVE: set[str] = set()
"""Functions whose results are constant almost everywhere, or no numbers."""

REFUSED: dict[str, str] = {}
"""Functions that cannot be differentiated, and what to do instead."""


def rule(function: Rule, /, *, name: str | None = None) -> Rule:
    """Register a rule by its own name, without the underscore that keeps it from hiding a builtin."""
    RULES[name or function.__name__.rstrip("_")] = function
    return function


def in_extension(extension: str, /) -> Callable[[Rule], Rule]:
    """Return a decorator that registers a rule of an extension."""
    return lambda function: rule(function, name=f"{extension}.{function.__name__.rstrip('_')}")


def unary(pull: Callable[..., Any], /) -> Callable[..., Any]:
    """Register an elementwise function by its pull, whose last parameter names what is saved: `x`, `out` or nothing."""
    *_, last = inspect.signature(pull).parameters
    UNARY[pull.__name__.rstrip("_")] = pull, last == "out"
    return pull
