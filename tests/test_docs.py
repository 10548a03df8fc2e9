"""The built site: opened in a browser, each page of it, and read."""

import html.parser
import http.server
import importlib
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from matplotlib.figure import Figure
from playwright.sync_api import Browser

import pullback
import pullback.dask
from tests.harness.browser import browser, visit

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "_build" / "html"
PAGES = sorted(SITE.rglob("*.html"))
PHONE, DESK = 390, 1280
pytestmark = pytest.mark.xdist_group("site")  # one worker starts the browser for all


class Reader(html.parser.HTMLParser):
    """What a page links to, what can be linked to in it, and its text outside of code and of rendered formulas."""

    def __init__(self, page: Path) -> None:
        """Read the page."""
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self._open: list[tuple[str, bool]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link, an id and whether text in here counts."""
        values = dict(attrs)
        self.links += [str(values[name]) for name in ("href", "src") if name in values]
        self.ids |= {str(values["id"])} if "id" in values else set()
        if tag not in {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "path", "wbr"}:
            quiet = tag in {"pre", "code", "script", "style"} or "katex" in str(values.get("class")).split()
            self._open.append((tag, quiet or (bool(self._open) and self._open[-1][1])))

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        if any(name == tag for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        """Note text."""
        if not (self._open and self._open[-1][1]):
            self.text += data


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser."""
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Serve the site: a browser reads no file from a page that is a file, and the search does."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture(scope="module")
def read() -> dict[Path, Reader]:
    """Read all pages."""
    return {page: Reader(page) for page in PAGES}


def test_site_is_built() -> None:
    sources = {
        path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md") if "node_modules" not in path.parts
    }
    assert sources, "nox -s docs builds the site"
    assert {path.with_suffix(".html") for path in sources} <= {page.relative_to(SITE) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SITE)))
def test_page_opens(chromium: Browser, page: Path) -> None:
    """No error in the console, nothing from the network, every formula set, and no page wider than the screen."""
    for width, dark in ((PHONE, False), (DESK, True)):
        with visit(chromium, page, width, dark=dark) as visited:
            evaluate = visited.page.evaluate
            assert visited.errors == []
            assert [url for url in visited.requests if not url.startswith(("file:", "data:"))] == []
            assert evaluate("document.documentElement.scrollWidth") <= width
            unset = "x => !x.querySelector('.katex-html')?.offsetWidth"
            assert evaluate(f"[...document.querySelectorAll('.math')].filter({unset}).length") == 0
            assert evaluate("document.querySelectorAll('.katex-error').length") == 0
            background = evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128) == dark


def test_browser_sees_errors(chromium: Browser, tmp_path: Path) -> None:
    """What the test above looks for, it finds."""
    page = tmp_path / "page.html"
    page.write_text("<script>console.error('wrong'); nothing()</script><img src='missing.png'>")
    with visit(chromium, page, DESK) as visited:
        found = " ".join(visited.errors)
    assert all(word in found for word in ("wrong", "nothing is not defined", "ERR_FILE_NOT_FOUND"))


def test_links(read: dict[Path, Reader]) -> None:
    """Each link within the site has an end."""
    broken = []
    for page, reader in read.items():
        for link in reader.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = read[target].ids if target in read else set()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.append(f"{page.relative_to(SITE)}: {link}")
    assert broken == []


def test_no_markup_is_left(read: dict[Path, Reader]) -> None:
    """No formula is left as it was written, no directive, and no name that a tool made."""
    left = [
        f"{page.name}: {found}"
        for page, reader in read.items()
        for found in re.findall(r"\$|\\[a-z]+|:::|\[R[0-9a-f]{6}", reader.text)
    ]
    assert left == []
    assert all("katex" in page.read_text() for page in (SITE / "derivation.html", SITE / "index.html"))
    # What authors' initials are taken for.
    assert [page for page in PAGES if "upperalpha" in page.read_text()] == []


def test_each_formula_is_computed() -> None:
    """After each formula of the derivation comes code, before the next one."""
    page = (ROOT / "docs" / "derivation.md").read_text()
    marks = re.findall(r"^\$\$.*?\$\$$|^```python$", page, flags=re.DOTALL | re.MULTILINE)
    kinds = ["code" if mark == "```python" else "formula" for mark in marks]
    assert "formula" in kinds
    assert all(after == "code" for before, after in zip(kinds, [*kinds[1:], ""], strict=True) if before == "formula")


def test_reference_is_complete(read: dict[Path, Reader]) -> None:
    """Each public name has an entry."""
    names = {f"pullback.{name}" for name in pullback.__all__}
    names |= {f"pullback.dask.{name}" for name in ("accumulate", "compute")}
    missing = names - set().union(*(reader.ids for reader in read.values()))
    assert missing == set(), "give each a line in a page of docs/reference/"


def test_names_in_prose_are_links(read: dict[Path, Reader]) -> None:
    """A public name in backticks leads to its entry, and a name of NumPy, SciPy or Dask to that project's page."""
    page = (SITE / "start.html").read_text()
    code = re.compile(r'(<a [^>]*>)?<code class="docutils literal notranslate"><span class="pre">(\w+)</span></code>')
    assert [name for link, name in code.findall(page) if name in pullback.__all__ and not link] == []
    for name, target in (("accumulate", "dask.html#pullback.dask.accumulate"), ("vjp", "gradients.html#pullback.vjp")):
        assert f"reference/{target}" in read[SITE / "start.html"].links, name
    outside = {link for reader in read.values() for link in reader.links if link.startswith("https:")}
    assert "https://numpy.org/doc/stable/reference/generated/numpy.memmap.html#numpy.memmap" in outside
    assert "https://docs.dask.org/en/stable/api.html#dask.persist" in outside


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "inventories").glob("*.txt")), ids=lambda path: path.stem)
def test_inventory_names_exist(path: Path) -> None:
    """Each library has the names that the committed inventories list."""
    for line in path.read_text().splitlines()[3:]:
        name, kind, _ = line.split()
        module, _, attribute = (name, "", "") if kind == "mod" else name.rpartition(".")
        found = importlib.import_module(module.replace("array_api", "array_api_strict"))
        assert not attribute or hasattr(found, attribute), name


def test_reference_lists_all_names(read: dict[Path, Reader]) -> None:
    """The table from A to Z has a line for each function and class, with a link and the docstring's first line."""
    page = (SITE / "reference" / "index.html").read_text()
    for name in (name for name in pullback.__all__ if not name.isupper()):
        assert any(link.endswith(f"#pullback.{name}") for link in read[SITE / "reference" / "index.html"].links), name
    assert "Multiply the Hessian of a scalar function by a vector." in page


def test_functions_have_source_links() -> None:
    """Each function of the reference leads to its source."""
    for page in (SITE / "reference").glob("*.html"):
        function = re.compile(r'<dl class="py function">\s*<dt [^>]*id="([^"]+)">(.*?)</dt>', re.DOTALL)
        assert [name for name, entry in function.findall(page.read_text()) if "viewcode-link" not in entry] == []


def test_head_of_each_page() -> None:
    """Each page has the icon, and says the version."""
    for page in PAGES:
        text = page.read_text()
        assert 'rel="icon"' in text or 'rel="shortcut icon"' in text, page
        assert f"pullback {pullback.__version__}" in text, page


def test_code_is_read_and_copied(chromium: Browser) -> None:
    """A block of code has a button to copy it, and no line under a name, light and dark."""
    for dark in (False, True):
        with visit(chromium, SITE / "start.html", DESK, dark=dark) as visited:
            lines = "[...document.querySelectorAll('.highlight span')].map(x => getComputedStyle(x).textDecorationLine)"
            assert set(visited.page.evaluate(lines)) == {"none"}
            assert visited.page.evaluate("document.querySelectorAll('.highlight-python button.copybtn').length") > 1
            assert visited.page.evaluate("document.querySelectorAll('.highlight-text button.copybtn').length") == 0


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("adam", "guides/layers.html"),
        ("residual", "guides/own-functions.html"),
        ("L2", "guides/glm.html"),
        ("ridge", "guides/glm.html"),
        ("quantile", "guides/own-functions.html"),
        ("BCEWithLogits", "start.html"),
    ],
)
def test_search_finds(server: str, chromium: Browser, words: str, page: str) -> None:
    """The site's own search leads to the page that has it."""
    tab = chromium.new_page()
    tab.goto(f"{server}/search.html?q={words}")
    tab.wait_for_function("document.querySelector('.search-summary')?.innerText.startsWith('Search finished')")
    found = tab.evaluate("[...document.querySelectorAll('#search-results li > a')].map(x => x.getAttribute('href'))")
    tab.close()
    assert page in {link.partition("?")[0].partition("#")[0] for link in found}


def test_results_are_read_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A number that a page speaks of is in exactly one saved file, or the site is not built."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    saved = importlib.import_module("saved")
    written = {
        "machine": ["a machine"],
        "tables": {"speed": {"title": "Speed", "columns": ["n", "s"], "rows": [["1", "2"]]}},
    }
    (tmp_path / "one.json").write_text(json.dumps(written))
    table = saved.read("speed", tmp_path)
    assert table.column("s") == ["2"]
    with pytest.raises(saved.ExtensionError, match=r"'Speed' must have a column 'ms'; got \['n', 's'\]"):
        table.column("ms")
    with pytest.raises(saved.ExtensionError, match="must have the table 'memory'; got none"):
        saved.read("memory", tmp_path)
    (tmp_path / "two.json").write_text(json.dumps(written))
    with pytest.raises(saved.ExtensionError, match=r"must have the table 'speed'; got one\.json, two\.json"):
        saved.read("speed", tmp_path)


def test_numbers_in_cells_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures read cells that are written for people."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    saved = importlib.import_module("saved")
    cells = ["8,000", "≤ 1e-06; ≤ each peer's or 6e-08", "= 1.04 (0.77 to 1.30)", "10 (extrapolated)"]
    assert saved.numbers(cells) == [8000, 1e-6, 1.04, 10]


def test_chart_shows_the_saved_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library has a line through its numbers, and the legend has the order of their ends."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    charts, saved = map(importlib.import_module, ("charts", "saved"))
    columns = ["m", "db, pullback", "db, NumPy", "bounds"]
    table = saved.Table(ROOT, [], "", columns, [["1", "0.0e+00", "0.0e+00", "≤ 1"], ["20", "1e-8", "3e-3", "≤ 1e-6"]])
    figure = Figure()
    charts.accuracy(figure, table, "db")
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"NumPy": [[20, 3e-3]], "bound": [[1, 1], [20, 1e-6]], "pullback": [[20, 1e-8]]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NumPy", "bound", "pullback"]


def test_picture_has_the_colours_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture has no colour of its own, no text as curves, and no id that another on the page has."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    results, drawing = map(importlib.import_module, ("results", "drawing"))
    found: set[str] = set()
    diagrams = {name: (draw, height) for name, (draw, tables, _, height) in results.PICTURES.items() if not tables}
    assert len(diagrams) > 1
    for name, (draw, height) in diagrams.items():
        written = drawing.svg(name, draw, height=height)
        assert written == drawing.svg(name, draw, height=height)
        assert "<text" in written
        assert "<style" not in written
        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", written)) <= {"none", *drawing.PAGE.values()}
        ids = re.findall(r' id="([^"]+)"', written)
        assert found.isdisjoint(ids)
        found.update(ids)
