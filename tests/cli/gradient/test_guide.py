"""The guide's commands run as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from pullback._cli import app
from tests.harness.gradient_command import save, to_zarr

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "large-batches.md"
COMMANDS = re.findall(r"^```console\n(pullback .*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str) -> None:
    save()
    for name in ("z", "da"):
        to_zarr(name)
    np.save("y.npy", np.arange(1_000) % 3)
    np.save("b.npy", np.zeros(3, "f4"))
    zarr.create_group("gradients.zarr", attributes={"made_by": "pullback gradient"})
    name, *arguments = shlex.split(command.replace("\\\n", ""))
    more = [] if "--overwrite" in arguments else ["--overwrite"]
    result = CliRunner().invoke(app.application(), [*arguments, *more], prog_name=name)
    assert (result.exit_code, result.stderr) == (0, "")
