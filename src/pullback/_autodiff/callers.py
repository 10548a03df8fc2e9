"""The function of a library in which an array that is differentiated was converted: what an error names."""

import sys
from typing import Any

_ANONYMOUS = ("_", "<", "wrap", "inner")


def calling_function() -> str:
    """Return the name of the function called from outside its package, such as ``scipy.signal.lfilter: ``.

    It is empty where code of the user's script, or compiled code that it calls, converted the array.
    """
    frame: Any = sys._getframe(1)
    while frame is not None and _package(frame) in ("pullback", "numpy"):
        frame = frame.f_back
    package, found = None if frame is None else _package(frame), ""
    while frame is not None and _package(frame) == package:
        public = [part for part in _module(frame).split(".") if not part.startswith("_")]
        name = frame.f_code.co_qualname.removesuffix(".__init__").removesuffix(".__call__")
        last = name.rpartition(".")[2]
        if not last.startswith(_ANONYMOUS) and len(public) > 1 and "._lib." not in _module(frame):
            found = ".".join((*public, name)) + ": "
        frame = frame.f_back
    return found


def _module(frame: Any, /) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package(frame: Any, /) -> str:
    return _module(frame).partition(".")[0]
