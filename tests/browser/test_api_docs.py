"""/api/docs in a real Chromium, within its policy, from this server alone; and that it can be tried out there."""

import json

import pytest
from playwright.sync_api import expect

from llmjobs.api.schema import OPERATIONS
from tests.browser.axe import faults_of
from tests.browser.conftest import Site

pytestmark = pytest.mark.django_db


def test_every_operation_is_shown_and_nothing_is_blocked_or_asked_for_outside(site: Site):
    """A policy that blocked a style or a script would say so in the console."""
    page = site.tab("/api/docs")

    expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
    page.locator("#operations-jobs-submit_job .opblock-summary-control").click()
    expect(page.locator("#operations-jobs-submit_job .opblock-body")).to_be_visible()
    assert site.complaints == []


def test_a_user_tries_out_a_submit_with_the_session(site: Site):
    """The CSRF token goes along."""
    page = site.tab("/api/docs")
    submit = page.locator("#operations-jobs-submit_job")

    submit.locator(".opblock-summary-control").click()
    submit.get_by_role("button", name="Try it out").click()
    body = {"model": site.model.name, "messages": [{"role": "user", "content": "Hello."}]}
    submit.locator("textarea").fill(json.dumps(body))
    submit.get_by_role("button", name="Execute").click()

    expect(submit.locator(".live-responses-table .response .response-col_status")).to_contain_text("202")
    assert site.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read_by_day_and_by_night_on_a_phone_too(site: Site, scheme: str):
    page = site.tab("/api/docs", color_scheme=scheme, viewport={"width": 375, "height": 812})
    page.locator("#operations-jobs-submit_job .opblock-summary-control").click()
    expect(page.locator("#operations-jobs-submit_job .response").first).to_be_visible()

    assert [fault for fault in faults_of(page) if fault.startswith("color-contrast")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
