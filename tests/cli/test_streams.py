"""Streams that take nothing or little: a full disk, a closed pipe, a terminal that has ASCII only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pullback
from pullback._cli import app
from tests.harness.gradient_command import arguments, check, save

MAIN = "from pullback._cli.app import main; main()"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(pullback.__file__).parents[1]))
    monkeypatch.setenv("COLUMNS", "80")
    save()


def run(*options: str, stdout: int = subprocess.PIPE, **environment: str) -> tuple[int, str, str]:
    process = subprocess.run(  # noqa: S603 - the command
        [sys.executable, "-c", MAIN, *options],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize(
    "options", [["--help"], ["--version"], ["gradient", "--help"], arguments("--plan")], ids=" ".join
)
def test_full_disk(options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        status, _, stderr = run(*options, stdout=full.fileno())
    assert status == 1
    assert stderr.startswith("pullback")
    assert stderr.endswith("No space left on device\n")
    assert stderr.count("\n") == 1


def test_full_disk_when_the_work_is_done(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["pullback", *arguments()])
        with pytest.raises(SystemExit) as caught:
            app.main()
    assert caught.value.code == 0
    line = "out.zarr now holds dz, dw, db; standard output cannot be written: No space left on device"
    assert capfd.readouterr().err == f"pullback gradient: {line}\n"
    check("dz", "dw", "db")


def test_full_disk_in_this_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["pullback", "--version"])
        with pytest.raises(SystemExit) as caught:
            app.main()
    assert caught.value.code == 1
    assert capfd.readouterr().err == "pullback: No space left on device\n"


def test_closed_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    status, _, stderr = run(*arguments(), stdout=writing)
    os.close(writing)
    line = "out.zarr now holds dz, dw, db; standard output cannot be written: Broken pipe"
    assert (status, stderr) == (0, f"pullback gradient: {line}\n")


@pytest.mark.parametrize(
    "options", [["gradient", "--help"], arguments("--plan"), arguments("--z", "ζ.npy")], ids=" ".join
)
def test_terminal_of_ascii(options: list[str]) -> None:
    status, stdout, stderr = run(*options, PYTHONIOENCODING="ascii")
    assert status == (2 if "ζ.npy" in options else 0)
    assert (stdout + stderr).isascii()
    assert "Traceback" not in stderr
    assert (r"\u03b6.npy does not exist" in stderr) == ("ζ.npy" in options)


def test_interrupted_at_the_start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "application", interrupt)
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 130
    assert capfd.readouterr().err == "pullback: interrupted\n"


@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_IGN"])
@pytest.mark.parametrize("module", ["pullback", "pullback._cli.app", "typer"])
def test_interrupted_while_the_command_is_imported(module: str, handler: str) -> None:
    code = f"""if True:
        import signal, sys
        class Interrupt:
            def find_spec(name, *_):
                if name == {module!r}:
                    signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.{handler})
        from pullback_command import main
        sys.meta_path.insert(0, Interrupt)
        main()
    """
    process = subprocess.run(  # noqa: S603 - the command
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False
    )
    version = f"pullback {pullback.__version__}\n"
    expected = (0, version, "") if handler == "SIG_IGN" else (130, "", "pullback: interrupted\n")
    assert (process.returncode, process.stdout, process.stderr) == expected
