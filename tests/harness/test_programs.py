"""A program that is run in a forked process does what it does by itself."""

import sys
from pathlib import Path

import pytest

from tests.harness.programs import run


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program.py"


def test_output_is_returned(program: Path) -> None:
    program.write_text("import os\nprint(__name__, __file__, flush=True)\nos.write(1, b'in order')")
    assert run(program) == f"__main__ {program}\nin order"


def test_nothing_stays_for_the_next_program(program: Path) -> None:
    for _ in range(2):
        program.write_text("import sys\nassert not hasattr(sys, 'left')\nsys.left = x = 1")
        assert run(program) == ""
    assert not hasattr(sys, "left")


def test_names_must_be_imported(program: Path) -> None:
    program.write_text("np.ones(3)")
    with pytest.raises(AssertionError, match="NameError: name 'np' is not defined"):
        run(program)


def test_warning_is_an_error(program: Path) -> None:
    program.write_text("import warnings\nwarnings.warn('odd')")
    with pytest.raises(AssertionError, match="UserWarning: odd"):
        run(program)


def test_variable_is_set_before_scipy_is_imported(program: Path) -> None:
    code = "import os\nos.environ['SCIPY_ARRAY_API'] = '1'\nfrom scipy._lib._array_api import SCIPY_ARRAY_API\n"
    program.write_text(f"{code}print(SCIPY_ARRAY_API)")
    assert run(program) in {"1\n", "True\n"}
