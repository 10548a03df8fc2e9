"""Code blocks of the README and of docs/ run, the support table says what backends/ says, CI runs the test command."""

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.harness.programs import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "node_modules" not in page.parts),
]


def blocks(page: str, language: str) -> list[str]:
    """Return a page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def examples(page: str) -> list[tuple[str, str]]:
    """Return a page's blocks of Python, each with the output that is shown below it."""
    pattern = r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?"
    return re.findall(pattern, page, flags=re.DOTALL | re.MULTILINE)


def test_commands(tmp_path: Path) -> None:
    """First in this file: it takes as long as all others together."""
    install, demo, nox = (block.strip() for block in blocks(README, "console"))
    assert demo.startswith("python3 -m venv .venv && ")
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == nox
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)  # noqa: S603, S607
    printed = subprocess.run(demo, shell=True, check=True, cwd=checkout, capture_output=True, text=True).stdout  # noqa: S602
    assert "numpy" in printed
    assert "dask" in printed
    assert install.startswith("pip install . ")
    subprocess.run(f".venv/bin/{install}", shell=True, check=True, cwd=checkout)  # noqa: S602


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        pytest.param(code, shown, id=f"{page.stem}-{i}")
        for page in PAGES
        for i, (code, shown) in enumerate(examples(page.read_text()))
    ],
)
def test_python_block(code: str, shown: str, tmp_path: Path) -> None:
    # A file and not -c: a cluster's processes import it.
    file = tmp_path / "block.py"
    file.write_text(code)
    printed = run(file)
    assert not shown or printed == shown


def test_first_example_runs_on_dask(tmp_path: Path) -> None:
    """Another import is all that the first lines need on another library, and they print the same number."""
    code, shown = examples(README)[0]
    assert code.startswith("import numpy as xp\n")
    test_python_block(code.replace("import numpy as xp", "import dask.array as xp"), shown, tmp_path)


def test_every_guide_is_reachable() -> None:
    guides = {f"docs/guides/{page.name}" for page in (ROOT / "docs" / "guides").glob("*.md")}
    assert guides <= set(re.findall(r"\]\(([^)#]+)", README))


def test_links_have_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if not link.startswith("https:")]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_picture_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    readme, saved = map(importlib.import_module, ("readme", "saved"))
    drawn = readme.PICTURE.read_text(encoding="utf-8")
    assert drawn.startswith(readme.comment(saved.read("accuracy 64 x 64"))), "python docs/extensions/readme.py draws it"


def test_support_table() -> None:
    rows = [tomllib.loads(path.read_text()) for path in sorted((ROOT / "backends").glob("*.toml"))]
    table = [
        f"| {row['title']} | `{row['import']}` | `{', '.join(row['requires'])}` | {row['tested']} |" for row in rows
    ]
    assert README.split("|---|---|---|---|\n")[1].split("\n\n")[0].splitlines() == table


def test_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    readme = importlib.import_module("benchmarks.readme")
    written = README.partition(readme.BEGIN)[2].partition(readme.END)[0].strip().splitlines()
    assert written == readme.lines(), "python -m benchmarks.readme writes what benchmarks/results says"
