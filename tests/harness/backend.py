"""An array library in one of its modes and on one of its devices, as backends/<name>.toml lists them."""

import functools
import importlib
import os
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from array_api_compat import array_namespace, to_device
from packaging.version import Version

from pullback._cli.backends import label

FOLDER = Path(__file__).parents[2] / "backends"

# These modes compile each function for each shape, which takes far longer than the product.
TRACED = ("jit", "compile")
# The dtypes that all libraries and devices have: what brief modes and a library's second device get.
FEW = ("float32", "complex64")


@dataclass(frozen=True)
class Backend:
    """Makes arrays, calls functions and reads results the way that one mode of one library needs."""

    library: str
    xp: Any
    mode: str
    device: Any
    device_name: str
    lazy: bool
    dtypes: tuple[str, ...]
    brief: bool  # whether the fixture `backend` alone brings it: a brief mode, or a device after the first
    rules: bool  # whether derivative rules are tested here

    def __str__(self) -> str:
        """Name the backend as the tests' ids do."""
        return f"{self.library}-{self.mode}-{self.device_name}"

    @property
    def real(self) -> str:
        """The widest real dtype under test."""
        return "float64" if "float64" in self.dtypes else "float32"

    @property
    def complex(self) -> str:
        """The widest complex dtype under test."""
        return "complex128" if "complex128" in self.dtypes else "complex64"

    @property
    def rounding_of_shapes(self) -> float:
        """Return the rtol between a sum of a few terms in two shapes: on a GPU, JAX compiles an order for each."""
        exact = self.library != "jax" or self.device_name.startswith("Cpu")
        return 0.0 if exact else 8 * float(np.finfo(self.real).eps)

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Put a NumPy array on the device, laid out in the mode's way; float64 becomes the widest dtype under test."""
        return _LAYOUTS.get(self.mode, _as_it_is)(self._move(x, dtype))

    def blocks(self, x: Any, dtype: str | None = None) -> Any:
        """Put a long array on the device; where there are chunks, in some of a usual length and not thousands."""
        out = self._move(x, dtype)
        return _chunks(1024, -1, out) if hasattr(out, "rechunk") else out

    def _move(self, x: Any, dtype: str | None) -> Any:
        x = np.asarray(x)
        dtype = dtype or {"float64": self.real, "complex128": self.complex}.get(x.dtype.name, x.dtype.name)
        if dtype == "bfloat16":  # which NumPy does not have
            return self.xp.astype(self._move(x, "float32"), self.xp.bfloat16)
        if self.library == "jax":  # its `asarray` compiles two functions for each shape
            return importlib.import_module("jax").device_put(x.astype(dtype), self.device)
        options = _OPTIONS.get(self.mode, dict)()
        return self.xp.asarray(x.astype(dtype), device=self.device, **options)

    def rows(self, x: Any, dtype: str | None = None) -> Any:
        """Put an array on the device whose first axis may be of unknown size: a batch of rows, as a filter leaves."""
        x = np.asarray(x)
        if self.mode != "unknown rows" or x.ndim == 0:
            return self.asarray(x, dtype)
        # Rows to be filtered out, with a block of their own: the first block has no rows at all.
        junk = np.full((3, *x.shape[1:]), 99, dtype=x.dtype)
        padded = self.asarray(np.concatenate([junk, x]), dtype)
        return padded[self.asarray(np.arange(len(x) + 3) >= 3)]

    def dtype(self, name: str) -> Any:
        """Return a dtype of the library; the standard does not name those narrower than float32."""
        return getattr(self.xp, name, None) or np.dtype(name)

    def numpy(self, x: Any) -> Any:
        """Compute an array, or the arrays of a tuple, and copy them to NumPy; dtypes that NumPy lacks as float32."""
        if x is None:
            return None
        if isinstance(x, tuple):
            if self.library == "dask":  # what several arrays need is computed once
                x = importlib.import_module("dask").compute(*x, scheduler="synchronous")
            return tuple(map(self.numpy, x))
        if hasattr(x, "compute"):
            x = x.compute(scheduler="synchronous") if hasattr(x, "dask") else x.compute()
        for copy in _COPIES:
            if hasattr(x, copy):
                return np.asarray(getattr(x, copy)())
        if isinstance(getattr(x, "_data", None), np.ndarray):  # mparray's numbers, here rounded to their dtype
            return np.asarray(x._data.tolist(), dtype=x.dtype)  # noqa: SLF001 - there is no other way to NumPy
        if hasattr(x, "resolve_conj"):  # PyTorch conjugates lazily
            x = x.resolve_conj()
        xp = array_namespace(x)
        if "bfloat16" in str(x.dtype):
            x = xp.astype(x, xp.float32)
        host = xp.__array_namespace_info__().default_device()
        return np.asarray(x if host is None else to_device(x, host))

    def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Call a function as the mode asks; a lazy array that it computes is an error."""
        with _GUARDS.get(self.mode, nullcontext)():
            return _CALLS.get(self.mode, partial)(function, **options)(*args)


def load(name: str, device: str | None = None) -> list[Backend]:
    """Return the backends of one TOML file: the library in each mode, on each of its devices or on that of a name."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
        msg = f"--backend {name}: there is no backends/{name}.toml; the backends are {known}"
        raise pytest.UsageError(msg)
    spec = _read(name)
    gpu = spec.get("gpu", {})
    more = gpu.get("environment", {}) if device and device == gpu.get("device") else {}
    for variable, value in {**spec.get("environment", {}), **more}.items():
        os.environ.setdefault(variable, value.format(prefix=sys.prefix))
    try:
        with warnings.catch_warnings():
            # array-api-compat asks PyTorch for each device type that it ever had, some of them deprecated.
            warnings.filterwarnings("ignore", message=".* is no longer used as device type", category=UserWarning)
            library = importlib.import_module(spec["import"])
            xp = array_namespace(library.empty(0))
            devices = xp.__array_namespace_info__().devices()
    except Exception as error:
        msg = f"--backend {name}: {spec['import']} cannot be used here: {error!r}. Install {spec['requires']}"
        raise pytest.UsageError(msg) from error
    for mode in _STARTS.keys() & spec["modes"]:
        _STARTS[mode]()
    modes = {mode: mode in spec.get("brief_modes", []) for mode in [*spec["modes"], *spec.get("brief_modes", [])]}
    rules_mode = spec.get("rules_mode", spec["modes"][0])
    places = [device] if device else spec["devices"]
    return [
        Backend(
            library=name,
            xp=xp,
            mode=mode,
            device=_device(devices, wanted),
            device_name=wanted,
            lazy=spec["lazy"],
            dtypes=FEW if (brief and mode != rules_mode) or i > 0 else tuple(spec["dtypes"]),
            brief=brief or i > 0,
            rules=mode == rules_mode and i == 0,
        )
        for mode, brief in modes.items()
        for i, wanted in enumerate(places[:1] if brief else places)
    ]


def sampled(cases: Iterable[Any], every: int = 4) -> list[Any]:
    """Return parameters: NumPy and array-api-strict get all cases, libraries that are slow to call each fourth.

    It is for what the library under test does not decide, such as second orders of a rule or shapes of a product.
    """
    everywhere, references = (), (pytest.mark.backends("numpy", "strict"),)
    return [pytest.param(case, marks=references if i % every else everywhere) for i, case in enumerate(cases)]


def deviations(name: str, device: str | None = None) -> list[dict[str, str]]:
    """Return the known deviations of a backend: a part of a test's id, the reason and the upstream issue of each."""
    spec = _read(name)
    first, version = spec["devices"][0], sys.modules[spec["import"].partition(".")[0]].__version__
    known = (x for x in spec.get("deviations", []) if "until" not in x or Version(version) < Version(x["until"]))
    return [{**x, "test": x["test"].replace(f"-{first}-", f"-{device or first}-")} for x in known]


def slow_to_call(name: str) -> bool:
    """Whether tests on a backend run a sample of the combinations of their parameters."""
    return bool(_read(name).get("slow_to_call", False))


def dtypes_alone(name: str) -> tuple[str, ...]:
    """Return the paths of the tests of which a backend runs those of dtypes alone."""
    return tuple(_read(name).get("dtypes_alone", ()))


def measured(name: str) -> tuple[str, ...]:
    """Return the paths of the tests whose coverage is measured on a backend, all unless it names some."""
    return tuple(_read(name).get("measured", [""]))


@functools.cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def _device(devices: Any, wanted: str) -> Any:
    """Find a device by its name or repr: ``cpu``, ``CpuDevice(id=1)``, or what is quoted in ``Device('device1')``."""
    for device in devices:
        if wanted in {str(device), repr(device), label(device)}:
            return device
    msg = f"there is no device {wanted!r}; the devices are {devices}"
    raise pytest.UsageError(msg)


def _fifty_digits() -> None:
    importlib.import_module("mpmath").mp.dps = 50


# What a mode needs before the first array is made.
_STARTS: dict[str, Callable[[], None]] = {"50 digits": _fifty_digits}


@functools.cache
def _limits() -> dict[str, Any]:
    """Return a memory limit that is not Cubed's default: constants must come with the limit of the arrays."""
    return {"spec": importlib.import_module("cubed").Spec(allowed_mem="300MB", executor_name="single-threaded")}


# What else creates an array in a mode.
_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {"bounded memory": _limits}


def _as_it_is(x: Any) -> Any:
    return x


def _read_only(x: Any) -> Any:
    x.flags.writeable = False
    return x


def _chunks(rows: int, other: int, x: Any) -> Any:
    return x.rechunk((rows, *(other,) * (x.ndim - 1))[: x.ndim])


_LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "read-only": _read_only,
    "one chunk": partial(_chunks, -1, -1),
    "many chunks": partial(_chunks, 3, 2),
    "unknown rows": partial(_chunks, 3, -1),
}


# The methods that copy an array to NumPy where `numpy.asarray` does not: CuPy's, ndonnx's, dpnp's and pydata/sparse's.
_COPIES = ("get", "unwrap_numpy", "asnumpy", "todense")


@functools.cache
def _jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    out: Callable[..., Any] = importlib.import_module("jax").jit(partial(function, **options))
    return out


@functools.cache
def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch = importlib.import_module("torch")
    compiled = torch.compile(partial(function, **options), fullgraph=True, dynamic=False, backend="eager")

    def call(*args: Any) -> Any:
        with warnings.catch_warnings(), torch._dynamo.config.patch(recompile_limit=1000):  # noqa: SLF001
            # array-api-compat caches array_namespace by type, which Dynamo traces through and says so.
            warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
            return compiled(*args)

    return call


_CALLS: dict[str, Callable[..., Callable[..., Any]]] = {"jit": _jit, "compile": _compile}


@contextmanager
def _nothing_computes() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        msg = "a lazy array was computed inside a pair"
        raise AssertionError(msg)

    with importlib.import_module("dask").config.set(scheduler=refuse):
        yield


@contextmanager
def _nothing_is_planned() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> None:
        msg = "a lazy array was computed inside a pair"
        raise AssertionError(msg)

    with patch("cubed.core.plan.FinalizedPlan.execute", refuse):
        yield


def _strictest_flags() -> AbstractContextManager[None]:
    flags = importlib.import_module("array_api_strict").ArrayAPIStrictFlags
    out: AbstractContextManager[None] = flags(
        boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )
    return out


_GUARDS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "strictest": _strictest_flags,
    "one chunk": _nothing_computes,
    "many chunks": _nothing_computes,
    "unknown rows": _nothing_computes,
    "bounded memory": _nothing_is_planned,
}
