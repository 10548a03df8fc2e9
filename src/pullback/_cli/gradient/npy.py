"""The header of an `.npy` file: what is read of it, and what is wrong with it."""

import ast
import re
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from pullback._cli.console import CommandError, python_command
from pullback._core.typing import DType

_READERS: dict[tuple[int, int], Any] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,
}
# NumPy 2 prints its scalars like this, and a writer that formats the header by hand copies it into the file.
_SCALAR = re.compile(r"np\.u?int\d*\((\d+)\)")


class Header(NamedTuple):
    """What the header of an `.npy` file says."""

    shape: tuple[int, ...]
    columns_first: bool
    dtype: DType
    offset: int
    """The first byte of the data."""


def read_header(path: Path, file: BinaryIO, /) -> Header:
    """Read the header, and check that the file holds all the data that it promises."""
    try:
        version = npy.read_magic(file)
    except ValueError as error:
        msg = f"{path} is neither an .npy file nor the folder of a Zarr array: {error}"
        raise CommandError(msg) from error
    if version not in _READERS:
        known = ", ".join(f"{major}.{minor}" for major, minor in _READERS)
        msg = f"{path} has version {version[0]}.{version[1]} of the .npy format; the versions {known} can be read"
        raise CommandError(msg)
    start = file.tell()
    try:
        shape, columns_first, dtype = _READERS[version](file)
    except Exception as error:
        file.seek(start)
        _explain_scalars(path, file, version)
        msg = f"{path} has a damaged header: {' '.join(str(error).split())}"
        raise CommandError(msg, advice="save it again with numpy.save") from error
    if any(size < 0 for size in shape):
        msg = f"{path} has a damaged header: its shape is {shape}"
        raise CommandError(msg, advice="save it again with numpy.save")
    if dtype.hasobject:
        msg = f"{path} holds pickled Python objects, which can run any program and are not read"
        raise CommandError(msg, advice="save an array of numbers")
    header = Header(shape, columns_first, dtype, file.tell())
    needed, size = header.offset + prod(shape) * dtype.itemsize, path.stat().st_size
    if size < needed:
        msg = f"{path} is cut off: its header promises {needed:,} bytes, and there are {size:,}"
        raise CommandError(msg, advice="copy or save it again")
    return header


def _explain_scalars(path: Path, file: BinaryIO, version: tuple[int, int], /) -> None:
    """Raise an error with a way out if the header is right except for NumPy scalars such as ``np.int64(100)``."""
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    text = file.read(length).decode("latin1")
    found = _SCALAR.search(text)
    try:
        fields: dict[str, Any] = ast.literal_eval(_SCALAR.sub(r"\1", text).strip())
        dtype = npy.descr_to_dtype(fields["descr"])
        shape = tuple(int(size) for size in fields["shape"])
    except Exception:  # noqa: BLE001 - the header has another fault, which NumPy's error names
        return
    if found is None or dtype.hasobject:
        return
    order = "F" if fields.get("fortran_order") else "C"
    fixed = str(path.with_name(f"{path.stem}-fixed.npy"))
    code = (
        f"import numpy as np; np.save({fixed!r}, "
        f"np.memmap({str(path)!r}, {np.dtype(dtype).str!r}, 'r', {file.tell()}, {shape}, {order!r}))"
    )
    msg = f"{path} has {found[0]} in its header, which is not a part of the .npy format"
    raise CommandError(msg, advice=f"write it again: {python_command(code)}")
