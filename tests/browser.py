"""A real browser without a window, driven over a pipe, with nothing but the standard library; one for all tests."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REASON = "NOT TESTED: pages in a browser, as there is no chromium ('apt-get install chromium')"
OPTIONS = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"),
    *("--disable-dev-shm-usage", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a camera
    *(("--no-sandbox",) if os.geteuid() == 0 else ()),  # which root cannot have
)
# The browser reads descriptor 3 and writes descriptor 4, wherever the pipes are.
LAUNCH = """
import fcntl, os, sys
for pipe, place in zip([fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]], (3, 4)):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """A tab. errors: what scripts threw and what the page's policy refused; requests: addresses asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._number = to_browser, from_browser, b"", 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.answers: list[tuple[str, int]] = []
        self._session, self._context, self._loaded = "", "", False

    def fresh(self) -> None:
        """Be another tab, of a browser that has seen nothing yet."""
        self._session = ""
        if self._context:
            self.call("Target.disposeBrowserContext", browserContextId=self._context)
        self._context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.call(f"{domain}.enable")
        for noted in (self.errors, self.requests, self.answers):
            noted.clear()

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask the browser for something, by the DevTools protocol, and return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, url: str, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        """Go to an address, as a screen of so many pixels shows it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=media)
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._note(self._next())

    def value(self, script: str) -> Any:
        """Return what a script's expression comes to, waiting for it where it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 10.0) -> Any:
        """Return what an expression comes to as soon as that is true of it."""
        end = time.monotonic() + seconds
        while not (value := self.value(script)):
            assert time.monotonic() < end, f"it did not come: {script}; {self.errors}; {self.text()}"
            time.sleep(0.02)
        return value

    def text(self, of: str = "body") -> str:
        """Return what is to be read in an element."""
        return str(self.value(f"document.querySelector({json.dumps(of)})?.innerText ?? ''"))

    def press(self, key: str) -> None:
        """Press a key on the keyboard: "Tab", "Enter"."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            how = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **how)

    def mouse(self, what: str, selector: str) -> None:
        """Press or release the mouse in the middle of an element: "mousePressed", "mouseReleased"."""
        place = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.value(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({place})")
        self.call("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, *files: Path) -> None:
        """Give a file field of the page some files, as who chooses them."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            assert select.select([self._from], [], [], 20)[0], "the browser says nothing"
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser has ended"
            self._rest += piece
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: Any) -> None:
        said = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(str(said["exceptionDetails"]))
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.errors.append(f"dialog: {said['message']}")
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Network.responseReceived":
                self.answers.append((said["response"]["url"], said["response"]["status"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Run a browser with a profile of its own in a folder, and give what drives its tab, which `fresh` opens."""
    assert PROGRAM
    (reads, to_browser), (from_browser, writes) = os.pipe(), os.pipe()
    launch = [sys.executable, "-c", LAUNCH, str(reads), str(writes)]
    command = [*launch, PROGRAM, *OPTIONS, f"--user-data-dir={folder}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=(reads, writes), start_new_session=True, **quiet)
    os.close(reads)
    os.close(writes)
    try:
        page = Page(to_browser, from_browser)
        yield page
        page._session = ""
        page.call("Browser.close")
    finally:
        process.terminate()
        process.wait(20)
        os.close(to_browser)
        os.close(from_browser)
