"""Names in prose: links to the reference and to other projects, and a table of all of them."""

import re
from typing import Any, ClassVar

import pullback
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.autosummary import Autosummary
from sphinx.transforms import SphinxTransform

NAMES = {name: f"pullback.{name}" for name in pullback.__all__}
NAMES |= {name: f"pullback.dask.{name}" for name in ("accumulate", "compute")}
# Full names: those with an entry in the reference or in docs/inventories become links.
ELSEWHERE = re.compile(r"(pullback|numpy|scipy|dask|distributed|array_api)(\.\w+)+")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform and the directive."""
    app.setup_extension("sphinx.ext.autosummary")
    app.add_transform(LinkNames)
    app.add_directive("all-names", AllNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class LinkNames(SphinxTransform):
    """Make each public name in backticks a link, except in headings and in links."""

    default_priority = 400

    def apply(self) -> None:
        """Wrap the names."""
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()")
            target = NAMES.get(name) or (name if ELSEWHERE.fullmatch(name) else None)
            if target is None or inside(literal, nodes.title, nodes.reference, pending_xref):
                continue
            options = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refexplicit": True, "refwarn": False}
            link = pending_xref("", refdoc=self.env.docname, **options)
            literal.replace_self(link)
            link += literal


class AllNames(Autosummary):
    """A table of all public functions and classes, from A to Z, each with the first line of its docstring."""

    option_spec: ClassVar[dict[str, Any]] = {}
    has_content = False

    def run(self) -> list[nodes.Node]:
        """Write the table."""
        self.options["nosignatures"] = None
        documented = {name: target for name, target in NAMES.items() if not name.isupper()}
        lines = [f"~{documented[name]}" for name in sorted(documented, key=str.lower)]
        self.content = StringList(lines, source=__name__)
        return super().run()


def inside(node: nodes.Node, *kinds: type[nodes.Node]) -> bool:
    """Return whether a node is below one of some kinds."""
    while (node := node.parent) is not None:
        if isinstance(node, kinds):
            return True
    return False
