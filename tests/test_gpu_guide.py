"""The blocks of the guide on GPUs that need one: run where the tests run on CuPy, which documentation builds do not."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_api_compat import is_cupy_array

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "gpu.md"
BLOCK = re.compile(r"```\{code-block\} python\n:caption: Needs a GPU\n\n(.*?)```", re.DOTALL)


def test_blocks_are_found() -> None:
    assert len(BLOCK.findall(GUIDE.read_text())) == 2


@pytest.mark.backends("cupy")
def test_training_loop(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(BLOCK.findall(GUIDE.read_text())[0], names)  # noqa: S102 - the page of this repository
    assert is_cupy_array(names["w"])
    assert 0 < float(capsys.readouterr().out) < np.log(2)


@pytest.mark.backends("cupy")
def test_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr  # noqa: PLC0415 - not installed where other libraries are tested

    from pullback.dask import compute  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    z, upstream = np.ones((1_000, 256)), np.full((1_000, 10), 0.5)
    for name, x in (("z.zarr", z), ("da.zarr", upstream)):
        zarr.create_array(name, data=x, chunks=(300, x.shape[1]))
    names: dict[str, Any] = {}
    exec(BLOCK.findall(GUIDE.read_text())[1], names)  # noqa: S102
    dw, db = names["dw"], names["db"]
    assert is_cupy_array(dw)
    assert is_cupy_array(db)
    assert np.array_equal(dw.get(), np.full((256, 10), 500.0))
    assert np.array_equal(db.get(), np.full(10, 500.0))
    assert np.array_equal(compute(names["dz"])[0].get(), np.full((1_000, 256), 5.0))
