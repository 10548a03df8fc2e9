"""A folder that is written under another name and takes its own when it is whole: at any moment all of it, or none.

The work goes on in `.NAME.partial` next to the path, which is locked, so that a second run for the same path stops at
once, and what a killed run left is told from what a run at work needs.
"""

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

# Of the system's: a path that is relative to the working directory, and the flag that exchanges two paths.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP
_LONGEST_NAME = 255
# A thread or worker that has been told to stop may still write a file or two.
_WAITS = 0.0, 0.05, 0.1, 0.2, 0.4, 0.8
# The suffix of Zarr's temporary files, which a killed worker leaves.
_TEMPORARY = ".partial"


@dataclass
class Draft:
    """A folder that is being written."""

    folder: Path
    left: str = ""
    """A line about what could not be removed once the folder has its name."""


@contextmanager
def whole(path: str | os.PathLike[str], /, *, may_replace: Callable[[Path], None] | None = None) -> Iterator[Draft]:
    """Yield a folder that becomes `path` when all went well, and is removed otherwise.

    What is at `path` is replaced if there is a function `may_replace` that does not raise for it.
    """
    path = Path(path).absolute()
    _check_free(path, may_replace)
    recover(path)
    partial = _partial(path)
    partial.mkdir()
    with _locked(path, needed=False):
        # What a worker of a killed run still writes goes to the folder of that run.
        draft = Draft(partial / uuid4().hex)
        try:
            draft.folder.mkdir()
            yield draft
            _remove_temporary(draft.folder)
            _publish(draft.folder, path, may_replace)
        except BaseException as error:
            left = _remove(partial)
            if left:
                error.add_note(left)
            raise
        draft.left = _remove(partial)


def recover(path: Path, /) -> str:
    """Finish or remove what a killed run left for this path; return a line that says so, or nothing.

    Raises FileExistsError if a run is at work on the path.
    """
    path = path.absolute()
    partial = _partial(path)
    if not partial.exists():
        return ""
    with _locked(path, needed=True):
        done = f"removed {partial}, which a killed run had left"
        new = partial / "new"
        if new.exists() and not path.exists():
            new.rename(path)
            done = f"{path} is the whole output of a run that was killed before it could give it this name"
        left = _remove(partial)
    return left or done


def _partial(path: Path, /) -> Path:
    """Return the folder in which the one at a path is made."""
    fits = len(os.fsencode(path.name)) <= _LONGEST_NAME - len("..partial")
    return path.with_name(f".{path.name if fits else sha256(os.fsencode(path.name)).hexdigest()}.partial")


def _check_free(path: Path, may_replace: Callable[[Path], None] | None, /) -> None:
    """Check that there is nothing at a path, or something that may be replaced."""
    if not (path.exists() or path.is_symlink()):
        return
    if may_replace is None:
        msg = f"{path} exists already"
        raise FileExistsError(msg)
    may_replace(path)


@contextmanager
def _locked(path: Path, /, *, needed: bool) -> Iterator[None]:
    """Hold the lock of the folder in which the one at `path` is made, on systems and file systems that have locks."""
    partial = _partial(path)
    file = os.open(partial, os.O_RDONLY)
    try:
        try:
            import fcntl  # noqa: PLC0415 - not on every system

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another run may have removed the folder between its opening and its locking.
            if not os.path.samestat(os.fstat(file), partial.stat()):
                raise BlockingIOError  # noqa: TRY301 - the same to the caller as a lock that is held
        except BlockingIOError as error:
            msg = f"another run is writing {path}, in {partial}"
            raise FileExistsError(msg) from error
        except (ImportError, OSError) as error:
            if needed:
                msg = f"{partial} exists: another run is writing {path}, or was killed. If none is running, remove it"
                raise FileExistsError(msg) from error
        yield
    finally:
        os.close(file)


def _publish(folder: Path, path: Path, may_replace: Callable[[Path], None] | None, /) -> None:
    """Give a folder its name, in one step if the system can exchange it with what had that name before."""
    _check_free(path, may_replace)
    if not path.exists():
        folder.rename(path)
    elif not _exchange(folder, path):
        # If the process is killed between the next steps, `recover` finds the new one, and knows that it is whole.
        new, old = folder.with_name("new"), folder.with_name("old")
        folder.rename(new)
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise


def _exchange(first: Path, second: Path, /) -> bool:
    """Exchange two paths in one step; return whether the system can do that."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError):
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0
    number = ctypes.get_errno()
    if not done and number not in _NO_EXCHANGE:
        raise OSError(number, os.strerror(number), str(first), None, str(second))
    return done


def _remove_temporary(folder: Path, /) -> None:
    """Remove the files that a worker had begun to write when it was killed; another has written the whole ones."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(_TEMPORARY):
                Path(place, name).unlink()


def _remove(folder: Path, /) -> str:
    """Remove a folder, again where something is still written into it; return a line about it if it stays."""
    problem = ""
    for seconds in _WAITS:
        time.sleep(seconds)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return ""
        except OSError as error:
            problem = f"{folder} could not be removed: {error.strerror}"
    return problem
