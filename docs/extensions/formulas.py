"""Formulas set by KaTeX while the site is built: to read, they need no script."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

NODE = Path(__file__).parents[1] / "node"
KATEX = NODE / "node_modules" / "katex" / "dist"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer, and what its HTML needs beside it."""
    if not KATEX.is_dir():
        install = f"npm ci --ignore-scripts --prefix {NODE}"
        msg = f"formulas: KaTeX is not installed; get it with: {install}"
        raise ExtensionError(msg)
    app.add_html_math_renderer(
        "katex",
        inline_renderers=(visit_inline, None),
        block_renderers=(visit_display, None),
    )
    app.add_css_file("katex/katex.min.css")
    app.connect("build-finished", copy_styles)
    return {"parallel_read_safe": True, "parallel_write_safe": False}


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line of text."""
    translator.body.append(
        f'<span class="math">{render(node.astext(), display=False)}</span>'
    )
    raise nodes.SkipNode


def visit_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula with lines of its own; a wide one is scrolled, with keys too."""
    formula = render(node.astext(), display=True)
    translator.body.append(
        '<div class="math" role="region" aria-label="Formula" tabindex="0">'
        f"{formula}</div>\n"
    )
    raise nodes.SkipNode


def render(tex: str, *, display: bool) -> str:
    """Return a formula as HTML, with MathML in it for screen readers."""
    process = renderer()
    process.stdin.write(json.dumps({"tex": tex, "display": display}) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    if "error" in answer:
        raise ExtensionError(answer["error"])
    html: str = answer["html"]
    return html


@cache
def renderer() -> subprocess.Popen[str]:
    """Start KaTeX, which ends with the standard input that it reads."""
    return subprocess.Popen(  # noqa: S603
        ["node", NODE / "formulas.mjs"],  # noqa: S607
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def copy_styles(app: Sphinx, exception: Exception | None) -> None:
    """Put KaTeX's style sheet and its fonts into the site."""
    if exception is None:
        target = Path(app.outdir) / "_static" / "katex"
        shutil.copytree(KATEX / "fonts", target / "fonts", dirs_exist_ok=True)
        shutil.copy(KATEX / "katex.min.css", target)
