"""The page of a job while it goes on: found dead, read, edited, requeued, followed to its end without a reload."""

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client as Session
from playwright.sync_api import Response, expect

from llmjobs import queue
from llmjobs.models import Job
from tests.browser.axe import faults_of
from tests.browser.conftest import Site, apart, make_running
from tests.factories import make_job, make_user

pytestmark = pytest.mark.django_db

SLOW = "Count the boats. [[tokens=80]] [[tokens_per_s=16]]"


def log_in(site: Site, user: User) -> None:
    session = Session()
    apart(session.force_login, user)
    site.cookie = session.cookies["sessionid"].value


def test_a_dead_letter_is_found_edited_requeued_and_watched_to_its_end(site: Site) -> None:
    log_in(site, apart(User.objects.create_superuser, f"root-of-{site.client}", password="password"))
    job = apart(make_job, "dead", client=site.client, model=site.model)
    page = site.tab(f"/admin/llmjobs/job/?q={str(job.public_id)[:13]}")
    page.locator("#result_list a").first.click()
    expect(page.get_by_text("Dead ").first).to_be_visible()
    expect(page.locator(".llmjobs-failure")).to_contain_text("The provider had an error.")
    assert faults_of(page) == []
    page.get_by_role("link", name="Edit and requeue…").click()
    body = page.get_by_label("Request:")
    body.fill('{"messages": [{"role": "user" "content": ""}]}')
    page.get_by_role("button", name="See what changes").click()
    expect(page.get_by_text("line 1, column 31")).to_be_visible()
    assert faults_of(page) == []
    body.fill(json.dumps({"messages": [{"role": "user", "content": SLOW}]}))
    page.get_by_role("button", name="See what changes").click()
    expect(page.locator(".llmjobs-diff .llmjobs-in")).to_contain_text("Count the boats.")
    assert faults_of(page) == []
    page.get_by_label("Reason:").fill("the question was wrong")
    page.get_by_role("button", name="Requeue with these changes").click()
    expect(page.get_by_text("Requeued with the edited request.")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    expect(page.locator("[data-state]")).to_have_attribute("data-state", "running")
    text = page.locator("[data-stream]")
    expect(text).not_to_be_empty()
    grown = len(text.text_content() or "")
    page.wait_for_function("most => document.querySelector('[data-stream]').textContent.length > most", arg=grown)
    expect(page.locator("[data-state]")).to_have_attribute("data-state", "completed")
    expect(page.locator("[data-part=story]")).to_contain_text("first token")
    expect(page.get_by_role("button", name="Requeue…")).to_have_count(0)
    whole = apart(Job.objects.select_related("result").get, pk=job.pk).result.output_text
    expect(text).to_have_text(whole)
    assert faults_of(page) == []
    assert page.evaluate("window.sameDocument"), "nothing was reloaded"
    assert site.complaints == []


def test_who_may_not_see_content_follows_the_state_and_gets_no_word_by_any_road(site: Site) -> None:
    log_in(site, apart(make_user, is_staff=True, permissions=("view_job",)))
    job = apart(make_running, site, "the-secret-", "answer")
    sockets: list[str] = []
    answers: list[Response] = []
    page = site.tab("/admin/llmjobs/job/")
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.on("response", lambda answer: answers.append(answer) if "/parts/" in answer.url else None)
    page.goto(f"{site.url}/admin/llmjobs/job/{job.pk}/change/")
    expect(page.get_by_text("hidden: needs the permission").first).to_be_visible()
    site.pause()
    apart(Job.objects.filter(pk=job.pk).update, state="queued", worker_id=None)
    apart(queue.cancel, [job.pk])
    expect(page.locator("[data-state]")).to_have_attribute("data-state", "cancelled")
    assert answers, "it was asked for"
    assert not [answer.url for answer in answers if "secret" in answer.text()]
    assert sockets == []
    for road in (f"/api/jobs/{job.public_id}", f"/api/jobs/{job.public_id}/events"):
        assert page.request.get(site.url + road).status == 404, road
    assert site.complaints == []
