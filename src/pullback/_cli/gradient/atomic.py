"""The place of what `pullback gradient` writes, which nobody sees before it is whole."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import zarr

from pullback._cli.gradient.files import File
from pullback.dask._zarr import whole

MADE_BY = "pullback gradient"


def check_output(path: Path, inputs: Collection[File], /, *, overwrite: bool) -> None:
    """Check that there is a place for the output, and nothing at it that may not be replaced."""
    path = path.absolute()
    if not os.access(path.parent, os.W_OK | os.X_OK):
        reason = "nothing may be written there" if path.parent.is_dir() else "there is no such folder"
        msg = f"{path} cannot be made in {path.parent}: {reason}"
        raise PermissionError(msg)
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        msg = f"{path} exists already; name another --output, or replace an earlier one with --overwrite"
        raise FileExistsError(msg)
    _check_ours(path)
    for file in inputs:
        if file.path.resolve().is_relative_to(path.resolve()):
            msg = f"{file.path} is a part of {path}, which would be replaced; name another --output"
            raise ValueError(msg)


def _check_ours(path: Path, /) -> None:
    """Check that the command wrote what is to be replaced."""
    try:
        made_by = None if path.is_symlink() else zarr.open_group(path, mode="r").attrs.get("made_by")
    except Exception:  # noqa: BLE001 - whatever it is, it is none of ours
        made_by = None
    if made_by != MADE_BY:
        msg = f"{path} was not written by {MADE_BY}, and so --overwrite does not replace it; name another --output"
        raise FileExistsError(msg)


@contextmanager
def output(path: Path, /, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder that becomes the output when all went well, in place of an earlier one that goes only then."""
    path = path.absolute()
    if not (overwrite and path.exists()):
        with whole(path) as folder:
            yield folder
        return
    new, old = (path.with_name(f".{path.name}.{uuid4().hex}.{age}") for age in ("new", "old"))
    with whole(new) as folder:
        yield folder
    try:
        _check_ours(path)
        path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(new, ignore_errors=True)
        raise
    try:
        shutil.rmtree(old)
    except KeyboardInterrupt:
        # All else is done, and half of an old output is of no use.
        shutil.rmtree(old, ignore_errors=True)
