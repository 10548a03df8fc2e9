"""Folders that are written under another name: at any moment the old one or the new one, whatever kills the process."""

import ctypes
import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

import pullback
from pullback.dask import _atomic
from pullback.dask._atomic import recover, whole

# Replaces `out` once for each call of the system that changes a folder, killed just before that call; prints what
# is there then, and what the next run makes of it.
KILLED = """
import ctypes, json, os, signal, sys
from pathlib import Path
import pullback
from pullback.dask import _atomic

CALLS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.dlsym"}
if sys.argv[1] == "steps":
    _atomic.ctypes.CDLL = lambda *_, **__: object()

def write(folder, text):
    folder.mkdir(exist_ok=True)
    for name in ("a", "b", "c"):
        (folder / name).write_text(text)

def read(folder):
    return sorted(path.read_text() for path in folder.iterdir()) if folder.exists() else None

def replace(kill_at):
    calls = 0

    def hook(event, _):
        nonlocal calls
        if event in CALLS:
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with _atomic.whole(out, may_replace=lambda _: None) as draft:
        write(draft.folder, "new")
    os._exit(0)

out = Path("out")
for kill_at in range(1, 100):
    write(out, "old")
    child = os.fork()
    if child == 0:
        replace(kill_at)
    _, status = os.waitpid(child, 0)
    found = read(out)
    said = _atomic.recover(out)
    print(json.dumps([status, found, said, read(out), os.listdir()]))
    if status == 0:
        break
"""


def names(folder: str = ".") -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def allow(_: Path) -> None:
    """Let anything be replaced."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(pullback.__file__).parents[1]))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("how", ["exchange", "steps"])
def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(how: str) -> None:
    process = subprocess.run(  # noqa: S603 - this test's own program
        [sys.executable, "-c", KILLED, how], check=True, capture_output=True, text=True
    )
    moments = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(moments) > 10
    assert moments[-1][0] == 0
    old, new = ["old"] * 3, ["new"] * 3
    seen = []
    for status, found, said, then, left in moments:
        assert status in {0, 9}
        assert left == ["out"]
        assert then in (old, new)
        # Without an exchange there is a moment at which it has no name, and the next run gives it that.
        assert found == then or (how == "steps" and found is None and then == new and "is the whole output" in said)
        seen.append("new" if then == new else "old")
    assert seen == sorted(seen, reverse=True)
    assert any(found is None for _, found, *_ in moments) == (how == "steps")


@pytest.mark.parametrize("old", [False, True])
def test_whole_folder_of_a_killed_run_gets_its_name(old: bool) -> None:  # noqa: FBT001 - a parameter
    for name in ["new", "old"][: 1 + old]:
        Path(".out.partial", name).mkdir(parents=True)
        Path(".out.partial", name, name).touch()
    said = f"{Path.cwd()}/out is the whole output of a run that was killed before it could give it this name"
    assert recover(Path("out")) == said
    assert (names(), names("out")) == (["out"], ["new"])


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("length", [3, 210, 246, 255])
def test_name_may_be_as_long_as_the_system_allows(length: int, replaces: bool) -> None:  # noqa: FBT001 - a parameter
    path = Path("x" * length)
    if replaces:
        path.mkdir()
        (path / "old").touch()
    with whole(path, may_replace=allow) as draft:
        (draft.folder / "new").touch()
    assert names() == [path.name]
    assert [x.name for x in path.iterdir()] == ["new"]


def test_folder_has_the_mode_and_group_that_mkdir_gives(here: Path) -> None:
    here.chmod(0o2775)
    before = os.umask(0o027)
    try:
        with whole("out"):
            pass
    finally:
        os.umask(before)
    assert Path("out").stat().st_mode & 0o7777 == 0o2750


def test_failure_leaves_nothing() -> None:
    def fail() -> None:
        with whole("out") as draft:
            (draft.folder / "a").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names() == []


@pytest.mark.parametrize("kind", ["before", "during"])
def test_replaces_nothing_that_it_may_not(kind: str) -> None:
    def run() -> None:
        with whole("out"):
            assert kind == "during"
            Path("out").write_text("precious")

    if kind == "before":
        Path("out").symlink_to("nothing")
    with pytest.raises(FileExistsError, match="out exists already"):
        run()
    assert names() == ["out"]


def test_second_run_for_one_path_stops_at_once() -> None:
    def run() -> None:
        with whole("out"):
            Path("not reached").touch()

    with whole("out") as draft:
        with pytest.raises(FileExistsError, match=r"another run is writing .*/out, in .*/\.out\.partial"):
            run()
        with pytest.raises(FileExistsError, match="another run is writing"):
            recover(Path("out"))
        assert draft.folder.exists()
    assert names() == ["out"]


def test_folder_that_is_removed_before_it_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with pytest.raises(FileExistsError, match="another run is writing"), whole("out"):
        raise AssertionError


def test_file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with whole("out"):
        pass
    Path("out").rmdir()
    Path(".out.partial").mkdir()
    with pytest.raises(
        FileExistsError, match=r"\.out\.partial exists: .* or was killed\. If none is running, remove it"
    ):
        recover(Path("out"))
    Path(".out.partial").rmdir()
    with whole("out"):
        pass
    assert names() == ["out"]


def system(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a system whose exchange fails with this error."""

    class Library:
        @staticmethod
        def renameat2(*_: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library)


def replace() -> None:
    """Replace a folder."""
    Path("out").mkdir()
    Path("out/old").touch()
    with whole("out", may_replace=allow) as draft:
        (draft.folder / "new").touch()


@pytest.mark.parametrize("lacks", ["on this file system", "at all"])
def test_system_without_exchange(lacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacks == "at all":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    else:
        system(errno.EINVAL, monkeypatch)
    replace()
    assert (names(), names("out")) == (["out"], ["new"])


def test_exchange_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    system(errno.EACCES, monkeypatch)
    with pytest.raises(PermissionError, match=r"Permission denied: .*out"):
        replace()
    assert (names(), names("out")) == (["out"], ["old"])


def test_last_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    system(errno.ENOSYS, monkeypatch)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        replace()
    assert (names(), names("out")) == (["out"], ["old"])


def test_files_that_a_killed_worker_began_do_not_stay() -> None:
    with whole("out") as draft:
        (draft.folder / "dz/c").mkdir(parents=True)
        for name in ("0", "0.1234.partial"):
            (draft.folder / "dz/c" / name).touch()
    assert names("out/dz/c") == ["0"]


def test_removes_what_is_written_while_it_removes() -> None:
    began, ended = Event(), Event()

    def write(folder: Path) -> None:
        with suppress(FileNotFoundError):
            for i in range(100):
                (folder / f"{i}").mkdir()
                began.set()
                time.sleep(0.002)
        ended.set()

    def fail() -> None:
        with whole("out") as draft:
            Thread(target=write, args=(draft.folder,)).start()
            assert began.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert ended.wait(10)
    assert names() == []


@pytest.mark.parametrize("after", ["failure", "success", "recovery"])
def test_says_what_cannot_be_removed(after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Any, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied", folder)

    def run() -> None:
        with whole("out") as draft:
            if after == "failure":
                raise KeyboardInterrupt
        assert draft.left == said

    monkeypatch.setattr(_atomic, "_WAITS", (0, 0))
    said = f"{Path.cwd()}/.out.partial could not be removed: Permission denied"
    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", fail)
        if after == "failure":
            with pytest.raises(KeyboardInterrupt) as caught:
                run()
            assert caught.value.__notes__ == [said]
        elif after == "success":
            run()
        else:
            Path(".out.partial").mkdir()
            assert recover(Path("out")) == said
    assert ".out.partial" in names()
    assert recover(Path("out")) == f"removed {Path.cwd()}/.out.partial, which a killed run had left"
    assert recover(Path("out")) == ""
