"""Every page and every state of it, light and dark, on a desk and on a phone: nothing runs off the screen or complains.

The pictures are in .screenshots/console/, for people to look at.
"""

import itertools
import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client as Session
from django.utils import timezone
from playwright.sync_api import Page, expect

from llmjobs.models import Client, ClientDay, Job, Spending
from llmjobs.states import State
from tests.browser.chromium import picture
from tests.browser.conftest import Site, apart, make_running
from tests.factories import make_client, make_job, make_user

pytestmark = pytest.mark.django_db

SIZES = {"desk": (1280, 900), "phone": (375, 812)}
TEXT = (
    "The harbour wakes before the town does. Gulls argue over the nets, a radio crackles in a wheelhouse, and somebody "
    "counts the boats aloud, as if one might have slipped away in the night.\n\n"
) * 4


@pytest.fixture(params=[(scheme, size) for scheme in ("light", "dark") for size in SIZES], ids="-".join)
def look(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


class Album:
    """Takes a picture, and looks at what can be measured in it."""

    def __init__(self, site: Site, look: tuple[str, str]) -> None:
        self.site, self.look = site, look
        self.width, height = SIZES[look[1]]
        viewport = {"width": self.width, "height": height}
        self.options: Any = {"color_scheme": look[0], "viewport": viewport, "has_touch": look[1] == "phone"}

    def add(self, page: Page, name: str) -> None:
        picture(page, "-".join((name, *self.look)))
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.width, f"{name} is {wide} px wide on a screen of {self.width} px"
        assert self.site.complaints == [], name


@pytest.fixture
def album(site: Site, look: tuple[str, str]) -> Album:
    return Album(site, look)


def test_the_page_in_every_state_of_a_job(site: Site, album: Album) -> None:
    site.pause()
    jobs: dict[State, Job] = apart(_one_job_of_each_state, site)
    page = site.tab(**album.options)
    expect(page.locator("tr[data-id]")).to_have_count(len(jobs))
    page.get_by_label("Prompt", exact=True).fill("Describe the harbour in the morning.")
    album.add(page, "page")
    for state, job in jobs.items():
        page.evaluate("id => { location.hash = `job=${id}`; }", str(job.public_id))
        expect(page.locator("#job-status")).to_have_text(state)
        if state in (State.RUNNING, State.COMPLETED):
            expect(page.get_by_role("region", name="Output")).to_contain_text("harbour")
        album.add(page, f"job-{state}")
    page.evaluate("id => { location.hash = `job=${id}`; }", str(jobs[State.RUNNING].public_id))
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    album.add(page, "dialog")


def test_the_pages_around_it(site: Site, album: Album) -> None:
    page = site.tab(**album.options)
    expect(page.get_by_text("No jobs yet.")).to_be_visible()
    album.add(page, "empty")
    apart(site.model.delete)
    page.get_by_label("Prompt", exact=True).fill("Hello")
    page.get_by_label("Model", exact=True).select_option(site.model.name)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#composer-error")).to_be_visible()
    site.forgive()
    album.add(page, "refused")
    page.goto(site.url + "/nothing/")
    album.add(page, "404")
    page.goto(site.url)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/**")
    album.add(page, "login")
    page.get_by_label("Username").fill("nobody")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#login-error")).to_be_visible()
    album.add(page, "login-refused")


def test_what_users_of_no_client_and_of_two_see(site: Site, album: Album) -> None:
    for is_staff, client_count in itertools.product((False, True), (0, 2)):
        site.cookie = apart(_cookie_of, is_staff, client_count)
        page = site.tab(**album.options)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_role("button", name="Submit")).to_have_count(1 if client_count else 0)
        if client_count:
            expect(page.get_by_text("No jobs yet.")).to_be_visible()
        album.add(page, f"{'operator' if is_staff else 'user'}-of-{client_count}-clients")


def test_a_conversation_and_its_dialogs(site: Site, album: Album) -> None:
    page = site.tab(**album.options)
    page.get_by_role("radio", name="Conversation").check()
    page.get_by_text("System prompt and parameters").click()
    page.get_by_label("System prompt").fill("Be brief, and write code where it helps.")
    for prompt in ("How do I count boats in Python?", "And in the evening? شكرا"):
        before = page.url
        page.get_by_label("Prompt", exact=True).fill(f"{prompt} [[tokens=40]]")
        page.get_by_role("button", name="Submit").click()
        expect(page).not_to_have_url(before)
        expect(page.locator("#job-status")).to_have_text("completed")
    expect(page.locator("#composer-context")).to_contain_text("turn 3")
    album.add(page, "conversation")
    page.locator("#job-menu summary").click()
    album.add(page, "menu")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_role("button", name="Revoke")).to_be_visible()
    album.add(page, "share")
    page.get_by_role("button", name="Close").click()
    page.locator("#jobs-title").click()
    page.keyboard.press("?")
    album.add(page, "keys")
    page.keyboard.press("Escape")
    page.context.set_offline(True)
    expect(page.locator("#offline-notice")).to_be_visible()
    site.forgive()
    album.add(page, "offline")


def test_usage_and_keys(site: Site, album: Album) -> None:
    apart(_a_month, site)
    page = site.tab("/account/", **album.options)
    page.get_by_label("Name of the new key").fill("the nightly summaries")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_label("Your new key.")).to_be_visible()
    expect(page.locator("#usage-picture svg")).to_be_visible()
    expect(page.locator("#usage-spent")).to_have_text("$12.40")
    album.add(page, "account")
    page.get_by_text("As a table").click()
    page.get_by_role("button", name="Revoke the nightly summaries").click()
    album.add(page, "account-revoke")


def _a_month(site: Site) -> None:
    limits = {"monthly_budget_usd": "20", "rpm": 600, "tpm": 200_000, "max_running": 20}
    Client.objects.filter(pk=site.client.pk).update(**limits)
    today = timezone.now().date()
    for number in range(1, today.day + 1):
        day = today.replace(day=number)
        used = {"jobs": 40 + number * 13 % 50, "attempts": 50, "input_tokens": 90_000 + number * 7_919 % 50_000}
        ClientDay.objects.create(
            client=site.client, day=day, output_tokens=20_000, usd=f"0.{number * 37 % 90 + 10}", **used
        )
    Spending.objects.create(client=site.client, month=today.replace(day=1), usd="12.40")


def _one_job_of_each_state(site: Site) -> dict[State, Job]:
    jobs: dict[State, Job] = {}
    for state in State:
        if state == State.RUNNING:
            jobs[state] = make_running(site, *re.findall(r"\S+\s*", TEXT[:210]))
        else:
            jobs[state] = make_job(state, client=site.client, model=site.model, output_text=TEXT)
    return jobs


def _cookie_of(is_staff: bool, client_count: int) -> str:
    clients: list[Client] = [make_client() for _ in range(client_count)]
    permissions = ("view_job", "view_job_content") if is_staff else ()
    # A long name, as people have: with a short one the page is narrow enough on one machine, and not on the next.
    name = f"somebody.with.a.long.name-{uuid4().hex[:6]}@example.org"
    user: User = make_user(*clients, username=name, is_staff=is_staff, permissions=permissions)
    session = Session()
    session.force_login(user)
    return session.cookies["sessionid"].value
