"""A real Chromium for the admin's pages, under the policy `default-src 'self'`, and where its pictures go."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.http import HttpRequest, HttpResponse
from playwright.sync_api import BrowserContext, Page, sync_playwright

EXECUTABLE = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip
PICTURES = Path(__file__).resolve().parents[2] / ".screenshots" / "admin"
POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return middleware


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    if EXECUTABLE is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("REQUIRE_BROWSER=1, and no Chromium was found on PATH")
        pytest.skip("no Chromium was found on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=ARGUMENTS)
        try:
            context = browser.new_context()
            context.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # the site's, not the admin's
            yield context
        finally:
            browser.close()


def complaints_of(page: Page) -> list[str]:
    """Fills while `page` is used: errors of scripts, and what the policy refused."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def picture(page: Page, name: str) -> None:
    """With SCREENSHOTS=1, for people to look at."""
    if os.environ.get("SCREENSHOTS") != "1":
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)
