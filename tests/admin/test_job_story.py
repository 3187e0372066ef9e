"""A job's page as it is read at night: what happened in order, where the time went, why it waits; and its parts."""

import json
import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.admin import site
from django.test import AsyncRequestFactory
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.admin.jobs import JobPage
from llmjobs.models import Attempt, Job, JobEvent, JobResult, WebhookDelivery
from llmjobs.states import SEQ_EPOCH
from tests.admin.pages import page_url, staff, text_of
from tests.factories import make_client, make_job, make_model, make_user, make_worker

pytestmark = pytest.mark.django_db

QUOTED = "Your prompt was: the-secret-question"


def parts_url(job: Job) -> str:
    return f"/admin/llmjobs/job/{job.pk}/parts/"


def tried_twice() -> Job:
    """Refused at once, tried again after a backoff of 40 s, then answered for 10 s and dead."""
    began = timezone.now() - timedelta(minutes=5)
    worker = make_worker(host="node", pid=77)
    job = make_job("dead", attempt=2, failures=2, created_at=began, available_at=began, has_webhook=True)
    JobEvent.objects.filter(job=job).delete()
    Attempt.objects.filter(job=job).delete()

    def at(seconds: float) -> Any:
        return began + timedelta(seconds=seconds)

    def attempt(number: int, claimed: float, ended: float, **fields: Any) -> None:
        Attempt.objects.create(
            job=job, number=number, pool=job.pool, client=job.client, tier=job.tier, worker_id=worker.pk, charged=1,
            flow_weight=1, tier_weight=1, claimed_at=at(claimed), sent_at=at(claimed + 1), ended_at=at(ended),
            outcome="unknown", error_code="server_error", error_message=QUOTED, provider_status=500,
            decision=f"What follows {number}. server_error: {QUOTED}", provider_request_id=f"req_{number}", **fields,
        )  # fmt: skip

    attempt(1, 3, 5, waited_s=3)
    attempt(2, 50, 63, waited_s=5, first_token_at=at(53), input_tokens=8, output_tokens=9)
    for epoch, seconds, kind, data in (
        (1, 0, "status", {"status": "queued", "attempt": 0}),
        (2, 3.1, "status", {"status": "running", "attempt": 1}),
        (3, 4.9, "status", {"status": "scheduled", "attempt": 1, "available_at": at(45).isoformat()}),
        (4, 45, "status", {"status": "queued", "attempt": 1}),
        (5, 50.1, "status", {"status": "running", "attempt": 2}),
        (6, 62.9, "done", {"status": "dead"}),
    ):
        JobEvent.objects.create(job=job, seq=epoch * SEQ_EPOCH, type=kind, data=data, created_at=at(seconds))
    JobEvent.objects.create(job=job, seq=5 * SEQ_EPOCH + 1, type="delta", data={"text": "ab"}, created_at=at(54))
    WebhookDelivery.objects.create(
        job=job, client=job.client, epoch=6, type="job.dead", url="https://hooks.example/x", state="delivered", tries=1,
        status=200, tried_at=at(64), ended_at=at(64),
    )  # fmt: skip
    JobResult.objects.filter(job=job).update(error_message=QUOTED)
    Job.objects.filter(pk=job.pk).update(finished_at=at(63), started_at=at(50), available_at=at(45))
    return Job.objects.get(pk=job.pk)


def test_the_story_has_every_event_and_attempt_once_in_order_with_the_time_between(browser: Browser) -> None:
    details = browser.get(page_url(tried_twice())).context["original"].details
    told = [(step.title, step.after) for step in details.story]
    assert told == [
        ("submitted", ""), ("attempt 1: claimed", "3.0 s"), ("attempt 1: sent", "1.0 s"),
        ("attempt 1: unknown", "1.0 s"), ("scheduled", ""), ("queued", "40 s"), ("attempt 2: claimed", "5.0 s"),
        ("attempt 2: sent", "1.0 s"), ("attempt 2: first token", "2.0 s"), ("text", "1.0 s"),
        ("attempt 2: unknown", "9.0 s"), ("dead", ""), ("webhook job.dead: delivered", "1.0 s"),
    ]  # fmt: skip
    ended = details.story[3]
    for word in ("server_error, HTTP 500", "req_1", "What follows 1."):
        assert word in " ".join(ended.notes), word
    assert ended.words == QUOTED


def test_bars_say_where_the_time_of_each_attempt_went(browser: Browser) -> None:
    details = browser.get(page_url(tried_twice())).context["original"].details
    assert [bar.words for bar in details.bars] == [
        "3.0 s in the queue, sent 1.0 s later, 1.0 s at the provider, queued again after 40 s",
        "5.0 s in the queue, sent 1.0 s later, first token after 2.0 s, 10 s of answer",
    ]
    for bar in details.bars:
        edges = [(float(x), float(width)) for x, width in re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', bar.svg)]
        assert len(edges) == 4
        assert sum(width for _, width in edges) <= 600.5
        assert all(x + width == pytest.approx(after, abs=0.2) for (x, width), (after, _) in pairwise(edges))


def test_words_of_errors_are_for_who_may_see_content_on_page_and_parts() -> None:
    """A provider's words may quote the prompt; the code, the status and the request's id are for everybody."""
    job = tried_twice()
    viewer, reader = staff("view_job"), staff("view_job", "view_job_content")
    for url in (page_url(job), parts_url(job)):
        page = text_of(viewer.get(url))
        assert "the-secret-question" not in page, url
        assert QUOTED not in page, url
        for word in ("server_error", "HTTP 500", "req_2", "What follows 2."):
            assert word in page, (url, word)
        assert QUOTED in text_of(reader.get(url)), url
    Attempt.objects.filter(job=job).update(decision=f"Words that quote: {QUOTED}", error_message="In other words.")
    assert "the-secret-question" not in text_of(viewer.get(page_url(job))), "what can't be told apart is hidden"
    Attempt.objects.filter(job=job).update(decision="Lost lease, tried again.", error_code="lease_lost")
    assert "Lost lease, tried again." in text_of(viewer.get(page_url(job)))


def test_parts_are_what_the_page_shows_and_nothing_that_stays(browser: Browser) -> None:
    job = make_job(
        "completed", body={"messages": [{"role": "user", "content": "the-prompt"}]}, output_text="the-answer"
    )
    page, parts = text_of(browser.get(page_url(job))), text_of(browser.get(parts_url(job)))
    names = re.findall(r'data-part="(\w+)"', parts)
    assert sorted(names) == sorted(set(names))
    assert set(names) == set(re.findall(r'data-part="(\w+)"', page))
    assert "the-answer" in parts
    assert "the-prompt" not in parts


def test_parts_hide_what_the_page_hides(django_assert_max_num_queries: Any) -> None:
    job = make_job("running")
    JobEvent.objects.create(job=job, seq=job.epoch * SEQ_EPOCH + 1, type="delta", data={"text": "the-answer"})
    viewer = staff("view_job")
    with django_assert_max_num_queries(20):
        seen = text_of(viewer.get(parts_url(job)))
    assert "the-answer" not in seen
    assert "…</button>" not in seen
    assert "the-answer" in text_of(staff("view_job", "view_job_content").get(parts_url(job)))
    assert "Cancel…</button>" in text_of(staff("view_job", "cancel_job").get(parts_url(job)))
    assert staff().get(parts_url(job)).status_code == 403
    assert Browser().get(parts_url(job)).status_code == 302
    assert staff("view_job").get("/admin/llmjobs/job/999999999/parts/").status_code == 404


@pytest.mark.parametrize(("permissions", "follows"), [(("view_job",), False), (("view_job", "view_job_content"), True)])
def test_only_who_may_see_content_is_told_to_follow_the_events(permissions: tuple[str, ...], follows: bool) -> None:
    """The event log has the text. (The live layer asks for the same permission: tests/browser/test_job_live.py.)"""
    job = make_job("running")
    request = AsyncRequestFactory().get(page_url(job))  # as an ASGI server's: another has no WebSockets
    request.user = make_user(is_staff=True, permissions=permissions)
    page = site._registry[Job]
    assert isinstance(page, JobPage)
    assert page.details(request, page.get_object(request, str(job.pk)))["follows"] is follows


@pytest.mark.parametrize(
    ("state", "fields", "words"),
    [
        ("completed", {}, "Completed"), ("cancelled", {}, "Cancelled"), ("expired", {}, "before it started"),
        ("failed", {}, "context_length_exceeded (HTTP 400), after 1 failed attempt"),
        ("scheduled", {}, "Waits for its time: not before"),
        ("scheduled", {"attempt": 2, "failures": 2, "result": {"error_code": "overloaded"}},
         "Backs off: attempt 2 ended with overloaded. It is queued again not before"),
        ("running", {}, "Attempt 1 runs for"),
        ("running", {"cancel_requested_at": timezone.now()}, "is being aborted: a cancel was asked for"),
        ("queued", {}, "It is number 1 in line"),
    ],
)  # fmt: skip
def test_one_sentence_says_where_a_job_stands(browser: Browser, state: str, fields: Any, words: str) -> None:
    job = make_job(state, client=make_client(is_paused=True), **fields)
    page = re.sub(r"</?(?:time|a)\b[^>]*>", "", text_of(browser.get(page_url(job))))
    assert words in page


def test_what_holds_a_job_up_is_a_link_to_where_it_is_mended(browser: Browser) -> None:
    client = make_client(is_paused=True)
    page = text_of(browser.get(page_url(make_job(client=client))))
    assert f'<a href="/admin/llmjobs/client/{client.pk}/change/">its client is paused</a>' in page
    model = make_model(is_paused=True)
    page = text_of(browser.get(page_url(make_job(model=model))))
    assert f'<a href="/admin/llmjobs/model/{model.pk}/change/">its model is paused</a>' in page
    page = text_of(browser.get(page_url(make_job())))
    assert '<a href="/admin/llmjobs/worker/">no worker that serves it is alive</a>' in page


def test_a_conversation_shows_calls_and_labels_what_is_no_text(browser: Browser) -> None:
    call = {"id": "call_81", "type": "function", "function": {"name": "look_up", "arguments": '{"quarter":"Q3"}'}}
    body = {"messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "file", "file": {"filename": "report.pdf"}},
            {"type": "input_audio", "input_audio": {"data": "AA"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_81", "content": "12"},
    ]}  # fmt: skip
    output = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}
    job = make_job("completed", body=body, output_text="", result={"output": json.dumps(output)})
    response = browser.get(page_url(job))
    page, details = text_of(response), response.context["original"].details
    for word in (
        "[image_url: https://x.example/a.png]", "[image_url: inline image/png, 26 characters]", "[file: report.pdf]",
        "[input_audio]", "look_up", "call_81", '"quarter": "Q3"',
    ):  # fmt: skip
        assert word in page, word
    assert "<img" not in page.split('class="llmjobs-job"')[1]
    assert [call.name for call in details.answered.calls] == ["look_up"]
    responses = {"output": [{"type": "function_call", "call_id": "c1", "name": "other", "arguments": {"a": 1}}]}
    JobResult.objects.filter(job=job).update(output=json.dumps(responses))
    assert [call.name for call in browser.get(page_url(job)).context["original"].details.answered.calls] == ["other"]


@pytest.mark.parametrize("data", [{}, [], "x", {"status": 7}, {"status": "scheduled", "available_at": "soon"}])
def test_an_event_of_any_shape_is_told(browser: Browser, data: Any) -> None:
    job = make_job("running")
    JobEvent.objects.create(job=job, seq=9 * SEQ_EPOCH, type="status", data=data)
    JobEvent.objects.create(job=job, seq=10 * SEQ_EPOCH, type="reset", data=data)
    assert "the text starts over" in text_of(browser.get(page_url(job)))
