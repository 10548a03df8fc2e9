"""Every function of the standard has a rule, no derivative, or a refusal that says what to do."""

import inspect
from typing import Any

import array_api_strict
import numpy as np
import pytest
from array_api_compat import array_namespace

import pullback as pb
from pullback._autodiff.namespace import CREATION, EXTENSIONS, INSPECTION, namespace_of_level
from pullback._autodiff.rules.registry import RULES, UNARY, UNSUPPORTED, WITHOUT_DERIVATIVE
from tests.harness.backend import Backend

ARITHMETIC = {"add", "divide", "multiply", "subtract"}
IN_MAIN = {"matmul", "matrix_transpose", "tensordot", "vecdot"}
# Of array-api-strict itself, and no functions of the standard.
OWN = {"get_array_api_strict_flags", "reset_array_api_strict_flags", "set_array_api_strict_flags"}


def standard() -> list[str]:
    """Return the names of all functions that array-api-strict has of the standard's newest version."""
    main = [x for x in dir(array_api_strict) if inspect.isfunction(getattr(array_api_strict, x)) and x not in OWN]
    found = [x for x in main if not x.startswith("_")]
    for extension in EXTENSIONS:
        module = getattr(array_api_strict, extension)
        found += [f"{extension}.{x}" for x in module.__all__ if f"{x}" not in IN_MAIN]
    return found


def test_the_list_is_the_standards() -> None:
    assert array_api_strict.__array_api_version__ == "2025.12"
    assert len(standard()) > 160
    assert set(EXTENSIONS) == {"fft", "linalg"}


@pytest.mark.parametrize("name", standard())
def test_every_function_is_answered(name: str) -> None:
    def look(x: object) -> object:
        function = array_namespace(x)
        for part in name.split("."):
            function = getattr(function, part)
        assert callable(function)
        return x

    pb.vjp(look, array_api_strict.asarray(np.ones(2)))
    known = set(RULES) | set(UNARY) | WITHOUT_DERIVATIVE | set(UNSUPPORTED) | ARITHMETIC
    assert name in known | set(CREATION) | set(INSPECTION)


@pytest.mark.parametrize("name", standard())
def test_the_library_decides(backend_one_chunking: Backend, name: str) -> None:
    """A namespace has the functions that its library has: libraries ask for what they need."""
    xp = backend_one_chunking.xp
    traced: Any = namespace_of_level(xp, 1)
    for part in name.split("."):
        xp, traced = (getattr(x, part, None) for x in (xp, traced))
    assert (traced is None) == (xp is None)


def test_other_names(backend_one_chunking: Backend) -> None:
    """Whatever else a library has is not offered."""
    namespace = namespace_of_level(backend_one_chunking.xp, 1)
    assert namespace.__array_api_version__ == backend_one_chunking.xp.__array_api_version__
    for name in ("convolve", "einsum", "to_device", "T", "nansum", "ndarray"):
        assert not hasattr(namespace, name)
