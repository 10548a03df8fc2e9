"""The functions that a page of the documentation defines, as they stand there."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def functions(page: str, heading: str, /, **names: Any) -> dict[str, Any]:
    """Define the imports, functions, classes and custom derivatives of the first block below a heading.

    Other names that the functions use, as data, are given.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    found = _FENCE.search(text, text.index(f"# {heading}\n"))
    assert found is not None, f"{page}: there is no code below {heading!r}"
    kept = [x for x in ast.parse(found[1]).body if _defines(x)]
    exec(compile(ast.Module(kept, []), page, "exec"), names)  # noqa: S102 - the project's own documentation
    return names


def _defines(statement: ast.stmt, /) -> bool:
    if isinstance(statement, ast.ImportFrom):
        # What runs the functions, and what not all who test have, is left out.
        return importlib.util.find_spec(str(statement.module).partition(".")[0]) is not None
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func) == "custom_vjp"
    return isinstance(statement, ast.Import | ast.FunctionDef | ast.ClassDef)
