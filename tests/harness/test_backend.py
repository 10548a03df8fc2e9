"""The files in backends/, each of which a session, the fixtures and the support table are made from."""

import sys
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

from pullback._cli.backends import known, label, look
from tests.harness import backend as reading
from tests.harness.backend import FOLDER, Backend, deviations, load

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
        assert {"test", "reason", "issue"} <= set(deviation) <= {"test", "reason", "issue", "until"}
    gpu = file.get("gpu", {"device": "", "requires": []})
    assert isinstance(gpu["device"], str)
    assert all(isinstance(x, str) for x in gpu["requires"])
    for table in (file, gpu):
        assert all(isinstance(x, str) for x in table.get("environment", {}).values())


def test_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deviation is one on each device, if its test is not that of another one, and in versions until it is mended."""
    known = [
        {"test": "x[jax-plain-CpuDevice(id=0)-old]", "until": "0.11"},
        {"test": "x[jax-plain-CpuDevice(id=0)-kept]"},
        {"test": "x[jax-plain-CudaDevice(id=0)-there]"},
    ]
    file = {**FILES["jax"], "deviations": known}
    monkeypatch.setattr(reading, "_read", lambda _: file)
    for version, found in (("0.9.2", ["old", "kept", "there"]), ("0.11.0", ["kept", "there"])):
        monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(__version__=version))
        for device in ("CpuDevice(id=0)", "CudaDevice(id=0)"):
            ids = [x["test"].removeprefix("x[jax-plain-") for x in deviations("jax", device)]
            assert ids[:-1] == [f"{device}-{name}]" for name in found[:-1]]
            assert ids[-1] == "CudaDevice(id=0)-there]"


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
