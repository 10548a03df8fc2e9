"""The evaluations of a fit so far, in a file: an interrupted fit repeats them without a pass, and goes on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pullback._cli.console import CommandError

Vector: TypeAlias = NDArray[np.float64]


class Checkpoint:
    """A file with a record of float64 for each evaluation: parameters, value, gradient and the checksum of these."""

    def __init__(self, file: BinaryIO, header: int, size: int) -> None:
        self._file, self._header, self._size = file, header, size
        self._bytes = 8 * (2 * size + 2)
        # The end of a record is missing where the process was killed while it wrote.
        self.count = (os.fstat(file.fileno()).st_size - header) // self._bytes
        """The number of records."""
        self.done = 0
        """The number of evaluations in this run."""

    def recall(self, x: Vector, /) -> tuple[float, Vector] | None:
        """Return the value and the gradient that the next record holds for these parameters, if it does."""
        if self.done == self.count:
            return None
        self._file.seek(self._header + self.done * self._bytes)
        record = np.frombuffer(self._file.read(self._bytes))
        whole = record[-1] == crc32(record[:-1].tobytes())
        if not whole or record[: self._size].tobytes() != x.tobytes():
            # The power failed, or another version of a library takes another path from here.
            self.count = self.done
            return None
        self.done += 1
        return float(record[self._size]), record[self._size + 1 : -1].copy()

    def append(self, x: Vector, value: float, gradient: Vector, /) -> None:
        """Write the record of an evaluation, and wait until the disk has it."""
        self._file.truncate(self._header + self.done * self._bytes)
        record = x.tobytes() + np.float64(value).tobytes() + gradient.tobytes()
        self._file.write(record + np.float64(crc32(record)).tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done += 1
        self.count = self.done


@contextmanager
def checkpoint(path: Path, fit: str, size: int, /) -> Iterator[Checkpoint]:
    """Open the checkpoint of a fit of a number of parameters, or begin one; `fit` says all that its bits depend on."""
    header = f"{sha256(fit.encode()).hexdigest()}\n".encode()
    with path.open("a+b") as file:
        file.seek(0)
        found = file.read(len(header))
        if found != header:
            if not header.startswith(found):
                msg = f"{path} holds the evaluations of another fit, of other inputs or options"
                raise CommandError(msg, advice="give the options of that fit, or remove the file", status=1)
            file.truncate(0)
            file.write(header)
            file.flush()
        yield Checkpoint(file, len(header), size)
