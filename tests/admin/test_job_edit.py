"""Edit and requeue: checked as a submit, shown before it is done, done once, written down without a prompt."""

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client as Browser

from llmjobs.models import Inbox, Job, JobRequest
from llmjobs.states import REQUEUEABLE, State
from tests.admin.pages import hidden_fields, page_url, staff, text_of
from tests.factories import make_client, make_job, make_model, make_tier

pytestmark = pytest.mark.django_db

PROMPT = "the-secret-question"


@pytest.fixture
def job() -> Job:
    body = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0.2}
    client = make_client(tier=make_tier(max_priority=1))
    return make_job(
        "dead", client=client, model=make_model("gpt"), body=body, request={"metadata": {"run": "7"}, "user": "jane"}
    )


def url(job: Job) -> str:
    return f"/admin/llmjobs/job/{job.pk}/edit/"


def form(browser: Browser, job: Job, **changed: Any) -> dict[str, Any]:
    """What the form says, with some of it changed."""
    initial = browser.get(url(job)).context["form"].initial
    return {**initial, **changed}


def reviewed(browser: Browser, job: Job, **changed: Any) -> Any:
    answer = browser.post(url(job), form(browser, job, **changed))
    assert answer.status_code == 200
    return answer


def answered(browser: Browser, job: Job, review: Any, reason: str = "") -> Any:
    fields = {name: values[0] for name, values in hidden_fields(review).items()}
    return browser.post(url(job), {**fields, "reason": reason, "confirmed": "yes"}, follow=True)


def test_an_edited_job_is_shown_first_then_requeued_with_what_was_changed(
    browser: Browser, job: Job, root: Any
) -> None:
    make_model("gpt-large")
    Inbox.objects.all().delete()
    edited = json.dumps({"messages": [{"role": "user", "content": "a shorter question"}], "temperature": 0.2})
    review = reviewed(browser, job, body=edited, model="gpt-large", priority=1, max_attempts=2, timeout_s="30")
    page = text_of(review)
    assert [line.kind for line in review.context["lines"]].count("in") == 1
    assert f'-      "content": "{PROMPT}"' in page
    assert '+      "content": "a shorter question"' in page
    for word in ("gpt-large", "high", "normal"):
        assert word in page, word
    assert Job.objects.get(pk=job.pk).state == State.DEAD, "looking changes nothing"
    assert LogEntry.objects.count() == 0

    assert "Requeued with the edited request." in text_of(answered(browser, job, review, reason="too long"))
    after = Job.objects.select_related("pool").get(pk=job.pk)
    assert (after.state, after.pool.name, after.priority, after.max_attempts, after.timeout_s, after.failures) == (
        State.QUEUED, "gpt-large", 1, 2, 30, 0,
    )  # fmt: skip
    request = JobRequest.objects.get(job=job)
    assert json.loads(request.body)["messages"][0]["content"] == "a shorter question"
    assert (request.metadata, request.user) == ({"run": "7"}, "jane"), "what is not edited stays"
    assert Inbox.objects.filter(queued=1).count() == 1, "the claim hears of it"
    [entry] = LogEntry.objects.all()
    assert entry.user == root
    for word in ("request.messages", "model", "priority", "max attempts", "Timeout", "too long"):
        assert word in entry.change_message, word
    assert "temperature" not in entry.change_message
    assert PROMPT not in entry.change_message
    assert "shorter" not in entry.change_message


def test_a_second_click_requeues_no_second_time(browser: Browser, job: Job) -> None:
    review = reviewed(browser, job, priority=1)
    answered(browser, job, review)
    epoch = Job.objects.get(pk=job.pk).epoch
    assert "it is queued" in text_of(answered(browser, job, review))
    # It ran and died again meanwhile: the form was made for its life before.
    Job.objects.filter(pk=job.pk).update(state="dead", finished_at=job.finished_at, epoch=epoch + 2)
    assert "has moved on" in text_of(answered(browser, job, review))
    assert Job.objects.get(pk=job.pk).epoch == epoch + 2
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"body": '{\n  "messages": [\n    {"role" "user"}\n  ]\n}'}, "body", "line 3, column 13"),
        ({"body": ""}, "body", "required"),
        ({"body": "[]"}, "body", "expected an object, got an array"),
        ({"body": "{}"}, "body", "expected messages"),
        ({"body": '{"messages": [{"content": "x"}]}'}, "body", "messages[0].role: expected a string"),
        ({"body": '{"messages": [{"role": "user", "content": "\\u0000"}]}'}, "body", "without NUL"),
        ({"body": "[" * 100_000}, "body", "Expected JSON"),
        ({"model": ""}, "model", "required"),
        ({"priority": "99"}, "priority", "valid choice"),
        ({"max_attempts": "0"}, "max_attempts", "expected a whole number"),
        ({"timeout_s": "nan"}, "timeout_s", "Enter a number"),
        ({"timeout_s": "1e12"}, "timeout_s", "expected a number"),
        ({"epoch": "x"}, "epoch", "whole number"),
    ],
)  # fmt: skip
def test_what_a_submit_would_refuse_is_refused_beside_its_field(
    browser: Browser, job: Job, changed: dict[str, str], field: str, words: str
) -> None:
    for more in ({}, {"confirmed": "yes"}):
        answer = browser.post(url(job), form(browser, job, **changed, **more))
        assert words in " ".join(answer.context["form"].errors[field]), answer.context["form"].errors
    assert Job.objects.get(pk=job.pk).state == State.DEAD


def test_what_only_the_database_knows_is_refused_beside_its_field(browser: Browser, job: Job) -> None:
    for field, changed in (("model", {"model": "no-such-model"}), ("priority", {"priority": 0})):
        answer = browser.post(url(job), form(browser, job, confirmed="yes", **changed))
        assert answer.context["form"].errors[field], field
    assert Job.objects.get(pk=job.pk).state == State.DEAD
    assert LogEntry.objects.count() == 0


@pytest.mark.parametrize("permissions", [("requeue_job",), ("view_job_content",), ("cancel_job", "change_job")])
def test_editing_needs_both_to_requeue_and_to_see_content(job: Job, permissions: tuple[str, ...]) -> None:
    someone = staff("view_job", *permissions)
    for answer in (someone.get(url(job)), someone.post(url(job), {"confirmed": "yes"})):
        assert answer.status_code == 403
        assert PROMPT not in answer.content.decode()
    assert "Edit and requeue" not in text_of(someone.get(page_url(job)))
    allowed = staff("view_job", "requeue_job", "view_job_content")
    assert "Edit and requeue" in text_of(allowed.get(page_url(job)))
    assert PROMPT in text_of(allowed.get(url(job)))


def test_only_what_can_be_requeued_is_edited(browser: Browser) -> None:
    client, model = make_client(), make_model()
    for state in State:
        job = make_job(state, client=client, model=model)
        answer = browser.get(url(job))
        assert answer.status_code == (200 if state in REQUEUEABLE else 302), state
    erased = make_job("dead", client=client, model=model)
    JobRequest.objects.filter(job=erased).update(body="")
    assert "its request was erased" in text_of(browser.get(url(erased), follow=True))
    JobRequest.objects.filter(job=erased).update(body="no json")
    assert "it is no JSON" in text_of(browser.get(url(erased), follow=True))
    assert browser.get("/admin/llmjobs/job/999999999/edit/").status_code == 404


def test_nothing_is_requeued_by_get_or_without_a_token(browser: Browser, job: Job, root: Any) -> None:
    fields = form(browser, job, confirmed="yes")
    browser.get(url(job), fields)
    strict = Browser(enforce_csrf_checks=True)
    strict.force_login(root)
    assert strict.post(url(job), fields).status_code == 403
    assert Job.objects.get(pk=job.pk).state == State.DEAD


def test_a_request_too_long_for_a_form_says_so(browser: Browser, job: Job, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmjobs.admin.job_editing.BODY_BYTES_MAX", 20)
    assert "too long for a form" in text_of(browser.get(url(job), follow=True))
