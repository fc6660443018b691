"""A page in headless Chromium, through the DevTools protocol on two pipes: what it logs, asks for and shows.

PYTHONPATH=tests python -m bench.browser PAGE.html SHOT.png [dark] [HEIGHT]
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab; `events` holds what it has told since it was opened."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.buffer, self.number, self.events = b"", 0, []  # type: ignore[var-annotated]
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tab(f"{domain}.enable")

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def tab(self, method: str, **parameters: Any) -> Any:
        return self.call(method, self.session, **parameters)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            piece = os.read(self.reader, 1 << 20)
            assert piece, "the browser is gone"
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Shows the page and waits until it is drawn."""
        self.tab("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.tab("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.tab("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + 20
        while not self.evaluate(
            "document.readyState === 'complete' && document.querySelectorAll('main svg').length > 0"
        ):
            assert time.monotonic() < deadline, "the page was not drawn"
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        return self.tab("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, file: Path) -> None:
        data = self.tab("Page.captureScreenshot", format="png", captureBeyondViewport=False)["data"]
        file.write_bytes(base64.b64decode(data))

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """What was logged or thrown."""
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in wanted]


@contextmanager
def browser() -> Iterator[Browser]:
    """A running Chromium; it and its profile are gone with the block."""
    path = find_chromium()
    assert path is not None, "Chromium is not installed"
    to_child, from_child = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-pipe",
        ]  # fmt: skip
        redirected = f'exec "$@" 3<&{to_child[0]} 4>&{from_child[1]}'
        process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", *arguments], pass_fds=(to_child[0], from_child[1]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_child[0])
        os.close(from_child[1])
        try:
            yield Browser(from_child[0], to_child[1])
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_child[1])
            os.close(from_child[0])


def main() -> None:
    page, shot, *rest = sys.argv[1:]
    with browser() as found:
        found.open(
            Path(page),
            height=int(next((w for w in rest if w.isdigit()), "900")),
            scheme="dark" if "dark" in rest else "light",
        )
        found.screenshot(Path(shot))
        print(found.complaints(), found.requests())


if __name__ == "__main__":
    main()
