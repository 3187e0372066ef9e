"""/api/docs in a real Chromium, within its policy, from this server alone; and that it can be tried out there."""

import json

import pytest
from playwright.sync_api import expect

from llmjobs.api.schema import OPERATIONS
from tests.browser.chromium import WAIT_MS
from tests.browser.conftest import Site

pytestmark = pytest.mark.django_db
expect.set_options(timeout=WAIT_MS)


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
