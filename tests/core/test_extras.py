"""The hints of what to install name packages that can be had, and are those of the extras."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from pullback._core.extras import EXTRAS, not_installed


def test_packages_are_those_of_the_extras() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extra, packages in EXTRAS.items():
        listed = project["optional-dependencies"][extra]
        assert list(packages) == [package for package in listed if not package.startswith("pullback[")]


def test_hint_names_each_package_once() -> None:
    line = not_installed("mine", "demo", "dask")
    assert line.startswith(
        'mine is not installed; get it with: pip install "numpy>=2.1" "scikit-learn>=1.6" "dask[array]'
    )
    assert line.count("numpy") == 1


@pytest.mark.parametrize("name", ["dask", "threadpoolctl"])
def test_import_of_pullback_dask_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(module: str, *_: object) -> None:
        if module == name:
            msg = f"No module named {name!r}"
            raise ModuleNotFoundError(msg, name=name)

    for module in list(sys.modules):
        if module.partition(".")[0] == name or module.startswith("pullback.dask"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    message = rf'^pullback.dask: {name} is not installed; get it with: pip install "dask\[array\]>=2025.1" "numpy'
    with pytest.raises(ModuleNotFoundError, match=message):
        import_module("pullback.dask")
