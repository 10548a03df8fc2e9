"""The entry of the `pullback` command, no part of the package: importing that takes most of the command's start."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command; Ctrl-C ends it in one line from here on."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    from pullback._cli.app import main as run  # noqa: PLC0415 - after the handler

    signal.signal(signal.SIGINT, before)
    run()


def _end(number: int, _: FrameType | None, /) -> None:
    """End at once: an import may turn an exception into another, and nothing has begun that would stay."""
    os.write(2, b"pullback: interrupted\n")
    os._exit(128 + number)
