"""An operator at three in the morning, in a real Chromium over real processes: find what died, read why, edit it,
requeue it, watch it complete; cancel by filter with the keyboard alone. And a viewer, who reads no words of anybody.
"""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client as Session
from playwright.sync_api import Locator, Page, expect

from llmjobs.models import Job, Operation
from llmjobs.states import State
from tests.browser.conftest import Site, apart
from tests.factories import make_groups, make_job, make_user

pytestmark = pytest.mark.django_db

SECRET = "the-merger-of-april"
TABS_MAX = 400


@pytest.fixture
def operator(site: Site) -> Site:
    site.cookie = apart(_cookie, "llmjobs operator", f"operator-of-{site.client}")
    return site


def test_a_dead_letter_is_found_understood_edited_requeued_and_seen_to_complete(operator: Site) -> None:
    dead = apart(
        make_job, "dead", client=operator.client, model=operator.model,
        body={"messages": [{"role": "user", "content": "Describe the harbur."}]},
        result={"error_code": "no_harbour", "error_message": "There is no such harbour."},
    )  # fmt: skip
    page = operator.tab("/admin/")
    page.get_by_role("link", name="Dead letters").first.click()
    group = page.get_by_role("listitem").filter(has_text="no_harbour")
    expect(group).to_contain_text("There is no such harbour.")
    expect(group).to_contain_text(operator.client.name)
    group.get_by_role("link", name="the newest job").click()
    state = page.get_by_role("region", name="Where it stands")
    expect(state).to_contain_text("no_harbour")
    expect(state).to_contain_text("There is no such harbour.")
    page.get_by_role("link", name=re.compile("Edit and requeue")).click()
    body = page.get_by_label("Request")
    body.fill(body.input_value().replace("harbur", "harbour. [[tokens=40]]"))
    page.get_by_role("button", name="See what changes").click()
    expect(page.locator(".llmjobs-diff")).to_contain_text("harbour.")
    page.get_by_label("Reason").fill("A typing error.")
    page.get_by_role("button", name="Requeue with these changes").dblclick()
    expect(page.get_by_role("region", name="Where it stands")).to_have_attribute("data-state", "completed")
    expect(page.locator("[data-part=output] pre").first).not_to_be_empty()
    assert operator.complaints == []
    job = apart(Job.objects.get, pk=dead.pk)
    assert (job.state, job.attempt) == (State.COMPLETED, dead.attempt + 1), "a double click requeues once"


def test_what_a_filter_matches_is_cancelled_with_the_keyboard_alone(operator: Site) -> None:
    operator.pause()
    jobs = [apart(make_job, "queued", client=operator.client, model=operator.model) for _ in range(3)]
    page = operator.tab(f"/admin/llmjobs/job/?client={operator.client}&status=queued")
    _tab_to(page, page.locator("#action-toggle"))
    page.keyboard.press("Space")
    expect(page.locator("input.action-select:checked")).to_have_count(3)
    _tab_to(page, page.get_by_label("Action", exact=False).first, back=True)
    page.keyboard.type("Cancel")
    _tab_to(page, page.locator("button[name=index]"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("Cancel"))).to_be_visible()
    _tab_to(page, page.get_by_label("Reason"))
    page.keyboard.type("They were sent twice.")
    _tab_to(page, page.get_by_role("button", name="Cancel 3 jobs"))
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile(r"Cancelled 3\b")).first).to_be_visible()
    assert operator.complaints == []
    states = apart(lambda: set(Job.objects.filter(pk__in=[job.pk for job in jobs]).values_list("state", flat=True)))
    assert states == {State.CANCELLED}
    operation = apart(lambda: Operation.objects.latest("pk"))
    assert (operation.verb, operation.changed, operation.reason) == ("cancel", 3, "They were sent twice.")


def test_a_viewer_reads_the_words_of_nobody_on_no_page(site: Site) -> None:
    """Not in what comes over the WebSocket either, while the job goes on before their eyes."""
    site.cookie = apart(_cookie, "llmjobs viewer", f"viewer-of-{site.client}")
    ask = {"messages": [{"role": "user", "content": f"{SECRET} [[echo]] [[tokens=40]]"}]}
    error = {"error_code": "no_merger", "error_message": f"I know of {SECRET}."}
    site.pause()
    dead = apart(make_job, "dead", client=site.client, model=site.model, body=ask, result=error, output_text=SECRET)
    job = apart(make_job, "queued", client=site.client, model=site.model, body=ask)
    page = site.tab("/admin/")
    frames: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(str(frame))))
    addresses = [
        "/admin/", "/admin/llmjobs/deadletter/", "/admin/llmjobs/job/", "/admin/llmjobs/attempt/",
        "/admin/llmjobs/jobevent/", "/admin/llmjobs/jobrequest/", "/admin/llmjobs/jobresult/",
        f"/admin/llmjobs/job/{dead.pk}/change/", f"/admin/llmjobs/jobrequest/{dead.pk}/change/",
        f"/admin/llmjobs/jobresult/{dead.pk}/change/", f"/admin/llmjobs/job/{job.pk}/change/",
    ]  # fmt: skip
    for address in addresses:
        page.goto(site.url + address)
        expect(page.locator("#content")).to_be_visible()
        assert SECRET not in page.content(), address
    expect(page.get_by_role("button", name=re.compile("Cancel"))).to_have_count(0)
    site.pause(False)
    expect(page.get_by_role("region", name="Where it stands")).to_have_attribute("data-state", "completed")
    assert SECRET not in page.content()
    assert not [frame for frame in frames if SECRET in frame or "delta" in frame]


def _cookie(group: str, name: str) -> str:
    make_groups()
    user: User = make_user(username=name, is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    session = Session()
    session.force_login(user)
    return session.cookies["sessionid"].value


def _tab_to(page: Page, wanted: Locator, *, back: bool = False) -> None:
    """With the Tab key alone, as who has no mouse gets there."""
    expect(wanted).to_be_visible()
    handle: Any = wanted.element_handle()
    for _ in range(TABS_MAX):
        if page.evaluate("element => element === document.activeElement", handle):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"expected a way to {wanted} by the Tab key, found none within {TABS_MAX} steps")
