"""Workers: what they hold, drained one by one; and the switch that pauses all claims."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.models import ClaimsPause, Worker
from llmjobs.pauses import open_pause
from tests.admin.pages import ask, confirm, hidden_fields, list_url, page_url, staff, text_of
from tests.factories import make_job, make_worker

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/worker/"
CLAIMS = f"{URL}claims/"


def answer(browser: Browser, do: str, reason: str = "") -> Any:
    question = browser.post(CLAIMS, {"do": do})
    return browser.post(CLAIMS, {**hidden_fields(question), "reason": reason}, follow=True)


# Drain.


def test_draining_asks_once_and_the_worker_is_told(browser: Browser) -> None:
    one, stopped, other = make_worker(), make_worker(stopped_at=timezone.now()), make_worker()
    question = ask(browser, URL, "drain", one, stopped)
    assert "Drain 1 of 2" in text_of(question)
    assert "can't be undone" in text_of(question)
    assert not Worker.objects.filter(is_draining=True).exists()
    done = confirm(browser, URL, question, reason="old kernel")
    assert "Draining 1 worker. Left alone: 1 stopped or draining already." in text_of(done)
    assert [worker.pk for worker in Worker.objects.filter(is_draining=True)] == [one.pk]
    [entry] = LogEntry.objects.all()
    assert (entry.object_id, entry.change_message) == (str(one.pk), "Drained: old kernel")
    assert "Draining 0 workers" in text_of(confirm(browser, URL, question))
    other.refresh_from_db()
    assert not other.is_draining


def test_a_worker_offers_a_drain_while_it_makes_sense(browser: Browser) -> None:
    worker = make_worker()
    assert "Drain…</button>" in text_of(browser.get(page_url(worker)))
    Worker.objects.update(is_draining=True)
    assert "Drain…</button>" not in text_of(browser.get(page_url(worker)))


def test_draining_needs_its_permission() -> None:
    worker = make_worker()
    ask(staff("view_worker", "pause_claims"), URL, "drain", worker, confirmed="yes")
    worker.refresh_from_db()
    assert not worker.is_draining
    ask(staff("view_worker", "drain_worker"), URL, "drain", worker, confirmed="yes")
    worker.refresh_from_db()
    assert worker.is_draining


def test_the_slots_in_use_lead_to_the_jobs_that_run_there(browser: Browser) -> None:
    worker = make_worker(slots=4, lease_lost_count=3)
    held = make_job("running", worker_id=worker.pk)
    make_job("running")
    page = text_of(browser.get(list_url("Worker")))
    url = f"/admin/llmjobs/job/?worker={worker.pk}&status=running"
    assert f'<a href="{url}">1 of 4</a>' in page
    assert '<rect width="50.0"' in page, "a quarter of the bar"
    assert "3 lost" in page
    assert [job.pk for job in browser.get(url).context["cl"].result_list] == [held.pk]


# The switch.


def test_pausing_all_claims_asks_once_and_says_who_when_and_why(browser: Browser) -> None:
    assert "Pause all claims…</button>" in text_of(browser.get(URL))
    question = browser.post(CLAIMS, {"do": "pause"})
    assert "No worker starts anything" in text_of(question)
    assert open_pause() is None
    done = answer(browser, "pause", "the account moves")
    pause = open_pause()
    assert pause is not None
    assert (pause.by, pause.reason) == ("root", "the account moves")
    page = text_of(done)
    assert "All claims are paused</strong> since" in page
    assert "by root: the account moves" in page
    assert "Resume all claims…</button>" in page
    assert "Pause all claims…</button>" not in page
    assert LogEntry.objects.get().change_message == "Paused all claims: the account moves"


def test_claims_go_on_and_the_pause_is_kept_in_a_list(browser: Browser) -> None:
    answer(browser, "pause", "first")
    assert "Claims go on." in text_of(answer(browser, "resume", "done"))
    assert open_pause() is None
    assert "root" in text_of(browser.get(list_url("ClaimsPause")))
    messages = {entry.change_message for entry in LogEntry.objects.all()}
    assert messages == {"Paused all claims: first", "Resumed all claims: done"}


def test_every_page_says_at_once_that_claims_are_paused_and_at_once_that_they_are_not(browser: Browser) -> None:
    said = "All claims are paused since"
    assert said not in text_of(browser.get(list_url("Client")))
    answer(browser, "pause", "<flood>")
    page = browser.get(list_url("Client"))
    assert said in text_of(page)
    assert b"by root: &lt;flood&gt;" in page.content
    assert said not in text_of(staff("view_worker").get(URL)), "it stands there anyway, with its button"
    assert said in text_of(staff("view_client").get(list_url("Client")))
    answer(browser, "resume")
    assert said not in text_of(browser.get(list_url("Client")))


def test_a_second_click_changes_nothing(browser: Browser) -> None:
    answer(browser, "pause", "mine")
    assert "paused already" in text_of(answer(browser, "pause", "yours"))
    assert ClaimsPause.objects.get().reason == "mine"
    answer(browser, "resume")
    assert "resumed already" in text_of(answer(browser, "resume"))
    assert LogEntry.objects.count() == 2


def test_the_switch_is_no_address_to_look_at_and_needs_its_permission(browser: Browser) -> None:
    assert browser.get(CLAIMS).status_code == 405
    assert open_pause() is None
    viewer = staff("view_worker", "drain_worker")
    assert viewer.post(CLAIMS, {"do": "pause", "confirmed": "yes"}).status_code == 403
    assert "Pause all claims" not in text_of(viewer.get(URL))
    ClaimsPause.objects.create(by="ada", reason="flood")
    page = text_of(viewer.get(URL))
    assert "by ada: flood" in page, "who can't resume sees it, too"
    assert "Resume all claims" not in page
    assert Browser(enforce_csrf_checks=True).post(CLAIMS, {"do": "resume", "confirmed": "yes"}).status_code in (
        302,
        403,
    )
    assert open_pause() is not None


def test_a_word_that_is_neither_pauses_nothing(browser: Browser) -> None:
    browser.post(CLAIMS, {"do": "everything", "confirmed": "yes"})
    assert open_pause() is None


def test_an_anonymous_caller_is_asked_to_log_in() -> None:
    assert Browser().post(CLAIMS, {"do": "pause", "confirmed": "yes"}).status_code == 302
    assert open_pause() is None
