"""An import of `pullback.dask` without one of its packages says what to install."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest


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
