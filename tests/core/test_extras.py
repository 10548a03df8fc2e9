"""Installation hints name packages that exist before a release, those of the extras."""

import tomllib
from pathlib import Path

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
