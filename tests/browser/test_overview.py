"""The overview in a real Chromium, over a real server: live by the WebSocket, else by polling, and it says which."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client as Session
from playwright.sync_api import Page, expect

from llmjobs import queue
from llmjobs.models import Job
from tests.browser.conftest import Site, apart
from tests.helpers import eventually

pytestmark = pytest.mark.django_db

LOOK_AWAY = """(isHidden) => {
    Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture
def operator(site: Site) -> Site:
    root = apart(User.objects.create_superuser, f"root-of-{site.client}", password="password")
    session = Session()
    apart(session.force_login, root)
    site.cookie = session.cookies["sessionid"].value
    site.pause()  # what is submitted stays queued
    return site


def submit(site: Site) -> Job:
    body = {"model": site.model.name, "messages": [{"role": "user", "content": "Say hello."}]}
    job: Job = apart(queue.submit, client=site.client, **body)
    return job


def waiting(page: Page) -> int:
    """Of all clients: what other tests left may still end."""
    return int(page.locator('[data-live="queued"]').inner_text().replace(",", ""))


def waiting_here(site: Site) -> str:
    """Where the number of this test's own jobs stands, whose tier is its own."""
    return f'[data-live="queued of {site.client.tier.name}"]'


def test_a_number_changes_by_itself_when_a_job_is_submitted(operator: Site) -> None:
    page = operator.tab("/admin/")
    state = page.locator(".llmjobs-state")
    expect(state).to_have_attribute("data-state", "live")
    expect(state).to_contain_text("Live, as of")
    page.evaluate("window.isKept = true")
    submit(operator)
    expect(page.locator(waiting_here(operator))).to_have_text("1")

    def all_are_counted() -> None:
        assert waiting(page) == apart(Job.objects.filter(state="queued").count)

    eventually(all_are_counted, within_s=20)
    assert page.evaluate("window.isKept"), "without a reload"
    assert operator.complaints == []


def test_polling_takes_over_where_the_socket_is_refused(operator: Site) -> None:
    page = operator.tab("/login/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/admin/") else None)
    answered: list[str] = []
    page.on(
        "requestfinished", lambda request: answered.append(request.url) if request.url.endswith("/admin/") else None
    )
    page.route_web_socket(re.compile("/ws/queue/"), lambda socket: socket.close(code=4404, reason="There is nothing."))
    page.clock.install(time=0)
    page.goto(operator.url + "/admin/")
    state = page.locator(".llmjobs-state")
    expect(state).to_have_attribute("data-state", "polling")
    page.clock.pause_at(3_600_000)  # from here on no time passes by itself
    page.clock.run_for(5_000)
    page.evaluate("0")  # what was asked until now has been told here by now

    def is_answered() -> None:
        page.evaluate("0")
        assert 1 < len(asked) == len(answered)

    eventually(is_answered, within_s=20)
    expect(state).to_contain_text("Polling every 5 s")
    table, focused = page.get_by_text("The same numbers as a table"), page.locator('[data-part="now"] a').first
    table.click()
    focused.focus()
    loaded = len(asked)
    submit(operator)
    page.clock.run_for(4_000)
    assert len(asked) == loaded
    with page.expect_response("**/admin/"):
        page.clock.run_for(1_500)
    assert len(asked) == loaded + 1

    def polled() -> None:
        page.clock.run_for(5_000)
        assert page.locator(waiting_here(operator)).all_inner_texts() == ["1"]

    eventually(polled)  # consoles of a process share for a second what was read
    loaded = len(asked)
    assert page.get_by_role("rowheader").last.is_visible(), "what was opened stays open"
    assert focused.evaluate("(link) => link === document.activeElement"), "focus stays where it was"

    page.evaluate(LOOK_AWAY, True)
    page.clock.run_for(60_000)
    assert len(asked) == loaded, "nobody looks"
    with page.expect_response("**/admin/"):
        page.evaluate(LOOK_AWAY, False)
        page.clock.run_for(100)
    assert operator.complaints == []

    page.route("**/admin/", lambda route: route.abort())
    page.clock.run_for(6_000)
    expect(state).to_contain_text(re.compile(r"Offline since \d\d:\d\d:\d\d"))
    page.unroute("**/admin/")
    page.clock.run_for(6_000)
    expect(state).to_have_attribute("data-state", "polling")


def test_a_chart_tells_its_values_at_the_pointer(operator: Site) -> None:
    page = operator.tab("/admin/")
    figure = page.locator("[data-chart]").first
    at: Any = figure.locator("[data-at]")
    expect(at).to_have_text("")

    def pointed() -> None:
        figure.locator(".llmjobs-chart").hover()  # an incident that opens moves it from under the pointer
        expect(at).to_have_text(re.compile(r"\d\d:\d\d"), timeout=1_000)

    eventually(pointed)
    expect(figure.locator(".llmjobs-cursor")).to_have_attribute("visibility", "visible")
    page.mouse.move(0, 0)
    expect(at).to_have_text("")
    assert operator.complaints == []
