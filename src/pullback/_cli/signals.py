"""Signals that end a command: Ctrl-C, a terminal that closes, and a request to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_ENDING = "SIGINT", "SIGTERM", "SIGHUP"


class Interrupted(KeyboardInterrupt):
    """A signal has ended the command."""

    def __init__(self, number: int, /) -> None:
        super().__init__(number)
        self.status = 128 + number
        """The status to exit with, as a shell gives it."""


class Signals:
    """Let the first signal interrupt a command, except where that would leave something behind.

    A signal that the command was started to ignore, as by `nohup`, stays ignored.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._first: int | None = None
        self._held = False

    def __enter__(self) -> Self:
        """Take the signals over, in the main thread, which alone may do that."""
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _ENDING if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None, /) -> None:
        """Note a signal; interrupt the command if it is the first and is not held."""
        if self._first is None:
            self._first = number
            if not self._held:
                raise Interrupted(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal interrupt a part of what is held, one that came before among them."""
        self._held = False
        try:
            if self._first is not None:
                raise Interrupted(self._first)
            yield
        finally:
            self._held = True
