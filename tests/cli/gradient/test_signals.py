"""Signals: the command ends, says what is at its output, and leaves nothing behind but after SIGKILL."""

import json
import pkgutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pullback._cli.gradient.command
import pullback.dask
from pullback._cli.signals import Signals
from tests.harness.gradient_command import FILL, check, fault, finish, gradient, left, ones, save, start

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def start_long(here: Path, *more: str) -> subprocess.Popen[str]:
    """Start a run that takes a while and no room, and wait until it writes."""
    ones("z.zarr", (20_000_000, 64), (10_000, 64))
    ones("da.zarr", (20_000_000, 8), (10_000, 8))
    np.save("w.npy", np.ones((64, 8), "f4"))
    process = start(FILL, "--block-rows", "100000", *more, z="z.zarr", upstream="da.zarr")
    while not list(here.glob(".out.zarr.partial/*/dz/c/*")):
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("number", ENDING)
def test_signal(number: signal.Signals, overwrite: bool, here: Path) -> None:  # noqa: FBT001 - a parameter
    if overwrite:
        save()
        assert gradient().status == 0
    process = start_long(here, *["--overwrite"] * overwrite)
    process.send_signal(number)
    fate = "is as it was" if overwrite else "was not written"
    fault(finish(process), 128 + number, f"interrupted. out.zarr {fate}: run the command again")
    assert left() == {"z.zarr", "da.zarr"} | ({"out.zarr"} if overwrite else set())
    if overwrite:
        made = json.loads(Path("out.zarr/zarr.json").read_text())["attributes"]["inputs"]["z"]
        assert made["shape"] == [1_000, 7]


@pytest.mark.slow
def test_next_run_removes_what_a_killed_one_left(here: Path) -> None:
    process = start_long(here)
    process.kill()
    finish(process)
    assert left() == {"z.zarr", "da.zarr", ".out.zarr.partial"}
    save()
    result = gradient()
    line = f"pullback gradient: removed {here}/.out.zarr.partial, which a killed run had left\n"
    assert (result.status, result.stderr) == (0, line)
    check("dz", "dw", "db")
    assert left() == {"z.zarr", "da.zarr", "out.zarr"}


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that has a signal sent when a function is called for the first time."""
    sent: list[signal.Signals] = []

    def send(number: signal.Signals, name: str) -> None:
        original = pkgutil.resolve_name(name)

        def call(*args: Any, **options: Any) -> Any:
            if not sent:
                sent.append(number)
                signal.raise_signal(number)
            return original(*args, **options)

        monkeypatch.setattr(name, call)

    yield send
    assert sent


@pytest.mark.parametrize("number", ENDING)
def test_signal_while_the_command_plans(number: signal.Signals, raised: Any) -> None:
    save()
    raised(number, "pullback._cli.gradient.plan.open_file")
    fault(gradient(), 128 + number, "pullback gradient: interrupted")
    assert left() == set()


@pytest.mark.parametrize("number", ENDING)
def test_signal_before_the_command_plans(number: signal.Signals, raised: Any) -> None:
    save()
    raised(number, "pullback._cli.gradient.command.run")
    fault(gradient(), 128 + number, "pullback gradient: interrupted")


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("place", ["run.compute", "run.zarr.create_group"])
def test_signal_while_the_command_works(number: signal.Signals, place: str, raised: Any) -> None:
    save()
    raised(number, f"pullback._cli.gradient.{place}")
    fault(gradient(), 128 + number, "interrupted. out.zarr was not written: run the command again")
    assert left() == set()


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("place", ["shutil.rmtree", "pullback.dask._atomic._publish"])
def test_signal_when_the_work_is_done(number: signal.Signals, place: str, raised: Any) -> None:
    save()
    assert gradient().status == 0
    save(n=5)
    raised(number, place)
    assert gradient("--overwrite").status == 0
    check("dz", "dw", "db")
    assert left() == {"out.zarr"}


def test_second_signal_does_not_interrupt_the_cleaning(raised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    raised(signal.SIGTERM, "pullback._cli.gradient.run.compute")
    remove = pullback.dask._atomic._remove  # noqa: SLF001

    def interrupted(folder: Path) -> Any:
        signal.raise_signal(signal.SIGINT)
        return remove(folder)

    monkeypatch.setattr(pullback.dask._atomic, "_remove", interrupted)  # noqa: SLF001
    fault(gradient(), 143, "interrupted. out.zarr was not written")
    assert left() == set()


def test_says_what_stays_after_a_signal(raised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save()
    raised(signal.SIGTERM, "pullback._cli.gradient.run.compute")
    monkeypatch.setattr(pullback.dask._atomic, "_remove", lambda folder: f"{folder} could not be removed: busy")  # noqa: SLF001
    stays = f"{Path.cwd()}/.out.zarr.partial could not be removed: busy"
    fault(gradient(), 143, f"interrupted; {stays}. out.zarr was not written: run the command again")


def test_signal_that_is_ignored_stays_ignored(raised: Any) -> None:
    save()
    raised(signal.SIGHUP, "pullback._cli.gradient.run.compute")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert gradient().status == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with Signals():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before


def test_signals_belong_to_the_main_thread() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with Signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
