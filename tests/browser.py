"""A headless Chromium, spoken to over two pipes: opens a page, and tells what it shows, logs and asks for.

There is no driver to install: this is the DevTools protocol, JSON texts that end in a zero byte.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
SECONDS = 60.0
"""For an answer, on a machine that is busy."""

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here (Debian's package is chromium), so no page is opened"
)


class Browser:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._read = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a method of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda got: got.get("id") == number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while True:
            while b"\0" in self._read:
                text, _, self._read = self._read.partition(b"\0")
                message: dict[str, Any] = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0], "Chromium is silent"
            more = os.read(self._from, 1 << 16)
            assert more, "Chromium has ended"
            self._read += more

    def open(self, file: Path, width: int = 1280, *, dark: bool = False) -> None:
        """Load a file in a window of that width; what was logged before is forgotten."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[theme])
        self.call("Page.navigate", url=file.resolve().as_uri())
        self._until(lambda got: got.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """What the page logged, threw, or was refused."""
        found = []
        for event in self.events:
            if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(json.dumps(event["params"]))
        return found

    def requests(self) -> list[str]:
        """The addresses that it asked for, but for the page itself and what stands in it."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        addresses = [each["request"]["url"] for each in sent if each["type"] != "Document"]
        return [address for address in addresses if not address.startswith("data:")]

    def picture(self, file: Path) -> None:
        """The whole page as a PNG file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(answer["data"]))

    def print_to(self, file: Path) -> None:
        """The page as it is printed, a PDF file."""
        file.write_bytes(base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium that ends with the `with`."""
    assert CHROMIUM is not None
    # numbers above those that the child will have them at
    plain = [os.pipe() for _ in range(2)]
    ours = [[fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in pair] for pair in plain]
    for end in (*plain[0], *plain[1]):
        os.close(end)
    (child_reads, we_write), (we_read, child_writes) = ours

    def place() -> None:
        os.dup2(child_reads, 3)
        os.dup2(child_writes, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=(3, 4),
        )
        for end in (child_reads, child_writes):
            os.close(end)
        try:
            yield Browser(we_write, we_read)
        finally:
            for end in (we_write, we_read):
                os.close(end)
            process.terminate()
            process.wait(SECONDS)
