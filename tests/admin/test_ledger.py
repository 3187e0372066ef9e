"""Attempts, events, requests and results across jobs: found by their job, readable without it, silent on content."""

from typing import Any

import pytest
from django.test import Client as Browser

from llmjobs.models import Attempt, Job, JobEvent, JobRequest, JobResult
from tests.admin.pages import list_url, page_url, staff, text_of
from tests.factories import make_job

pytestmark = pytest.mark.django_db

PROMPT, ANSWER = "the-secret-question", "the-secret-answer"
TABLES = [Attempt, JobEvent, JobRequest, JobResult]


def secret_job() -> Job:
    return make_job("completed", body={"messages": [{"role": "user", "content": PROMPT}]}, output_text=ANSWER)


def listed(browser: Browser, table: Any, **query: Any) -> list[Any]:
    return list(browser.get(list_url(table.__name__), query).context["cl"].result_list)


@pytest.mark.parametrize("table", TABLES)
def test_rows_are_found_by_their_job(browser: Browser, table: Any) -> None:
    job, _ = secret_job(), secret_job()
    for term in (str(job.public_id), str(job.pk)):
        found = listed(browser, table, q=term)
        assert found
        assert {row.job_id for row in found} == {job.pk}
    assert listed(browser, table, q="nope") == []


@pytest.mark.parametrize("table", TABLES)
def test_rows_outlive_their_job(browser: Browser, table: Any) -> None:
    job = secret_job()
    Job.objects.filter(pk=job.pk)._raw_delete("default")
    [row, *_] = listed(browser, table)
    assert "removed" in text_of(browser.get(list_url(table.__name__)))
    assert "removed" in text_of(browser.get(page_url(row)))


def test_content_is_shown_to_those_who_may_see_it(browser: Browser) -> None:
    job = secret_job()
    delta = JobEvent.objects.get(job=job, type="delta")
    assert PROMPT in text_of(browser.get(page_url(job.request)))
    assert ANSWER in text_of(browser.get(page_url(job.result)))
    assert ANSWER in text_of(browser.get(page_url(delta)))


@pytest.mark.parametrize("table", TABLES)
def test_content_is_hidden_from_those_who_may_not(table: Any) -> None:
    secret_job()
    viewer = staff(f"view_{table.__name__.lower()}")
    pages = [text_of(viewer.get(list_url(table.__name__)))]
    pages += [text_of(viewer.get(page_url(row))) for row in table.objects.all()]
    for page in pages:
        assert PROMPT not in page
        assert ANSWER not in page
    if table is not Attempt:
        assert "hidden" in pages[-1]


@pytest.mark.parametrize(
    ("table", "lookup"),
    [
        (JobRequest, "body__contains"), (JobRequest, "body__startswith"), (JobResult, "output_text__contains"),
        (JobResult, "output__contains"), (JobEvent, "data__text__contains"), (Attempt, "job__request__body__contains"),
        (Job, "request__body__contains"), (Job, "result__output_text__contains"),
        (JobRequest, "job__result__output__contains"),
    ],
)  # fmt: skip
def test_no_filter_of_ones_own_making_can_guess_at_content(browser: Browser, table: Any, lookup: str) -> None:
    """A list that is empty or not, by a lookup in the address, would tell a text letter by letter."""
    secret_job()
    assert browser.get(list_url(table.__name__), {lookup: "the-secret"}).status_code == 400


def test_attempts_are_filtered_by_outcome_model_error_and_day(browser: Browser) -> None:
    dead, running = make_job("dead"), make_job("running")
    for query, job in (
        ({"outcome": "unknown"}, dead), ({"outcome": "open"}, running), ({"model": dead.pool.name}, dead),
        ({"error": "server_error"}, dead),
    ):  # fmt: skip
        assert [row.job_id for row in listed(browser, Attempt, **query)] == [job.pk], query
    assert listed(browser, Attempt, claimed_to="2020-01-01") == []
    assert len(listed(browser, Attempt, claimed_from="2020-01-01")) == 2


def test_an_attempts_page_has_all_that_the_ledger_knows(browser: Browser) -> None:
    job = make_job("dead")
    Attempt.objects.update(provider_request_id="req_42", decision="Failure 5 of 5: dead-lettered.")
    page = text_of(browser.get(page_url(Attempt.objects.get(job=job))))
    for word in (
        "server_error",
        "The provider had an error.",
        "req_42",
        "Failure 5 of 5: dead-lettered.",
        str(job.public_id),
    ):
        assert word in page, word


def test_events_are_filtered_by_type(browser: Browser) -> None:
    secret_job()
    assert {row.type for row in listed(browser, JobEvent, type="delta")} == {"delta"}
