"""How the commands of `pullback` print, and how they end."""

import os
import shlex
import sys
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def table(*headers: str, numbers: tuple[str, ...] = ()) -> "Table":
    """Return an empty table, narrow enough for 80 columns; a cell that is too long goes on below."""
    from rich import box  # noqa: PLC0415 - an extra
    from rich.table import Table  # noqa: PLC0415 - an extra

    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for header in headers:
        out.add_column(header, overflow="fold")
    for header in numbers:
        out.add_column(header, justify="right", no_wrap=True)
    return out


def say(out: "Console", line: str, /) -> None:
    """Print a line whole at any width, its brackets as they are; raise OSError if it cannot be written."""
    try:
        out.file.write(f"{line}\n")
        out.file.flush()
    except OSError as error:
        discard(out.file)
        raise OSError(error.errno, f"standard output cannot be written: {error.strerror}") from error


def discard(file: IO[str], /) -> None:
    """Let what a stream still holds go nowhere: Python would write it at exit, and fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def show(out: "Console", table: "Table", /) -> None:
    """Print a table."""
    with out.capture() as captured:
        out.print(table)
    say(out, captured.get().removesuffix("\n"))


class CommandError(Exception):
    """An error that a command reports in one line: what is wrong, what to do about it, and the status to exit with."""

    def __init__(self, text: str, /, *, advice: str = "", status: int = 2) -> None:
        super().__init__(text)
        self.text, self.advice, self.status = text, advice, status

    def __str__(self) -> str:
        """Return the text and the advice."""
        return f"{self.text}; {self.advice}" if self.advice else self.text


def python_command(code: str, /) -> str:
    """Return the shell command that runs some code."""
    return f"python -c {shlex.quote(code)}"


def fail(*lines: str, status: int = 2) -> NoReturn:
    """Print to stderr and exit."""
    sys.stderr.writelines(f"{line}\n" for line in lines)
    raise SystemExit(status)


def in_one_line(error: BaseException, /) -> str:
    """Return what an error says, and its notes; its type where that says more."""
    told = isinstance(error, CommandError | OSError | TypeError | ValueError)
    what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
    said = [str(error) if told else what, *getattr(error, "__notes__", ())]
    return " ".join("; ".join(said).split())
