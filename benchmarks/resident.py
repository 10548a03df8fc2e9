"""Resident memory, as Linux counts it."""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path


def peak(prepare: Callable[..., Callable[[], object]], *arguments: object) -> int:
    """Return the bytes that a call adds at its peak to the memory of a new process, which first prepares the call."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(there, prepare, *arguments))
    process.start()
    # The other end is the child's alone: should that die, it closes, and to wait for it is an error.
    there.close()
    added: int = here.recv()
    process.join()
    return added


def high_water() -> int:
    """Return the most bytes of memory that this process has had."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _send_peak(pipe: Connection, prepare: Callable[..., Callable[[], object]], *arguments: object) -> None:
    """Send what a call adds to the memory of this process."""
    call = prepare(*arguments)
    # The high-water mark is from now on what the process has now, whatever it had while it prepared.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = high_water()
    # The results are there at the peak, or after it.
    results = call()
    pipe.send(high_water() - before)
    del results
