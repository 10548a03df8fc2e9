"""The site: `nox -s docs` builds it into docs/_build/html and opens every page."""

import re
import sys
from pathlib import Path

import pullback
from docutils import nodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "pullback"
version = release = pullback.__version__
html_title = "pullback"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["style.css"]
html_theme_options = {"navigation_with_keys": True}
exclude_patterns = ["_build", "node"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "formulas",
    "pictures",
    "results",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Docstrings speak of `z` and of `affine_backward` alike: public names become links, and the
# rest becomes code.
default_role = "py:obj"
autodoc_typehints = "none"  # the docstrings say shapes and dtypes, which no annotation can
numpydoc_show_class_members = False


def setup(app: Sphinx) -> None:
    """Show the sources in docstrings as they are meant."""

    def escape(
        _: Sphinx, __: str, ___: str, ____: object, _____: object, lines: list[str]
    ) -> None:
        # "A. Author" would be the first item of a list.
        lines[:] = [re.sub(r"^(\.\. \[[^]]+\] [A-Z])\.", r"\1\\.", line) for line in lines]

    def number(_: Sphinx, page: nodes.document, __: str) -> None:
        # numpydoc makes their names unique, and leaves it at that.
        for text in list(page.findall(nodes.Text)):
            if mangled := re.fullmatch(r"\[R[0-9a-f]+-(\w+)\]", text):
                text.parent.replace(text, nodes.Text(f"[{mangled[1]}]"))

    app.connect("autodoc-process-docstring", escape)
    app.connect("doctree-resolved", number)
