"""Draw the pictures of the examples, by running them: ``python docs/extensions/pictures.py`` runs all."""

import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def picture(script: Path) -> Path:
    """Return the file that an example draws."""
    return ROOT / "docs" / "_build" / "examples" / f"{script.stem}.svg"


def outdated() -> list[Path]:
    """Return the examples that were not run since they were changed."""
    return [
        script
        for script in SCRIPTS
        if not picture(script).exists() or picture(script).stat().st_mtime < script.stat().st_mtime
    ]


def draw(scripts: Iterable[Path]) -> None:
    """Run examples, which check their results; one that fails is an error."""
    commands = []
    for script in scripts:
        picture(script).parent.mkdir(parents=True, exist_ok=True)
        commands.append([sys.executable, script, "--output", picture(script)])
    with ThreadPoolExecutor() as pool:  # one at a time takes two minutes
        list(pool.map(partial(subprocess.run, check=True), commands))


if __name__ == "__main__":
    draw(SCRIPTS)
