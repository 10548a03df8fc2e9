"""Matplotlib figures as SVG whose colours follow the page, light or dark."""

import io
import re
from collections.abc import Callable

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Two colours that stand for the page's: `svg` replaces them.
INK, ACCENT = "#010203", "#040506"
PAGE = {INK: "currentColor", ACCENT: "var(--color-brand-primary)"}
# A file has no page, and follows the browser.
ALONE = """<style>
  svg { stroke-linejoin: round; color: #1f2328; --color-brand-primary: #0a4bff; }
  @media (prefers-color-scheme: dark) { svg { color: #e6edf3; --color-brand-primary: #3d94ff; } }
</style>
"""
WIDTH = 6.2  # inches, 446 points: on a phone a letter then has the size it has here
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 2,
    "lines.scale_dashes": False,
    "patch.edgecolor": INK,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def svg(name: str, draw: Callable[..., None], *values: object, height: float) -> str:
    """Return what a function draws into a figure as an SVG element whose ids no other name has."""
    file = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height))
        draw(figure, *values)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    written = file.getvalue()
    written = written[written.index("<svg ") :]
    written = re.sub(r" <metadata>.*?</metadata>\n", "", written, flags=re.DOTALL)
    # The same ids in each figure, and a style for the whole page.
    written = re.sub(r'<g id="[^"]+">', "<g>", written)
    written = re.sub(r" <defs>\s*<style.*?</style>\s*</defs>\n", "", written, flags=re.DOTALL)
    written = re.sub(r'^<svg (.*?)width="\S+" height="\S+"', r"<svg \1", written, flags=re.DOTALL)
    for color, variable in PAGE.items():
        written = written.replace(color, variable)
    return written.replace("<svg ", '<svg aria-hidden="true" ', 1)


def written(say: Callable[[float], str]) -> FuncFormatter:
    """Return a formatter of ticks."""
    return FuncFormatter(lambda value, _: say(value))
