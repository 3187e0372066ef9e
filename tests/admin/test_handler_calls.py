"""Handlers that were given up: seen, and called again by those who may, asked once and written down."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.models import HandlerCall, Job
from tests.admin.pages import ask, confirm, list_url, page_url, staff, text_of
from tests.factories import make_job

pytestmark = pytest.mark.django_db

URL = list_url("HandlerCall")


def make_call(state: str = "dead", **fields: Any) -> HandlerCall:
    job: Job = make_job("completed")
    values = {"handler": "shop.handlers.save", "tries": 10, "error": "ValueError: not a price: four", **fields}
    ended_at = None if state == "pending" else timezone.now()
    return HandlerCall.objects.create(job=job, epoch=job.epoch, state=state, ended_at=ended_at, **values)


def test_dead_ones_are_found_by_state_handler_and_job(browser: Browser) -> None:
    dead, pending, other = make_call(), make_call("pending"), make_call(handler="shop.handlers.drop")
    for query, expected in (
        ({"state": "dead"}, {dead, other}),
        ({"handler": "shop.handlers.drop"}, {other}),
        ({"q": str(pending.job.public_id)}, {pending}),
    ):
        assert set(browser.get(URL, query).context["cl"].result_list) == expected, query


def test_called_again_is_asked_once_and_written_down(browser: Browser, root: Any) -> None:
    dead, pending = make_call(), make_call("pending")
    question = ask(browser, URL, "call_again", dead, pending)
    assert "Call 1 of 2 again" in text_of(question)
    assert HandlerCall.objects.get(pk=dead.pk).state == "dead" and LogEntry.objects.count() == 0
    answer = confirm(browser, URL, question, reason="mended")
    assert "Calling 1 again. Left alone: 1 not dead." in text_of(answer)
    dead.refresh_from_db()
    assert (dead.state, dead.tries, dead.ended_at) == ("pending", 0, None) and dead.next_at <= timezone.now()
    [entry] = LogEntry.objects.all()
    assert (entry.user, entry.object_id, entry.change_message) == (root, str(dead.pk), "Called again: mended")
    assert HandlerCall.objects.get(pk=pending.pk).tries == 10


def test_calling_again_needs_its_permission(browser: Browser) -> None:
    dead = make_call()
    ask(staff("view_handlercall"), URL, "call_again", dead, confirmed="yes")
    assert HandlerCall.objects.get(pk=dead.pk).state == "dead"
    operator = staff("view_handlercall", "retry_handlercall")
    page = page_url(dead)
    assert "Call again…" in text_of(operator.get(page)) and "Call again…" not in text_of(
        staff("view_handlercall").get(page)
    )
    confirm(operator, URL, ask(operator, URL, "call_again", dead))
    assert HandlerCall.objects.get(pk=dead.pk).state == "pending"


def test_what_an_exception_said_is_content(browser: Browser) -> None:
    dead = make_call()
    viewer = staff("view_handlercall")
    for url in (URL, page_url(dead)):
        page = text_of(viewer.get(url))
        assert "ValueError" in page and "not a price" not in page
    assert "not a price: four" in text_of(browser.get(page_url(dead)))
