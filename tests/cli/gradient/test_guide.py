"""The guide's commands run as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from pullback._cli import app
from tests.harness.gradient_command import save, to_zarr

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "large-batches.md"
BLOCKS = re.findall(r"^```console\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "pullback " in block])
def test_command(block: str) -> None:
    save()
    for name in ("z", "da"):
        to_zarr(name)
    np.save("y.npy", np.arange(1_000) % 3)
    np.save("b.npy", np.zeros(3, "f4"))
    zarr.create_group("gradients.zarr", attributes={"made_by": "pullback gradient"})
    *before, (name, *arguments) = (shlex.split(line, comments=True) for line in block.replace("\\\n", "").splitlines())
    for line in before:
        assert line[0] == "python"
        subprocess.run([sys.executable, *line[1:]], check=True)  # noqa: S603 - the guide's line
    more = [] if "--overwrite" in arguments else ["--overwrite"]
    result = CliRunner().invoke(app.application(), [*arguments, *more], prog_name=name)
    assert (result.exit_code, result.stderr) == (0, "")
