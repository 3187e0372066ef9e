"""The documentation in a real Chromium: its search, its copy buttons, its look on a phone and in the dark."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from llmjobs.docs import contents
from tests.browser.axe import faults_of
from tests.browser.chromium import WAIT_MS, Witness, chromium
from tests.docs.ground import Ground

pytestmark = pytest.mark.django_db

PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def opened(browser: Browser, site: Ground, path: str, **options: object) -> tuple[Page, Witness]:
    context = browser.new_context(**{"viewport": DESK, **options})  # type: ignore[arg-type]
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    witness = Witness(page, site.url)
    page.goto(f"{site.url}/docs/{path}")
    return page, witness


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_from_reading_it(browser, site, scheme):
    page, witness = opened(browser, site, "http-api/", color_scheme=scheme)
    for path in ("http-api/", "", "search/?q=lease", "settings/"):
        page.goto(f"{site.url}/docs/{path}")
        assert faults_of(page) == []
    assert witness.complaints == []


def test_no_page_is_wider_than_a_phone(browser, site):
    page, _ = opened(browser, site, "", viewport=PHONE)
    too_wide = {}
    for slug in ["", *(each.slug + "/" for each in contents.ALL), "search/?q=lease"]:
        page.goto(f"{site.url}/docs/{slug}")
        if over := page.evaluate(OVERFLOW):
            too_wide[slug] = over
    assert too_wide == {}


def test_the_search_is_done_by_the_keyboard(browser, site):
    page, witness = opened(browser, site, "quickstart/")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("can be paid twice, when")
    expect(page.locator("#found a").first).to_contain_text("What can be paid twice, and when")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_be_hidden()
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type(" ")
    page.keyboard.press("Backspace")
    expect(page.locator("#found a").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/docs/guarantees/#what-can-be-paid-twice-and-when")
    expect(page.locator("#what-can-be-paid-twice-and-when")).to_be_in_viewport()
    assert witness.complaints == []


def test_without_a_script_it_is_all_there(browser, site):
    page, _ = opened(browser, site, "quickstart/", java_script_enabled=False)
    page.get_by_role("searchbox").fill("idempotency")
    page.keyboard.press("Enter")
    page.locator(".results a").first.click()
    expect(page.locator("h1")).to_be_visible()
    expect(page.get_by_role("navigation", name="Documentation").get_by_role("link", name="Quick start")).to_be_visible()


def test_a_block_is_copied_as_it_is(browser, site):
    page, _ = opened(browser, site, "concepts/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{site.url}/docs/http-api/")
    block = page.locator(".code").first
    block.hover()
    block.get_by_role("button").click()
    expect(block.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "python manage.py createclient acme --tier pro\n"


def test_on_a_phone_the_contents_open_when_asked(browser, site):
    page, _ = opened(browser, site, "fairness/", viewport=PHONE)
    link = (
        page.get_by_role("navigation", name="Documentation")
        .get_by_role("link", name="Webhooks")
        .or_(page.get_by_role("link", name="Told of a job's end"))
    )
    expect(link.first).to_be_hidden()
    page.get_by_text("All pages").click()
    link.first.click()
    page.wait_for_url("**/docs/webhooks/")


def test_one_sees_where_one_is(browser, site):
    page, _ = opened(browser, site, "guarantees/#what-is-kept")
    expect(page.locator(".here [aria-current]")).to_have_text("What is kept")
