"""The structure of the package: imports go one way, and docs/development/architecture.md names every module."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pullback"
MODULES = [path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py"))]

# What each part may import besides itself; "" is the package itself, which collects the public names.
ALLOWED: dict[str, set[str]] = {
    "_core": set(),
    "_ops": {"_core"},
    "_autodiff": {"_core", "_ops"},
    "_testing": {"_core", "_ops"},
    "dask": {"_core", "_ops"},
    "_cli": {"", "_core", "_ops", "_autodiff", "_testing", "dask"},
    "": {"_ops", "_autodiff", "_testing"},
}

# A call of `accumulate` is an operation of the tape, which only the batch's package can carry out.
EXCEPTIONS = {Path("dask/_derivative.py"): {"_autodiff"}}


def imported_parts(code: str) -> set[str]:
    """Return the parts of this package that a module imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = {name.split(".")[1] if "." in name else "" for name in names if name.split(".")[0] == "pullback"}
    return {part if part in ALLOWED else "" for part in parts}


def test_finds_imports_everywhere() -> None:
    code = "import pullback\ndef f():\n    from pullback.dask import compute\n    from pullback import _core, grad\n"
    assert imported_parts(code) == {"", "dask", "_core"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path) -> None:
    part = module.parts[0] if len(module.parts) > 1 else ""
    assert imported_parts((SOURCE / module).read_text(encoding="utf-8")) <= ALLOWED[part] | EXCEPTIONS.get(
        module, set()
    ) | {part}


def test_every_module_is_documented() -> None:
    page = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", page, flags=re.MULTILINE))
    paths = {module.as_posix() for module in MODULES}
    missing = {path for path in paths if not path.endswith("__init__.py")} - named
    assert missing == set(), "give each a row in a table of docs/development/architecture.md"
    assert named - paths == set(), "remove the rows of modules that are gone"


def test_pre_commit_has_the_pinned_version() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'"(ruff==[\d.]+)"', hooks)) == set(groups["lint"])
