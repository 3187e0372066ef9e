"""The page of one job: everything about it, in few queries, cut where it is long, hidden where it is not to be read."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmjobs import queue
from llmjobs.admin.cells import TEXT_CHARS_MAX
from llmjobs.admin.job_page import ATTEMPTS_MAX, EVENTS_MAX
from llmjobs.models import Attempt, Job, JobEvent, JobRequest, JobResult
from llmjobs.states import SEQ_EPOCH, Endpoint
from tests.admin.pages import page_url, staff, text_of
from tests.factories import make_client, make_job, make_model, make_worker

pytestmark = pytest.mark.django_db

SECRET_PROMPT, SECRET_ANSWER = "the-secret-question", "the-secret-answer"


def secret_job(state: str = "completed", **fields: Any) -> Job:
    body = {"messages": [{"role": "user", "content": SECRET_PROMPT}]}
    return make_job(state, body=body, output_text=SECRET_ANSWER, **fields)


def test_a_page_is_found_by_number_and_by_public_id(browser: Browser) -> None:
    job = make_job()
    for key in (job.pk, job.public_id, job.public_id.hex):
        assert str(job.public_id) in text_of(browser.get(f"/admin/llmjobs/job/{key}/change/")), key


def test_a_page_shows_request_output_attempts_and_timeline(browser: Browser) -> None:
    job = secret_job(client=make_client("acme"), request={"metadata": {"run": "7"}, "idempotency_key": "order-17"})
    Attempt.objects.filter(job=job).update(provider_request_id="req_42", decision="The answer is complete.")
    page = text_of(browser.get(page_url(job)))
    for word in (
        SECRET_PROMPT, SECRET_ANSWER, "acme", "run=7", "order-17", "req_42", "The answer is complete.", "8 + 3",
        "$0.0001", "running, attempt 1", "1 pieces, 17 characters",
    ):  # fmt: skip
        assert word in page, word


def test_who_may_not_see_content_sees_none_of_it_anywhere(django_assert_num_queries: Any) -> None:
    jobs = [secret_job("completed"), secret_job("running")]
    JobEvent.objects.create(job=jobs[1], seq=3 * SEQ_EPOCH, type="delta", data={"text": SECRET_ANSWER})
    viewer = staff("view_job")
    for job in jobs:
        with CaptureQueriesContext(connection) as captured:
            page = text_of(viewer.get(page_url(job)))
        assert "hidden" in page
        assert SECRET_PROMPT not in page
        assert SECRET_ANSWER not in page
        read = "\n".join(query["sql"] for query in captured)
        assert '"body"' not in read, "what may not be shown need not be read"
        assert '"output_text"' not in read
        assert '"output"' not in read
    assert SECRET_PROMPT in text_of(staff("view_job", "view_job_content").get(page_url(jobs[0])))


def test_markup_in_a_prompt_or_an_answer_stays_text(browser: Browser) -> None:
    evil = "<script>alert(1)</script>"
    job = make_job(
        "completed",
        body={"messages": [{"role": evil, "content": evil}]},
        output_text=evil,
        request={"metadata": {evil: evil}, "user": evil},
        result={"error_code": evil, "error_message": evil},
    )
    Attempt.objects.filter(job=job).update(error_code=evil, error_message=evil, decision=evil)
    assert "<script>alert" not in browser.get(page_url(job)).content.decode()
    assert "<script>alert" not in browser.get("/admin/llmjobs/job/").content.decode()


def chat(message: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [message]}


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (
            Endpoint.CHAT,
            chat({"role": "system", "content": [{"type": "text", "text": "be brief"}]}),
            ["system", "be brief"],
        ),
        (Endpoint.CHAT, chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}), ["[image_url]"]),
        (Endpoint.CHAT, chat({"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]}), ["call_1"]),
        (Endpoint.RESPONSES, {"instructions": "be kind", "input": "hello you"}, ["be kind", "hello you"]),
        (Endpoint.RESPONSES, {"input": [{"role": "user", "content": [{"text": "hi"}]}]}, ["user", "hi"]),
        (Endpoint.EMBEDDINGS, {"input": ["one text", "two texts"]}, ["one text", "two texts"]),
        (Endpoint.EMBEDDINGS, {"input": [[1, 2, 3]]}, ["1", "2", "3"]),
    ],
)
def test_messages_of_all_endpoints_are_read_as_text(
    browser: Browser, endpoint: str, body: dict[str, Any], expected: list[str]
) -> None:
    job = make_job(endpoint=endpoint, body=body)
    shown = browser.get(page_url(job)).context["original"].details.asked.messages
    words = "\n".join(f"{message.role} {message.text} {message.more}" for message in shown)
    assert shown
    for word in expected:
        assert word in words, word


@pytest.mark.parametrize(
    "body", ["[]", "7", "not json", '{"messages": 7}', '{"messages": [null, 3, {"content": {"a": 1}}]}']
)
def test_a_body_of_any_shape_can_be_read(browser: Browser, body: str) -> None:
    job = make_job()
    JobRequest.objects.filter(job=job).update(body=body)
    assert browser.get(page_url(job)).status_code == 200


def test_long_texts_are_cut_with_a_note(browser: Browser) -> None:
    long = "x" * (TEXT_CHARS_MAX + 50)
    body = {"messages": [{"role": "user", "content": long}, {"role": "user", "content": "the last message"}]}
    job = make_job("completed", body=body, output_text=long, result={"output": json.dumps({"text": long})})
    response = browser.get(page_url(job))
    details = response.context["original"].details
    for text, note in (
        (details.asked.messages[0].text, details.asked.note), (details.asked.json, details.asked.json_note),
        (details.answered.text, details.answered.text_note), (details.answered.json, details.answered.json_note),
    ):  # fmt: skip
        assert len(text) == TEXT_CHARS_MAX
        assert "first 100,000 characters" in note
        assert note in text_of(response)
    assert len(details.asked.messages) == 1
    assert len(response.content) < 6 * TEXT_CHARS_MAX


def test_a_running_job_shows_what_its_present_attempt_said(browser: Browser) -> None:
    job = make_job("running", attempt=2)
    for epoch, number, text in ((job.epoch - 1, 1, "lost"), (job.epoch, 1, "so "), (job.epoch, 2, "far")):
        JobEvent.objects.create(job=job, seq=epoch * SEQ_EPOCH + number, type="delta", data={"text": text})
    answered = browser.get(page_url(job)).context["original"].details.answered
    assert answered.text == "so far"


def test_deltas_are_one_line_an_epoch_however_many(browser: Browser) -> None:
    job = make_job("running")
    JobEvent.objects.bulk_create(
        JobEvent(job=job, seq=epoch * SEQ_EPOCH + number, type="delta", data={"text": "ab"})
        for epoch in (5, 6)
        for number in range(1, 501)
    )
    lines = browser.get(page_url(job)).context["original"].details.timeline
    assert [line.text.split(" in ")[0] for line in lines if line.type == "delta"] == [
        "500 pieces, 1,000 characters"
    ] * 2
    assert [line.epoch for line in lines] == [6, 5, 2, 1]


def test_events_and_attempts_are_the_newest_few(browser: Browser) -> None:
    job = make_job("running", attempt=ATTEMPTS_MAX + 20)
    JobEvent.objects.bulk_create(
        JobEvent(job=job, seq=epoch * SEQ_EPOCH, type="status", data={"status": "queued"})
        for epoch in range(10, 10 + EVENTS_MAX + 20)
    )
    template = Attempt.objects.get(job=job)
    Attempt.objects.bulk_create(
        Attempt(
            job=job, number=number, pool=template.pool, client=job.client, tier=template.tier, worker_id=uuid.uuid4(),
            waited_s=0, charged=1, flow_weight=1, tier_weight=1,
        )
        for number in range(1, ATTEMPTS_MAX + 20)
    )  # fmt: skip
    response = browser.get(page_url(job))
    details = response.context["original"].details
    assert len(details.timeline) == EVENTS_MAX
    assert details.timeline[0].epoch == 9 + EVENTS_MAX + 20
    assert [row.number for row in details.attempts][:2] == [ATTEMPTS_MAX + 20, ATTEMPTS_MAX + 19]
    assert len(details.attempts) == ATTEMPTS_MAX
    assert "All attempts" in text_of(response)
    assert "All events" in text_of(response)


def test_a_page_costs_the_same_queries_whatever_the_job_went_through(
    browser: Browser, django_assert_max_num_queries: Any
) -> None:
    counts = []
    for number in (5, 50):
        job = make_job("running", attempt=100)
        for attempt in range(number):
            Attempt.objects.create(
                job=job, number=attempt, pool=make_model(), client=job.client, tier=job.tier,
                worker_id=make_worker().pk, waited_s=0, charged=1, flow_weight=1, tier_weight=1,
            )  # fmt: skip
            JobEvent.objects.create(job=job, seq=(attempt + 5) * SEQ_EPOCH, type="status", data={"status": "queued"})
        with django_assert_max_num_queries(16) as captured:
            browser.get(page_url(job))
        counts.append(len(captured))
    assert counts[0] == counts[1], counts


def test_an_erased_job_keeps_its_ledger_on_its_page(browser: Browser) -> None:
    job = make_job("completed")
    for table in (JobRequest, JobResult, JobEvent):
        table.objects.filter(job=job).delete()
    page = text_of(browser.get(page_url(job)))
    assert "erased" in page
    assert "8 + 3" in page


def test_a_waiting_job_says_why_it_waits(browser: Browser) -> None:
    blocked = make_job(client=make_client(is_paused=True))
    assert "its client is paused" in text_of(browser.get(page_url(blocked)))
    scheduled = make_job("scheduled", available_at=timezone.now() + timedelta(hours=3))
    assert "not before" in text_of(browser.get(page_url(scheduled)))


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        ("scheduled", ["Cancel"]), ("queued", ["Cancel"]), ("running", ["Cancel"]), ("completed", []),
        ("failed", ["Requeue"]), ("dead", ["Requeue"]), ("cancelled", ["Requeue"]), ("expired", ["Requeue"]),
    ],
)  # fmt: skip
def test_a_page_offers_what_the_state_allows(browser: Browser, state: str, buttons: list[str]) -> None:
    page = text_of(browser.get(page_url(make_job(state))))
    assert [label for label in ("Requeue", "Cancel") if f">{label}…</button>" in page] == buttons


def test_a_letter_that_was_discarded_is_not_offered_to_be_discarded_again(browser: Browser) -> None:
    job = make_job("dead")
    assert "Discard…</button>" in text_of(browser.get(page_url(job)))
    queue.discard([job.pk])
    assert "Discard…</button>" not in text_of(browser.get(page_url(job)))
    queue.restore([job.pk])
    assert "Discard…</button>" in text_of(browser.get(page_url(job)))


def test_of_an_erased_job_neither_erase_nor_requeue_is_offered(browser: Browser) -> None:
    job = make_job("dead")
    shown = text_of(browser.get(page_url(job)))
    assert "Erase…</button>" in shown and "Requeue…</button>" in shown
    queue.erase(job.pk)
    shown = text_of(browser.get(page_url(job)))
    assert "Erase…</button>" not in shown and "Requeue…</button>" not in shown


def test_buttons_are_for_those_who_may(browser: Browser) -> None:
    job = make_job("dead")
    assert "…</button>" not in text_of(staff("view_job", "cancel_job").get(page_url(job)))
    assert "Requeue…</button>" in text_of(staff("view_job", "requeue_job").get(page_url(job)))
