"""The packages of each extra, and the command that installs them, which works before a release too."""

EXTRAS: dict[str, tuple[str, ...]] = {
    "cli": ("typer>=0.15", "rich>=13.7"),
    "demo": ("numpy>=2.1", "scikit-learn>=1.6"),
    "dask": ("dask[array]>=2025.1", "numpy>=2.1", "rich>=13.7", "threadpoolctl>=3.6", "zarr>=3.0.8"),
    "fit": ("scipy>=1.15",),
    "cluster": ("distributed>=2025.1",),
}
"""As in pyproject.toml, without the extras that an extra includes."""


def not_installed(module: str | None, *extras: str) -> str:
    """Say that a module is not installed, and how to install the packages of the extras that need it."""
    packages = dict.fromkeys(package for extra in extras for package in EXTRAS[extra])
    words = " ".join(f'"{package}"' for package in packages)
    return f"{module} is not installed; get it with: pip install {words}"
