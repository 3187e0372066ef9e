"""A large operation by hand: begun, watched without a reload, stopped, gone on with, undone; by keyboard alone."""

from typing import Any

import pytest
from django.test import Client as Browser

from llmjobs import operation_steps, operations
from llmjobs.models import Job, Operation
from tests.admin.chromium import chromium, complaints_of, picture
from tests.concurrency.threads import together
from tests.factories import make_client, make_job, make_model, make_worker

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = 375


@pytest.fixture
def site(live_server: Any, settings: Any) -> str:
    settings.MIDDLEWARE = ["tests.admin.chromium.strict_policy", *settings.MIDDLEWARE]
    return str(live_server.url)


def one_batch() -> None:
    """In a thread of its own: Playwright has a loop in this one."""
    Operation.objects.update(batch=3)
    operation_steps.step(Operation.objects.get().pk)


def test_a_large_cancel_is_watched_stopped_gone_on_with_and_undone(
    site: str, browser: Browser, monkeypatch: Any, settings: Any
) -> None:
    monkeypatch.setattr(operations, "IN_REQUEST_MAX", 2)
    monkeypatch.setattr(operation_steps, "BATCH", 3)
    monkeypatch.setattr(operations, "UNATTENDED_S", 3_600.0)
    settings.LLMJOBS_LEASE_S = 3_600.0
    client, model = make_client("acme"), make_model()
    for _ in range(8):
        make_job(client=client, model=model)
    worker = make_worker()  # it lives, and does nothing: pages leave it alone
    with chromium() as context:
        context.add_cookies([{"name": "sessionid", "value": browser.cookies["sessionid"].value, "url": site}])
        page = context.new_page()
        page.set_viewport_size({"width": PHONE, "height": 800})
        complaints = complaints_of(page)
        page.goto(f"{site}/admin/llmjobs/job/?client=acme")
        page.locator("#action-toggle").check()
        page.get_by_label("Action:").select_option(label="Cancel selected jobs")
        page.locator("button[name=index]").press("Enter")
        page.get_by_label("Reason").fill("by mistake")
        picture(page, "operation-asked")
        page.get_by_role("button", name="Cancel 8 jobs").press("Enter")
        page.get_by_text("of 8").wait_for()
        together([one_batch])
        page.get_by_text("3 of 8").wait_for()
        picture(page, "operation-running")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
        page.get_by_role("button", name="Stop").press("Enter")
        page.get_by_text("5 were not come to.").wait_for()
        page.get_by_role("button", name="Go on").press("Enter")
        page.get_by_role("button", name="Stop").wait_for()
        together([worker.delete])
        page.get_by_text("Nothing is left to do.").wait_for()  # by the page's own polls
        page.get_by_role("button", name="Undo…").press("Enter")
        page.get_by_role("button", name="Undo it").press("Enter")
        page.get_by_text("Undone for").first.wait_for()
        page.get_by_text("Nothing is left to do.").wait_for()
        picture(page, "operation-undone")
    assert complaints == []
    assert set(Job.objects.values_list("state", flat=True)) == {"queued"}
