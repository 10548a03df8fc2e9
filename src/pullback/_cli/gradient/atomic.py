"""The output of `pullback gradient` and `pullback fit`: where it may be written, and what it may replace."""

import os
from collections.abc import Collection
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import zarr

from pullback._cli.console import CommandError
from pullback._cli.gradient.files import File
from pullback.dask._atomic import Draft, whole

_OTHER_FORMATS = {".csv", ".h5", ".hdf5", ".json", ".npy", ".npz", ".parquet"}


def check_output(path: Path, made_by: str, inputs: Collection[File], /, *, overwrite: bool) -> None:
    """Check that there is a place for the output, and nothing at it that may not be replaced."""
    path = path.absolute()
    if path.suffix in _OTHER_FORMATS:
        msg = f"the output is a Zarr group, and {path.name} is the name of another kind of file"
        raise CommandError(msg, advice=f"name it {path.stem}.zarr")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        reason = "nothing may be written there" if path.parent.is_dir() else "there is no such folder"
        msg = f"{path} cannot be made in {path.parent}: {reason}"
        raise CommandError(msg)
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        msg = f"{path} exists already"
        raise CommandError(msg, advice="name another --output, or replace an earlier one with --overwrite")
    check_ours(made_by, path)
    for file in inputs:
        if file.path.resolve().is_relative_to(path.resolve()):
            msg = f"{file.path} is a part of {path}, which would be replaced"
            raise CommandError(msg, advice="name another --output")


def check_ours(made_by: str, path: Path, /) -> None:
    """Check that a command wrote what is to be replaced, and that it may be moved."""
    try:
        writer = None if path.is_symlink() else zarr.open_group(path, mode="r").attrs.get("made_by")
    except Exception:  # noqa: BLE001 - whatever it is, it is none of ours
        writer = None
    if writer != made_by:
        msg = f"{path} was not written by {made_by}, and so --overwrite does not replace it"
        raise CommandError(msg, advice="name another --output")
    if not os.access(path, os.W_OK):
        msg = f"{path} may not be changed, and so --overwrite cannot replace it"
        raise CommandError(msg, advice="name another --output, or allow yourself to write in it")


def output(path: Path, made_by: str, /, *, overwrite: bool) -> AbstractContextManager[Draft]:
    """Return the context of a folder that becomes the output when all went well, in place of an earlier one."""
    return whole(path, may_replace=partial(check_ours, made_by) if overwrite else None)
