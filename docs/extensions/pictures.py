"""The site's pictures, drawn while it is built: SVG in its own colours, light and dark."""

from collections.abc import Callable
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

TEXT = 'fill="currentColor" text-anchor="middle" dominant-baseline="central"'
ACCENT = "var(--color-brand-primary)"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Picture(Directive):
    """A picture by its name, with a caption, which is also what a screen reader says."""

    required_arguments = 1
    has_content = True
    pictures: ClassVar[dict[str, Callable[[], str]]] = {}

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        caption = " ".join(self.content)
        drawing = self.pictures[self.arguments[0]]()
        figure = (
            f'<figure class="picture">{drawing}<figcaption>{caption}</figcaption></figure>'
        )
        return [nodes.raw("", figure, format="html")]


def picture(draw: Callable[[], str]) -> Callable[[], str]:
    """Offer a drawing to the directive, by the name of its function."""
    Picture.pictures[draw.__name__.replace("_", "-")] = draw
    return draw


@picture
def pair() -> str:
    """Draw the data flow of a pair: forward down the left, backward up the right."""
    left, right = 130, 370
    shapes = [
        label(left, 20, "z, w, b", code=True),
        arrow((left, 38), (left, 72)),
        box(left, 100, 200, 56, "affine_forward", "a = z w + b"),
        arrow((left, 128), (left, 162)),
        label(left, 180, "a", code=True),
        arrow((left, 198), (left, 232)),
        box(250, 260, 440, 56, "loss", "its value, and its gradient for a"),
        arrow((right, 232), (right, 198)),
        label(right, 180, "da", code=True),
        arrow((right, 162), (right, 128)),
        box(right, 100, 200, 56, "affine_backward", "three products"),
        arrow((right, 72), (right, 38)),
        label(right, 20, "dz, dw, db", code=True),
        # What the backward needs of the forward's inputs goes from one to the other.
        arrow((left + 58, 22), (right - 70, 68), dashed=True),
        label(264, 26, "z, w", code=True),
    ]
    return svg(500, 296, *shapes)


@picture
def accumulate() -> str:
    """Draw the tasks of `accumulate`: one for a block of rows, one for each eight sums."""
    blocks = [20 + 30 * i for i in range(16)]
    shapes = [label(245, 14, "the batch: blocks of rows of z and da")]
    for x in blocks:
        shapes += [
            rectangle(x, 45, 18, 26, 'fill="currentColor" fill-opacity="0.25"'),
            arrow((x, 58), (x, 82)),
            rectangle(
                x, 96, 24, 24, f'rx="5" fill="none" stroke="{ACCENT}" stroke-width="2"'
            ),
        ]
    for middle, group in ((125, blocks[:8]), (365, blocks[8:])):
        shapes += [line((x, 108), (middle, 152)) for x in group]
        shapes += [
            box(middle, 170, 120, 36, "sum of eight"),
            line((middle, 188), (245, 226)),
        ]
    shapes += [
        box(245, 246, 180, 40, "dw, db"),
    ]
    return svg(490, 272, *shapes)


def svg(width: int, height: int, *shapes: str) -> str:
    """Return a picture of this size; it grows and shrinks with the page."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker>'
    )
    size = f'viewBox="0 0 {width} {height}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} aria-hidden="true">'
    return f"{opening}<defs>{head}</defs>{''.join(shapes)}</svg>"


def label(x: int, y: int, text: str, *, code: bool = False) -> str:
    """Write a text around a point."""
    font = ' style="font-family: var(--font-stack--monospace)"' if code else ""
    return f'<text x="{x}" y="{y}" font-size="17" {TEXT}{font}>{text}</text>'


def box(x: int, y: int, width: int, height: int, *texts: str) -> str:
    """Draw a box around a point, with one line of text in it or two."""
    look = f'rx="8" fill="{ACCENT}" fill-opacity="0.12" stroke="{ACCENT}" stroke-width="2"'
    heights = (y,) if len(texts) == 1 else (y - 11, y + 12)
    lines = [label(x, line, text) for line, text in zip(heights, texts, strict=True)]
    return rectangle(x, y, width, height, look) + "".join(lines)


def rectangle(x: int, y: int, width: int, height: int, look: str) -> str:
    """Draw a rectangle around a point."""
    corner = f'x="{x - width // 2}" y="{y - height // 2}"'
    return f'<rect {corner} width="{width}" height="{height}" {look}/>'


def line(start: tuple[int, int], end: tuple[int, int], extra: str = "") -> str:
    """Draw a line."""
    points = f'x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {points} stroke="currentColor" stroke-width="1.5"{extra}/>'


def arrow(start: tuple[int, int], end: tuple[int, int], *, dashed: bool = False) -> str:
    """Draw a line with a head."""
    return line(
        start,
        end,
        ' marker-end="url(#head)"' + (' stroke-dasharray="5 4"' if dashed else ""),
    )
