"""A pytest plugin that binds what the library calls, while the laws run, to CuPy's signatures. It needs no GPU.

The library gets namespaces that record the calls made of them. When the tests are over, each recorded form of call is
bound to the signature of the same function in `array_api_compat.cupy`, and each attribute that the library asks of an
array is looked up on CuPy's. What is missing there, or does not bind, fails the run, and so does a function that the
library calls by name and that no law has reached. Workers of pytest-xdist send their forms to the main process.
"""

import ast
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import array_api_compat.cupy
import array_api_strict
import cupy
import pytest

import pullback
from pullback._autodiff import namespace
from pullback._core import arguments
from pullback._core.typing import Array

# How a function was called: its name, the number of positional arguments, the names of the others.
Form = tuple[str, int, tuple[str, ...]]

forms: set[Form] = set()
# Called where arrays lie in NumPy's memory, consist of chunks, have unknown sizes or are bfloat16, unlike CuPy's.
ELSEWHERE = {"all", "argmax", "asarray", "empty", "logical_not", "min", "tensordot"}


class Recorder:
    """A namespace, or the object that describes one, that notes each call."""

    def __init__(self, target: Any, prefix: str = "") -> None:
        self._target, self._prefix = target, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        is_function = callable(value) and not isinstance(value, type)
        return partial(self._call, self._prefix + name, value) if is_function or name == _INFO else value

    def _call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        forms.add((name, len(args), tuple(sorted(kwargs))))
        value = function(*args, **kwargs)
        return Recorder(value, f"{name}.") if name == _INFO else value


_INFO = "__array_namespace_info__"
_recorders: dict[str, Recorder] = {}
_array_namespace = vars(arguments)["array_namespace"]


def recorded_namespace(*arrays: Any) -> Any:
    """Return the arrays' namespace as a recorder: always the same one, since namespaces are compared by identity."""
    xp = _array_namespace(*arrays)
    if isinstance(xp, namespace.TracedNamespace):  # its calls are those of functions, and are not recorded
        return xp
    return _recorders.setdefault(xp.__name__, Recorder(xp))


def why_not(form: Form) -> str | None:
    """Say why CuPy could not be called in this form, None where it could."""
    name, count, keywords = form
    target: Any = array_api_compat.cupy
    for part in name.split("."):
        target = target() if inspect.isclass(target) else target
        if not hasattr(target, part):
            return "CuPy has no such function"
        target = getattr(target, part)
    if isinstance(target, cupy.ufunc):
        fits = count == target.nin and set(keywords) <= {"out", "dtype", "casting"}
        return None if fits else f"a ufunc of {target.nin} arguments"
    signature = inspect.signature(target)
    passed_on = set(keywords) - signature.parameters.keys()
    try:
        signature.bind(*[None] * count, **dict.fromkeys(keywords))
        if passed_on:  # A wrapper's **kwargs take every name, and the function that it wraps does not.
            inspect.signature(getattr(cupy, name)).bind_partial(**dict.fromkeys(passed_on))
    except TypeError as error:
        return str(error)
    return None


def failures() -> list[str]:
    """Return a line for each form of call, and each attribute of an array, that CuPy does not have."""
    calls = [
        f"{name}, {count} positional, {keywords}: {why}"
        for name, count, keywords in sorted(forms)
        if (why := why_not((name, count, keywords)))
    ]
    attributes = [
        name for name in vars(Array) if inspect.isfunction(vars(Array)[name]) or isinstance(vars(Array)[name], property)
    ]
    return calls + [
        f"ndarray.{name}: CuPy's arrays have no such attribute"
        for name in attributes
        if not hasattr(cupy.ndarray, name)
    ]


def called() -> set[str]:
    """Return the functions of a namespace that the source of the pairs calls by name: each is to have a form."""
    names = set()
    for folder in ("_core", "_ops"):
        for path in (Path(pullback.__file__).parent / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = node.func.value
                    # What the standard does not have is called where a library has it, and strict has not.
                    if isinstance(owner, ast.Name) and owner.id == "xp" and hasattr(array_api_strict, node.func.attr):
                        names.add(node.func.attr)
    return names


def unreached() -> list[str]:
    """Return the functions that the source calls by name, no law has called, and `ELSEWHERE` does not list."""
    return sorted((called() - {name for name, *_ in forms}) ^ ELSEWHERE)


def pytest_configure() -> None:
    vars(arguments)["array_namespace"] = recorded_namespace


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the forms that a worker has seen."""
    forms.update((name, count, tuple(keywords)) for name, count, keywords in node.workeroutput["forms"])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["forms"] = [[name, count, [*keywords]] for name, count, keywords in forms]
    elif unreached() or failures():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section(f"CuPy {cupy.__version__}, no GPU used")
    for line in [
        *failures(),
        *(f"{name}: uncalled, or listed in ELSEWHERE for nothing" for name in unreached()),
    ]:
        terminalreporter.line(f"FAILED {line}", red=True)
    functions = sorted({name for name, *_ in forms})
    bound = len(forms) - sum(why_not(form) is not None for form in forms)
    terminalreporter.line(f"{bound} of {len(forms)} forms of call, of {len(functions)} functions, bind:")
    terminalreporter.line(", ".join(functions))
