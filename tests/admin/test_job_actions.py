"""What is done to many jobs: asked once, POST only, by permission, through the verbs, reported and written down."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client as Browser

from llmjobs import operation_history, operations, queue
from llmjobs.admin import job_actions
from llmjobs.models import Inbox, Job, Operation
from llmjobs.operation_verbs import VERBS
from llmjobs.states import REQUEUEABLE, Priority, State
from llmjobs.time_limits import TooSlow
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


def test_a_question_about_nothing_can_not_be_answered(browser: Browser) -> None:
    over, waiting = make_job("completed"), make_job("queued")
    idle, useful = (text_of(ask(browser, URL, "reprioritize", *jobs)) for jobs in ([over], [over, waiting]))
    assert 'value="Change the priority of 0 jobs" disabled' in idle
    assert "There is nothing to do." in idle
    assert 'value="Change the priority of 1 job">' in useful
    assert "There is nothing to do." not in useful


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
    begun, entry = LogEntry.objects.order_by("pk")
    assert (begun.user, begun.object_repr, begun.change_message) == (
        root, "Requeue 2 jobs", "Requeue 2 jobs: provider is back",
    )  # fmt: skip
    assert (entry.user, entry.object_id, entry.change_message) == (root, str(dead.pk), "Requeued: provider is back")
    assert "Requeue 2 jobs: provider is back" in text_of(
        browser.get(f"{page_url(Operation.objects.get())[:-7]}history/")
    )
    assert "Requeued: provider is back" in text_of(browser.get(f"{URL}{dead.pk}/history/"))


def test_of_many_the_operation_is_written_down_and_not_each_job(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(operation_history, "LOG_EACH_MAX", 3)
    client, model = make_client(), make_model()
    jobs = [make_job("dead", client=client, model=model) for _ in range(5)]
    confirm(browser, URL, ask(browser, URL, "requeue", *jobs), reason="all of them")
    said = [(entry.object_repr, entry.change_message) for entry in LogEntry.objects.order_by("pk")]
    assert said == [("Requeue 5 jobs", "Requeue 5 jobs: all of them"), ("Requeue 5 jobs", "Requeued 5 of 5 jobs.")]
    in_lane = list(Job.objects.order_by("lane_order").values_list("pk", flat=True))
    assert in_lane == [job.pk for job in jobs], "the oldest first: they keep their order"


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
    queue.requeue([job.pk])
    assert "1 queued (waiting already)" in text_of(confirm(browser, URL, question))
    assert Job.objects.get(pk=job.pk).epoch == job.epoch + 1


def test_a_double_click_starts_one_operation(browser: Browser) -> None:
    job = make_job("dead")
    question = ask(browser, URL, "requeue", job)
    for _ in range(2):
        assert "Requeued 1 job." in text_of(confirm(browser, URL, question, reason="provider is back"))
    assert Operation.objects.count() == 1
    assert Job.objects.get(pk=job.pk).epoch == job.epoch + 1
    assert LogEntry.objects.count() == 2, "the operation and its job"


def test_somebody_elses_answer_is_not_mine(browser: Browser) -> None:
    job = make_job("dead")
    question = ask(browser, URL, "requeue", job)
    confirm(browser, URL, question)
    other = staff("view_job", "requeue_job")
    answer = other.post(URL, {**hidden_fields(question), "reason": ""})
    assert "Requeue 0 jobs" in text_of(answer), "asked anew"


def test_nothing_is_done_without_the_questions_own_token(browser: Browser) -> None:
    job = make_job("dead")
    fields = hidden_fields(ask(browser, URL, "requeue", job))
    for token in ("", "nonsense", "0" * 40):
        browser.post(URL, {**fields, "token": token, "reason": ""})
    assert Job.objects.get(pk=job.pk).state == State.DEAD


def test_many_are_counted_up_to_a_bound_and_done_in_the_background(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(job_actions, "COUNTED_MAX", 3)
    monkeypatch.setattr(operations, "IN_REQUEST_MAX", 2)
    client, model = make_client("acme"), make_model()
    jobs = [make_job("dead", client=client, model=model) for _ in range(5)]
    url = f"{URL}?client=acme"
    question = ask(browser, url, "requeue", jobs[0], across=True)
    assert "more than 3 jobs" in text_of(question)
    answer = confirm(browser, url, question)
    operation = Operation.objects.get()
    assert answer.redirect_chain == [(page_url(operation), 302)]
    assert (operation.total, operation.changed, operation.selection) == (5, 0, "all with client acme")
    assert states() == ["dead"] * 5
    assert "0</strong>" not in text_of(answer) and "of 5" in text_of(answer)


def test_a_filter_that_takes_too_long_is_said_and_starts_nothing(browser: Browser, monkeypatch: Any) -> None:
    job = make_job("dead")

    def slow(seconds: float, *, using: str) -> Any:
        raise TooSlow

    question = ask(browser, f"{URL}?status=dead", "requeue", job, across=True)
    monkeypatch.setattr(job_actions, "time_limit", slow)
    monkeypatch.setattr(operations, "time_limit", slow)
    assert "Counting them took too long" in text_of(ask(browser, f"{URL}?status=dead", "requeue", job, across=True))
    assert "narrow them by" in text_of(confirm(browser, f"{URL}?status=dead", question))
    assert states() == ["dead"]
    assert not Operation.objects.exists()


def test_a_priority_a_model_and_a_pace_are_asked_for(browser: Browser) -> None:
    job, other = make_job("queued", client=make_client(tier="enterprise")), make_model("other")
    for action, field, value in (("reprioritize", "priority", "high"), ("move", "model", "other")):
        question = ask(browser, URL, action, job)
        assert f'name="{field}"' in text_of(question), action
        bad = browser.post(URL, {**hidden_fields(question), field: "nonsense", "reason": ""})
        assert "nonsense" in text_of(bad) and 'name="confirmed"' in text_of(bad), action
        answer = browser.post(URL, {**hidden_fields(question), field: value, "reason": ""}, follow=True)
        assert "1 job." in text_of(answer), action
    job.refresh_from_db()
    assert (job.priority, job.pool) == (1, other)
    dead = make_job("dead")
    assert "rate_per_s" not in text_of(ask(browser, URL, "requeue", dead)), "one job has no pace"
    question = ask(browser, URL, "requeue", dead, make_job("failed"))
    browser.post(URL, {**hidden_fields(question), "rate_per_s": "0.5", "reason": ""})
    assert Operation.objects.latest("pk").rate_per_s == 0.5
    assert Job.objects.get(pk=dead.pk).state == State.DEAD, "in the background, at its pace"


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


@pytest.mark.parametrize("action", sorted(VERBS))
def test_an_action_needs_its_own_permission(action: str) -> None:
    job = make_job("queued" if action in ("cancel", "reprioritize", "move") else "dead")
    others = {verb.permission.removeprefix("llmjobs.") for verb in VERBS.values() if verb.name != action}
    nobody = staff("view_job", "change_job", *others)
    somebody = staff("view_job", VERBS[action].permission.removeprefix("llmjobs."))
    question = ask(somebody, URL, action, job)
    assert question.status_code == 200, "asked"
    fields = {**hidden_fields(question), "priority": "low", "model": "", "format": "csv", "reason": ""}
    nobody.post(URL, fields)
    assert not Operation.objects.exists()


def test_a_form_gone_back_to_and_answered_otherwise_is_not_taken_for_a_second_click(browser: Browser) -> None:
    job = make_job("queued")
    fields = {**hidden_fields(ask(browser, URL, "reprioritize", job)), "reason": ""}
    for _ in range(2):
        answer = browser.post(URL, {**fields, "priority": "low"}, follow=True)
        assert "Changed the priority of 1 job." in text_of(answer)
    again = browser.post(URL, {**fields, "priority": "background"})
    assert "Nothing was done now: send it again" in text_of(again)
    assert Operation.objects.count() == 1
    browser.post(URL, {**hidden_fields(again), "priority": "background", "reason": ""})
    job.refresh_from_db()
    assert job.priority == Priority.BACKGROUND


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
