"""The page of dead letters: groups that count right, whoever looks; what is done is done to what was asked about."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import DeadLetter, Job, Operation
from tests.admin.pages import hidden_fields, list_url, page_url, staff, text_of
from tests.factories import make_client, make_job, make_model

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/deadletter/"


@pytest.fixture
def letters() -> dict[str, list[Job]]:
    """Of two errors at two models, for two clients; by (error, model, client)."""
    acme, globex, gpt, llama = make_client("acme"), make_client("globex"), make_model("gpt"), make_model("llama")
    asked = [
        ("timeout", gpt, acme, 3),
        ("timeout", gpt, globex, 2),
        ("timeout", llama, acme, 1),
        ("refused", gpt, acme, 1),
    ]
    return {
        f"{code} {model} {client}": [
            make_job("dead", client=client, model=model, result={"error_code": code, "error_message": f"Saw: {code}"})
            for _ in range(number)
        ]
        for code, model, client, number in asked
    }  # fmt: skip


def numbers(page: Any) -> list[int]:
    return [int(number) for number in re.findall(r'These among the jobs">(\d+)<', text_of(page))]


def ask(browser: Browser, action: str, query: str = "", **of: str) -> Any:
    return browser.post(URL + query, {"action": action, **{f"of_{name}": value for name, value in of.items()}})


def answer(browser: Browser, question: Any, **more: Any) -> Any:
    return browser.post(URL, {**hidden_fields(question), "reason": "it is back", **more}, follow=True)


def states(jobs: list[Job]) -> set[str]:
    return set(Job.objects.filter(pk__in=[job.pk for job in jobs]).values_list("state", flat=True))


def test_letters_are_counted_by_error_and_model_and_then_by_client(browser: Browser, letters: Any) -> None:
    make_job("completed")
    assert numbers(browser.get(URL)) == [5, 1, 1]
    assert "7</strong> dead letters in 3 groups" in text_of(browser.get(URL))
    assert "2 clients" in text_of(browser.get(URL))
    assert numbers(browser.get(URL + "?by=client&error=timeout")) == [3, 2, 1]
    for query, expected in [
        ("?error=refused", [1]), ("?model=gpt&client=acme", [3, 1]), ("?state=failed", []), ("?since=1h", [5, 1, 1]),
        ("?model=nobody", []), ("?since=never", []), ("?error=%00&state=%27", []),
    ]:  # fmt: skip
        assert numbers(browser.get(URL + query)) == expected, query
    queue.discard([job.pk for job in letters["refused gpt acme"]])
    DeadLetter.objects.filter(job__in=letters["timeout llama acme"]).update(since=timezone.now() - timedelta(hours=2))
    assert numbers(browser.get(URL + "?since=1h")) == [5]
    assert "The last 24 hours: 1, 0 in the last hour" in text_of(browser.get(URL))


def test_it_costs_the_same_queries_whatever_there_is(browser: Browser, letters: Any) -> None:
    def cost() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert browser.get(URL + "?by=client").status_code == 200
        return len(queries)

    few = cost()
    for number in range(20):
        make_job("failed", result={"error_code": f"code-{number}"})
    assert cost() == few <= 20


@pytest.mark.parametrize(
    ("action", "state", "left"), [("requeue", "queued", 2), ("cancel", "cancelled", 2), ("discard", "dead", 2)]
)
def test_a_group_is_asked_about_once_and_then_done_alone(
    browser: Browser, letters: Any, action: str, state: str, left: int
) -> None:
    """A verb has a field of its own called model: what the group's model is must not be lost to it."""
    question = ask(browser, action, error="timeout", model="gpt", state="dead")
    assert "5 dead letters" in text_of(question)
    assert DeadLetter.objects.count() == 7, "asking does nothing"
    late = make_job("dead", client=letters["timeout gpt acme"][0].client, model=letters["timeout gpt acme"][0].pool,
                    result={"error_code": "timeout"})  # fmt: skip
    said = text_of(answer(browser, question, model="", rate_per_s=""))
    assert "5 jobs" in said
    assert states([*letters["timeout gpt acme"], *letters["timeout gpt globex"]]) == {state}
    assert set(DeadLetter.objects.values_list("job_id", flat=True)) == {
        late.pk, *(job.pk for name in ("timeout llama acme", "refused gpt acme") for job in letters[name])
    }  # fmt: skip
    operation = Operation.objects.get()
    assert (operation.changed, operation.reason) == (5, "it is back")
    assert operation.selection == "dead letters: error timeout, state dead, model gpt"
    answer(browser, question, model="", rate_per_s="")
    assert Operation.objects.count() == 1, "a double click is one answer"


def test_a_group_is_requeued_gradually_at_a_pace_that_is_given(browser: Browser, letters: Any) -> None:
    question = ask(browser, "gradually", error="timeout")
    assert 'name="rate_per_s" value="0.1"' in text_of(question)
    assert "This field is required" in text_of(answer(browser, question, model="", rate_per_s=""))
    assert not Operation.objects.exists()
    page = answer(browser, question, model="", rate_per_s="0.5")
    operation = Operation.objects.get()
    assert (operation.rate_per_s, operation.total, operation.state) == (0.5, 6, "running")
    assert page.redirect_chain[-1][0] == page_url(operation)


def test_who_may_not_read_prompts_reads_no_words_of_errors(letters: Any) -> None:
    """They may quote a prompt."""
    assert "Saw: timeout" not in text_of(staff("view_deadletter").get(URL))
    assert "Saw: timeout" in text_of(staff("view_deadletter", "view_job_content").get(URL))


def test_a_question_about_no_letter_can_not_be_answered(letters: Any) -> None:
    operator = staff("view_deadletter", "discard_job")
    assert 'value="Discard 0 dead letters" disabled' in text_of(ask(operator, "discard", error="never seen"))


def test_each_action_has_its_permission(letters: Any) -> None:
    viewer = staff("view_deadletter", "view_job")
    assert "Requeue" not in text_of(viewer.get(URL))
    for action in ("requeue", "gradually", "cancel", "discard"):
        assert ask(viewer, action, error="timeout").status_code == 403
    operator = staff("view_deadletter", "discard_job")
    assert ask(operator, "discard", error="timeout").status_code == 200
    assert ask(operator, "requeue", error="timeout").status_code == 403
    assert staff("view_job").get(URL).status_code == 403
    assert ask(viewer, "explode").status_code == 302
    assert DeadLetter.objects.count() == 7


def test_each_number_leads_to_its_jobs_and_a_letter_to_its_job(browser: Browser, letters: Any) -> None:
    [link] = re.findall(r'href="([^"]*)" title="These among', text_of(browser.get(URL + "?error=refused")))
    assert letters["refused gpt acme"][0].public_id.hex[-8:] in text_of(browser.get(link)).replace("-", "")
    assert link.startswith(list_url("Job"))
    letter = DeadLetter.objects.earliest("job_id")
    assert page_url(Job.objects.get(pk=letter.job_id)) in text_of(browser.get(page_url(letter)))
