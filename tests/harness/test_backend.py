"""The files in backends/, each of which a session, the fixtures and the support table are made from."""

import tomllib

import numpy as np
import pytest

from pullback._cli.backends import known, label, look
from tests.harness.backend import FOLDER, Backend, load

FILES = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.toml"))}
MODES = {"plain", "read-only", "strictest", "one chunk", "many chunks", "unknown rows", "jit", "compile"}
MODES |= {"50 digits", "bounded memory"}


@pytest.mark.parametrize("name", FILES)
def test_file(name: str) -> None:
    file = FILES[name]
    assert all(isinstance(file[key], str) for key in ("title", "import", "tested"))
    assert isinstance(file["lazy"], bool)
    for key in ("requires", "python", "tags", "devices", "dtypes", "modes"):
        assert file[key], f"{key} of {name}"
        assert all(isinstance(x, str) for x in file[key]), f"{key} of {name}"
    assert set(file["tags"]) <= {"cpu", "gpu", "sycl"}
    tests = file.get("tests", "core")
    assert tests == "core" or all((FOLDER.parent / test.partition("::")[0]).is_file() for test in tests)
    modes = [*file["modes"], *file.get("brief_modes", [])]
    assert set(modes) <= MODES
    assert len(set(modes)) == len(modes)
    assert file.get("rules_mode", modes[0]) in modes
    assert all("==" in x for x in file.get("pinned", [])), "an exact version"
    for deviation in file.get("deviations", []):
        assert set(deviation) == {"test", "reason", "issue"}
    assert all(isinstance(x, str) for x in file.get("environment", {}).values())


def test_unknown_backend() -> None:
    with pytest.raises(pytest.UsageError, match=r"there is no backends/none\.toml; the backends are .*numpy"):
        load("none")


def test_backend_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, not a skip."""
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(pytest.UsageError, match=r"--backend cupy: cupy cannot be used here: .* Install \['cupy-cuda"):
        load("cupy")


def test_command_lists_it(backend_one_mode: Backend) -> None:
    """`pullback backends` finds that it works, on the device that the tests use, and knows its version."""
    state = look(next(x for x in known().values() if x.module == FILES[backend_one_mode.library]["import"]))
    assert state.problem == ""
    assert label(backend_one_mode.device) in state.devices
    assert state.version[0].isdigit()


def test_round_trip(backend: Backend, dtype: str) -> None:
    """What goes to the device comes back: rows of unknown number and every layout and device."""
    x = np.arange(24.0).reshape(4, 2, 3)
    for put in (backend.asarray, backend.rows):
        assert np.array_equal(backend.numpy(put(x, dtype)), x)
        assert put(x, dtype).dtype == backend.dtype(dtype)
