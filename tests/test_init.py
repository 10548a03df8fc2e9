"""The public names, and what importing them imports."""

import subprocess
import sys

import pullback

LIBRARIES = {"array_api_strict", "cupy", "dask", "jax", "ndonnx", "numpy", "sparse", "torch"}


def test_names() -> None:
    """`__all__`, which Ruff keeps sorted, is exactly what the package defines beside its modules."""
    assert len(pullback.__all__) == len(set(pullback.__all__))
    public = {x for x in vars(pullback) if not x.startswith("_")}
    modules = {x for x in public if f"pullback.{x}" in sys.modules}
    assert public - modules == set(pullback.__all__)
    for name in pullback.__all__:
        assert getattr(pullback, name).__doc__


def test_import_of_no_array_library() -> None:
    program = "import sys, pullback; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    assert "pullback._ops.affine" in modules
    assert LIBRARIES & set(modules) == set()
