"""A real Chromium, what it complained about, and where its pictures go.

It can reach nothing but this machine, so that a page which needs anything from outside fails here.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
PICTURES = Path(__file__).resolve().parents[2] / ".screenshots" / "console"
WAIT_MS = 40_000  # for what a page should show; the machine may be busy

expect.set_options(timeout=WAIT_MS)


def executable() -> str:
    """Chromium's path. Without one the test is skipped; where REQUIRE_BROWSER=1 it fails."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found:
        return found
    reason = "expected a Chromium on PATH, found none"
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Witness:
    """`complaints` fills while the page is used: errors in its console, and requests to anywhere but its own server."""

    def __init__(self, page: Page, url: str) -> None:
        self.complaints: list[str] = []
        self._netloc = urlsplit(url).netloc
        page.on("console", lambda message: self._note(message.text, message.type in ("error", "warning")))
        page.on("pageerror", lambda error: self._note(str(error), True))
        page.on("request", lambda request: self._note_address(request.url))
        page.on("websocket", lambda socket: self._note_address(socket.url))

    def _note(self, text: str, is_bad: bool) -> None:
        if is_bad:
            self.complaints.append(text)

    def _note_address(self, address: str) -> None:
        self._note(f"outside request: {address}", urlsplit(address).netloc != self._netloc)


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)
