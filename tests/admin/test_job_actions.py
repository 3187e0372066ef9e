"""Requeue and cancel: asked once, POST only, by permission, through the verbs, reported and written down."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client as Browser

from llmjobs.admin import confirm as confirming
from llmjobs.admin import job_actions
from llmjobs.models import Inbox, Job
from llmjobs.states import REQUEUEABLE, State
from tests.admin.pages import ask, confirm, hidden_fields, page_url, staff, text_of
from tests.factories import make_client, make_job, make_model

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/job/"


def said(response: Any) -> str:
    return " ".join(str(message) for message in get_messages(response.wsgi_request)) or text_of(response)


def states() -> list[str]:
    return list(Job.objects.order_by("pk").values_list("state", flat=True))


def test_asking_changes_nothing_and_counts_by_state(browser: Browser) -> None:
    jobs = [make_job(state) for state in ("dead", "dead", "completed", "queued")]
    before = states()
    question = ask(browser, URL, "requeue", *jobs)
    page = text_of(question)
    assert states() == before
    assert "Requeue 2 jobs" in page
    assert "1 completed (an answer stands)" in page
    assert "1 queued (waiting already)" in page
    assert LogEntry.objects.count() == 0


def test_requeue_does_what_it_can_and_says_what_it_left_alone(browser: Browser) -> None:
    jobs = [make_job(state) for state in State]
    Inbox.objects.all().delete()
    answer = confirm(browser, URL, ask(browser, URL, "requeue", *jobs), reason="provider is back")
    for job in jobs:
        was = State(job.state)
        job.refresh_from_db()
        assert job.state == (State.QUEUED if was in REQUEUEABLE else was), was
    page = text_of(answer)
    assert "Requeued 4 jobs." in page
    assert "1 completed (an answer stands)" in page
    assert "1 running (not over)" in page
    assert Inbox.objects.filter(queued=1).count() == 4, "the verb, not an UPDATE: the claim must hear of it"


def test_cancel_ends_what_waits_and_tells_what_runs(browser: Browser) -> None:
    jobs = {state: make_job(state) for state in State}
    answer = confirm(browser, URL, ask(browser, URL, "cancel", *jobs.values()))
    for job in jobs.values():
        job.refresh_from_db()
    assert jobs[State.QUEUED].state == jobs[State.SCHEDULED].state == State.CANCELLED
    assert jobs[State.RUNNING].state == State.RUNNING
    assert jobs[State.RUNNING].cancel_requested_at is not None
    assert jobs[State.DEAD].state == State.DEAD
    page = text_of(answer)
    assert "Cancelled 3 jobs." in page
    assert "Of these 1 was running" in page
    assert "1 dead (over)" in page


def test_a_second_cancel_of_a_running_job_is_left_alone(browser: Browser) -> None:
    job = make_job("running")
    for expected in ("Cancelled 1 job.", "1 running (told to stop before)"):
        assert expected in text_of(confirm(browser, URL, ask(browser, URL, "cancel", job)))


def test_every_job_that_changed_is_in_the_history_with_who_what_and_why(browser: Browser, root: Any) -> None:
    dead, completed = make_job("dead"), make_job("completed")
    confirm(browser, URL, ask(browser, URL, "requeue", dead, completed), reason="provider is back")
    [entry] = LogEntry.objects.all()
    assert (entry.user, entry.object_id, entry.change_message) == (root, str(dead.pk), "Requeued: provider is back")
    assert "Requeued: provider is back" in text_of(browser.get(f"{URL}{dead.pk}/history/"))


def test_large_selections_are_written_down_a_batch_at_a_time(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(confirming, "LOG_EACH_MAX", 3)
    monkeypatch.setattr(job_actions, "BATCH", 2)
    client, model = make_client(), make_model()
    jobs = [make_job("dead", client=client, model=model) for _ in range(5)]
    confirm(browser, URL, ask(browser, URL, "requeue", *jobs), reason="all of them")
    entries = list(LogEntry.objects.order_by("pk"))
    assert [entry.object_repr for entry in entries] == ["2 jobs", "2 jobs", "1 jobs"]
    named = " ".join(entry.change_message.partition("ids ")[2] for entry in entries).split()
    assert [int(pk) for pk in named] == [job.pk for job in jobs], "the oldest first: they keep their order"
    assert all(entry.change_message.startswith("Requeued: all of them") for entry in entries)


def test_all_that_the_filter_matches_can_be_selected(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmjobs.admin.pages.ViewOnlyPage.list_per_page", 2)
    acme, model = make_client("acme"), make_model()
    mine = [make_job("dead", client=acme, model=model) for _ in range(5)]
    other = make_job("dead")
    url = f"{URL}?client=acme&status=dead"
    question = ask(browser, url, "requeue", mine[-1], across=True)
    assert "Requeue 5 jobs" in text_of(question)
    assert "Requeued 5 jobs." in text_of(confirm(browser, url, question))
    other.refresh_from_db()
    assert other.state == State.DEAD


def test_what_came_to_match_after_the_question_is_not_touched(browser: Browser) -> None:
    model = make_model()
    asked = make_job("dead", model=model)
    url = f"{URL}?status=dead"
    question = ask(browser, url, "requeue", asked, across=True)
    late = make_job("dead", model=model)
    confirm(browser, url, question)
    late.refresh_from_db()
    asked.refresh_from_db()
    assert (asked.state, late.state) == (State.QUEUED, State.DEAD)


def test_what_moved_on_after_the_question_is_left_alone(browser: Browser) -> None:
    """The verb decides by what it finds; the states read for the question only explain."""
    job = make_job("dead")
    question = ask(browser, URL, "requeue", job)
    confirm(browser, URL, question)
    job.refresh_from_db()
    epoch = job.epoch
    assert "1 queued (waiting already)" in text_of(confirm(browser, URL, question))
    job.refresh_from_db()
    assert job.epoch == epoch


def test_a_selection_has_a_bound_and_says_so(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(confirming, "SELECTED_MAX", 3)
    client, model = make_client("acme"), make_model()
    jobs = [make_job("dead", client=client, model=model) for _ in range(5)]
    url = f"{URL}?client=acme"
    question = ask(browser, url, "requeue", jobs[0], across=True)
    assert "More than 3 jobs match" in text_of(question)
    confirm(browser, url, question)
    assert states() == ["dead", "dead", "queued", "queued", "queued"], "the newest"


def test_nothing_is_done_by_get(browser: Browser) -> None:
    job = make_job("dead")
    fields = hidden_fields(ask(browser, URL, "requeue", job))
    browser.get(URL, {name: values[0] for name, values in fields.items()})
    job.refresh_from_db()
    assert job.state == State.DEAD


def test_nothing_is_done_without_a_token(root: Any) -> None:
    job = make_job("dead")
    strict = Browser(enforce_csrf_checks=True)
    strict.force_login(root)
    assert ask(strict, URL, "requeue", job, confirmed="yes").status_code == 403


@pytest.mark.parametrize(
    ("permission", "action"), [("cancel_job", "requeue"), ("requeue_job", "cancel"), ("view_job", "requeue")]
)
def test_an_action_needs_its_own_permission(permission: str, action: str) -> None:
    job = make_job("dead" if action == "requeue" else "queued")
    before = job.state
    ask(staff(*{"view_job", "change_job", permission}), URL, action, job, confirmed="yes")
    job.refresh_from_db()
    assert job.state == before


def test_the_permission_alone_is_enough(browser: Browser) -> None:
    job = make_job("dead")
    operator = staff("view_job", "requeue_job")
    confirm(operator, URL, ask(operator, URL, "requeue", job))
    job.refresh_from_db()
    assert job.state == State.QUEUED


def test_a_button_on_a_jobs_page_comes_back_to_it(browser: Browser) -> None:
    job = make_job("dead")
    answer = confirm(browser, URL, ask(browser, URL, "requeue", job, from_page="1"))
    assert answer.redirect_chain == [(page_url(job), 302)]
    assert "Requeued 1 job." in text_of(answer)


@pytest.mark.parametrize("key", ["", "abc", "9" * 30, "1.5"])
def test_a_forged_selection_selects_nothing(browser: Browser, key: str) -> None:
    job = make_job("dead")
    answer = browser.post(URL, {"action": "requeue", "_selected_action": [key], "index": 0, "confirmed": "yes"})
    assert answer.status_code == 302
    job.refresh_from_db()
    assert job.state == State.DEAD


def test_a_reason_that_is_too_long_is_asked_for_again(browser: Browser) -> None:
    job = make_job("dead")
    answer = confirm(browser, URL, ask(browser, URL, "requeue", job), reason="x" * 201)
    assert "at most 200 characters" in text_of(answer)
    job.refresh_from_db()
    assert job.state == State.DEAD
