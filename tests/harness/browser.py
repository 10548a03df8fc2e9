"""A headless Chromium, driven by Playwright: it opens pages and collects their errors."""

import io
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import brotli
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

PACKAGE = Path(__file__).parents[2] / "docs" / "node" / "node_modules" / "@sparticuz" / "chromium" / "bin"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Visit(NamedTuple):
    """An open page, its errors and warnings, and the addresses that it requested."""

    page: Page
    errors: list[str]
    requests: list[str]


def install(folder: Path) -> tuple[Path, Path]:
    """Return a browser and the folder of its libraries: unpacked from npm's package, or the system's."""
    if sys.platform == "linux" and platform.machine() == "x86_64" and PACKAGE.is_dir():
        for archive in PACKAGE.glob("*.tar.br"):
            with tarfile.open(fileobj=io.BytesIO(brotli.decompress(archive.read_bytes()))) as files:
                files.extractall(folder, filter="data")
        binary = folder / "chromium"
        binary.write_bytes(brotli.decompress((PACKAGE / "chromium.br").read_bytes()))
        binary.chmod(0o755)
        return binary, folder / "lib"
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        msg = (
            "no browser to open the site with; on Linux (x86_64), nox -s docs installs one with npm, and elsewhere "
            f"one of {', '.join(NAMES)} must be on the path"
        )
        raise FileNotFoundError(msg)
    return Path(found), folder


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser that writes to an empty folder."""
    binary, libraries = install(folder)
    environment: dict[str, str | float | bool] = {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "HOME": str(folder),
    }
    with sync_playwright() as playwright:
        # A container has no sandbox, and the pages are our own.
        options = {"args": ["--disable-gpu", "--disable-dev-shm-usage"], "chromium_sandbox": False}
        started = playwright.chromium.launch(executable_path=binary, env=environment, **options)
        yield started
        started.close()


@contextmanager
def visit(browser: Browser, address: Path, width: int, *, dark: bool = False) -> Iterator[Visit]:
    """Open a page as wide as a screen, and wait until it has loaded."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    visited = Visit(page, [], [])

    def listen(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning", "assert"}:
            visited.errors.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: visited.errors.append(str(error)))
    page.on("requestfailed", lambda request: visited.errors.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda request: visited.requests.append(request.url))
    page.goto(address.as_uri(), wait_until="load")
    yield visited
    page.close()
