"""A headless Chromium, spoken to through a pipe: it opens pages and tells what went wrong in them."""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import brotli

PACKAGE = Path(__file__).parents[2] / "docs" / "node" / "node_modules" / "@sparticuz" / "chromium" / "bin"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # the pages are our own, and in a container there is no sandbox to be had
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def install(folder: Path) -> tuple[Path, Path]:
    """Return a browser and the folder of libraries that it brings along: unpacked from npm's package, or installed."""
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


class Tab:
    """The one tab of a browser."""

    def __init__(self, write: int, read: int) -> None:
        """Take the ends of the pipe, and open a tab."""
        self._write, self._read = write, read
        self._count, self._session, self._buffer = 0, None, b""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> Any:
        """Call a method of the DevTools protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, width: int, *, dark: bool = False) -> None:
        """Open a page, as wide as a screen, and wait until it has loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def errors(self) -> list[str]:
        """Return what the console, the log and the network complained of since the page was opened."""
        out = []
        for event in self.events:
            method, params = event["method"], event.get("params", {})
            if method in {"Runtime.exceptionThrown", "Network.loadingFailed"}:
                out.append(json.dumps(params))
            elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
                out.append(json.dumps(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                out.append(json.dumps(params["entry"]))
        return out

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for."""
        events = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in events]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            if not data:
                msg = "the browser ended"
                raise ConnectionError(msg)
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        out: dict[str, Any] = json.loads(message)
        return out


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start a browser with an empty profile in a folder."""
    binary, libraries = install(folder)
    (their_read, our_write), (our_read, their_write) = os.pipe(), os.pipe()
    # The browser reads from 3 and writes to 4.
    start = f"import os, sys; os.dup2({their_read}, 3); os.dup2({their_write}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    command: list[str | Path] = [sys.executable, "-c", start, binary, *OPTIONS, f"--user-data-dir={folder / 'profile'}"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "HOME": str(folder)}
    process = subprocess.Popen(command, pass_fds=(their_read, their_write), env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
    os.close(their_read)
    os.close(their_write)
    try:
        yield Tab(our_write, our_read)
    finally:
        process.kill()
        process.wait()
        os.close(our_write)
        os.close(our_read)
