"""The page without a mouse, and without colours of its own: where the focus is, and what can be seen of a choice."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, apart
from tests.browser.test_page import QUICK, output, row, status, submit
from tests.factories import make_job

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nobody_complains(site: Site) -> Iterator[None]:
    yield
    assert site.complaints == []


def test_the_page_can_be_used_by_the_keyboard_alone(site: Site) -> None:
    job = apart(make_job, "completed", client=site.client, model=site.model)
    page = site.tab()
    expect(row(page, str(job.public_id))).to_be_visible()
    row(page, str(job.public_id)).get_by_role("link").focus()
    page.keyboard.press("Enter")
    expect(output(page)).to_have_text("Hello there.")
    page.get_by_role("button", name="Copy", exact=True).press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "Hello there."
    page.get_by_label("Prompt", exact=True).fill(QUICK)
    page.get_by_role("button", name="Submit").press("Enter")
    expect(page).not_to_have_url(re.compile(str(job.public_id)))
    expect(page.get_by_role("button", name="Submit")).to_be_focused()


def test_where_the_button_that_was_pressed_is_gone_the_job_has_the_focus(site: Site) -> None:
    site.pause()
    page = site.tab()
    title = page.locator("#job-title")
    job_id = submit(page, site, QUICK)
    page.get_by_role("button", name="Cancel", exact=True).press("Enter")
    expect(status(page)).to_have_text("cancelled")
    expect(title).to_be_focused()
    page.get_by_role("button", name="Retry").press("Enter")
    expect(page).not_to_have_url(re.compile(job_id))
    expect(title).to_be_focused()
    page.goto(f"{site.url}/#job={job_id}")
    expect(page.get_by_role("button", name="Reply")).to_be_visible()
    menu = page.locator("#job-menu summary")
    menu.press("Enter")
    erase = page.get_by_role("button", name="Delete the texts…")
    erase.press("Enter")
    page.get_by_role("button", name="Keep them").press("Enter")
    expect(menu).to_be_focused()
    menu.press("Enter")
    erase.press("Enter")
    page.get_by_role("button", name="Delete the texts", exact=True).press("Enter")
    expect(menu).to_be_hidden()
    expect(title).to_be_focused()


def test_loading_more_keeps_the_focus_where_more_can_be_loaded(site: Site) -> None:
    apart(lambda: [make_job("cancelled", client=site.client, model=site.model) for _ in range(41)])
    page = site.tab()
    more = page.get_by_role("button", name="Load more")
    more.press("Enter")
    expect(page.locator("tr[data-id]")).to_have_count(40)
    expect(more).to_be_focused()
    more.press("Enter")
    expect(page.locator("tr[data-id]")).to_have_count(41)


def test_a_field_that_is_wrong_is_shown_where_it_was_folded_away(site: Site) -> None:
    page = site.tab()
    fold = page.get_by_text("System prompt and parameters")
    fold.click()
    page.get_by_label("Temperature").fill("5")
    fold.click()
    page.get_by_label("Prompt", exact=True).fill(QUICK)
    page.get_by_role("button", name="Submit").press("Enter")
    expect(page.get_by_label("Temperature")).to_be_focused()


def test_what_is_chosen_is_framed_where_the_system_forces_its_colours(site: Site) -> None:
    job = apart(make_job, "completed", client=site.client, model=site.model)
    page = site.tab(f"/#job={job.public_id}", forced_colors="active")
    expect(row(page, str(job.public_id))).to_have_css("outline-style", "solid")
    chosen, other = page.get_by_text("Single prompt"), page.get_by_text("Conversation", exact=True)
    expect(chosen).to_have_css("outline-style", "solid")
    expect(other).to_have_css("outline-style", "none")
