"""The array libraries that the project answers for, read from backends/, and which of them work here."""

import sys
import tomllib
import warnings
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from array_api_compat import array_namespace

from pullback._core.typing import Namespace
from pullback._ops.affine import affine_forward


class Backend(NamedTuple):
    """One file of backends/, as far as a user is concerned."""

    name: str
    """Name of the package, as pip knows it."""
    module: str
    requires: list[str]
    unasked: bool = True
    """Whether `demo` and `check` run on it without `--backend`."""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return " ".join(["pip install", *(f'"{requirement}"' for requirement in self.requires)])


class State(NamedTuple):
    """What a backend is like on this machine; `namespace` and `devices` only where it works, else `problem`."""

    version: str
    namespace: Namespace = None
    devices: tuple[str, ...] = ()
    problem: str = ""


def known() -> dict[str, Backend]:
    """Return every backend by name: from the package's data where it is installed, from the root of a checkout."""
    here = Path(__file__).parents[1]
    folder = next(path for path in (here / "backends", here.parents[1] / "backends") if path.is_dir())
    backends = {}
    for path in folder.glob("*.toml"):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        name = table["import"].partition(".")[0].replace("_", "-")
        backends[name] = Backend(name, table["import"], table["requires"], "tests" not in table)
    return dict(sorted(backends.items()))


def look(backend: Backend, /) -> State:
    """Import a backend and multiply with it: a library that imports may still have no device to work on."""
    top = backend.module.partition(".")[0]
    version = "unknown"
    # What a library has to say while it starts is no news to whoever asked whether it works.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = import_module(backend.module)
            # Of the module that answered, and not of a distribution: CuPy comes in one for each CUDA version.
            version = getattr(sys.modules[top], "__version__", version)
            one = module.asarray([[1.0]], dtype=module.float32)
            float(affine_forward(one, one, one[0, :])[0, 0])
            xp = array_namespace(one)
            devices = tuple(map(label, filter(_is_device, xp.__array_namespace_info__().devices())))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is the answer
            if isinstance(error, ModuleNotFoundError) and error.name == top:
                return State("not installed", problem=f"not installed; get it with: {backend.install}")
            reason = " ".join(str(error).split())
            return State(version, problem=f"not usable: {type(error).__name__}: {reason}")
    return State(version, xp, devices)


def _is_device(device: object, /) -> bool:
    """Whether it is a device: JAX lists None for its choice, and array_api_compat for Dask the place of lazy arrays."""
    return device is not None and label(device) != "DASK_DEVICE"


def label(device: object, /) -> str:
    """Return a device's name in short: ``CPU_DEVICE`` of ``array_api_strict.Device('CPU_DEVICE')``.

    A device that has no name, as a library's only one, is ``default``. A device of SYCL has its filter string.
    """
    if type(device).__repr__ is object.__repr__:
        return "default"
    return str(getattr(device, "filter_string", device)).split("'")[-2:][0]
