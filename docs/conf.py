"""The site: `nox -s docs` builds it into docs/_build/html and opens every page."""

import re
import sys
from pathlib import Path

import pullback
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinxcontrib import katex

HERE = Path(__file__).parent
# npm's KaTeX, whose style sheet and fonts the site serves itself.
KATEX = HERE / "node" / "node_modules" / "katex" / "dist"
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import pictures  # noqa: E402

project = "pullback"
version = release = pullback.__version__
html_title = f"pullback {version}"
html_favicon = "static/favicon.svg"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static", str(KATEX)]
html_css_files = ["style.css"]
html_theme_options = {"navigation_with_keys": True}
# The second line leaves out what the pages do not use of KaTeX.
exclude_patterns = ["_build", "node"]
exclude_patterns += [
    f"**/{x}" for x in ("README.md", "contrib", "katex.css", "katex-swap*", "katex*js")
]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "sphinxcontrib.katex",
    "names",
    "results",
]
autosummary_generate = False
# Outputs have no button, and prompts are not copied.
copybutton_selector = "div:not(.highlight-text) > div.highlight pre"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
# Committed inventories of the names that the pages mention: a build downloads nothing.
intersphinx_mapping = {
    project: (address, f"inventories/{project}.txt")
    for project, address in {
        "array_api": "https://data-apis.org/array-api/latest/",
        "dask": "https://docs.dask.org/en/stable/",
        "distributed": "https://distributed.dask.org/en/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "scipy": "https://docs.scipy.org/doc/scipy/",
    }.items()
}
# Formulas are set while the site is built: to read them needs no script.
katex_prerender = True
katex_js_path = str(KATEX / "katex.min.js")
katex_css_path = "katex.min.css"
katex.KATEX_DEFAULT_OPTIONS.update(throwOnError=True, strict="error")
# Its server has a Unix socket before it listens to it: a first connection may be refused.
# To a port, the extension tries again.
katex.KaTeXServer.start_server_process = katex.KaTeXServer.start_network_socket
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Docstrings speak of `z` and of `affine_backward` alike: public names become links, and the
# rest becomes code.
default_role = "py:obj"
autodoc_typehints = "none"  # the docstrings say shapes and dtypes, which no annotation can
numpydoc_show_class_members = False


def setup(app: Sphinx) -> None:
    """Draw the pictures of the examples, and render sources in docstrings."""

    def draw(_: Sphinx) -> None:
        if not KATEX.is_dir():
            msg = (
                f"KaTeX is not installed. npm ci --ignore-scripts --prefix={HERE / 'node'}"
            )
            raise ExtensionError(msg)
        pictures.draw(pictures.outdated())

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

    app.connect("builder-inited", draw)
    app.connect("autodoc-process-docstring", escape)
    app.connect("doctree-resolved", number)
