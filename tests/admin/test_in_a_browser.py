"""The pages in a real browser: nothing is refused by a strict policy, nothing runs off a phone's screen."""

from typing import Any

import pytest
from django.db.models import Model
from django.test import Client as Browser

from llmjobs.access import authenticate_key
from llmjobs.models import ApiKey, Job
from tests.admin.chromium import chromium, complaints_of, picture
from tests.admin.pages import list_url, page_url
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, DESKTOP = 375, 1280


@pytest.fixture
def site(live_server: Any, settings: Any) -> str:
    settings.MIDDLEWARE = ["tests.admin.chromium.strict_policy", *settings.MIDDLEWARE]
    return str(live_server.url)


def session_of(browser: Browser, site: str) -> Any:
    return {"name": "sessionid", "value": browser.cookies["sessionid"].value, "url": site}


def pages(rows: dict[str, Model]) -> dict[str, str]:
    found = {"index": "/admin/", "add": "/admin/llmjobs/apikey/add/", "dead": "/admin/llmjobs/job/?status=dead"}
    for name, row in rows.items():
        found |= {f"{name}-list": list_url(name), f"{name}-page": page_url(row)}
    return found


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (DESKTOP, "dark")])
def test_every_page_keeps_to_the_policy_and_to_the_screen(
    site: str, browser: Browser, rows: dict[str, Model], width: int, scheme: Any
) -> None:
    make_job("dead", result={"error_message": "a long word: " + "x" * 300})
    urls = pages(rows)
    with chromium() as context:
        context.add_cookies([session_of(browser, site)])
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        complaints = complaints_of(page)
        for name, url in urls.items():
            page.goto(site + url, wait_until="load")
            picture(page, f"{name}-{width}-{scheme}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert complaints == [], (name, complaints)
            assert wide <= width, f"{name} is {wide} px wide on a screen of {width} px"


def test_a_dead_job_is_requeued_from_its_page_by_hand(site: str, browser: Browser) -> None:
    job = make_job("dead")
    with chromium() as context:
        context.add_cookies([session_of(browser, site)])
        page = context.new_page()
        complaints = complaints_of(page)
        page.goto(site + page_url(job))
        page.get_by_role("button", name="Requeue…").click()
        page.get_by_label("Reason").fill("provider is back")
        picture(page, "requeue-asked")
        page.get_by_role("button", name="Requeue 1 job").click()
        page.get_by_text("Requeued 1 job.").wait_for()
        picture(page, "requeue-done")
        assert page.url == site + page_url(job)
    assert complaints == []
    assert Job.objects.get(pk=job.pk).state == "queued"


def test_all_pages_of_a_filter_are_cancelled_by_hand(site: str, browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmjobs.admin.jobs.JobPage.list_per_page", 2)
    first = make_job()
    for _ in range(4):
        make_job(client=first.client, model=first.pool)
    with chromium() as context:
        context.add_cookies([session_of(browser, site)])
        page = context.new_page()
        complaints = complaints_of(page)
        page.goto(f"{site}/admin/llmjobs/job/?client={first.client.name}")
        page.locator("#action-toggle").check()
        page.get_by_role("button", name="Select all 5 jobs").click()
        page.get_by_label("Action:").select_option(label="Cancel selected jobs")
        page.locator("button[name=index]").click()
        page.get_by_role("button", name="Cancel 5 jobs").click()
        page.get_by_text("Cancelled 5 jobs.").wait_for()
    assert complaints == []
    assert set(Job.objects.values_list("state", flat=True)) == {"cancelled"}


CLICKED_TWICE = """() => {
    let sent = 0;
    window.addEventListener("submit", (event) => {
        sent += event.defaultPrevented ? 0 : 1;
        event.preventDefault();
    });
    for (const time of [1, 2]) document.querySelector("[name=_save]").click();
    return sent;
}"""


def test_a_key_is_issued_by_hand(site: str, browser: Browser, rows: dict[str, Model]) -> None:
    with chromium() as context:
        context.add_cookies([session_of(browser, site)])
        page = context.new_page()
        complaints = complaints_of(page)
        page.goto(f"{site}/admin/llmjobs/apikey/add/")
        assert page.evaluate(CLICKED_TWICE) == 1, "or the second answer would take the place of the key"
        page.reload()
        page.locator(".select2-selection").click()  # Django's own search field, under the policy
        page.locator(".select2-search__field").fill("acm")
        page.get_by_role("option", name="acme").click()
        picture(page, "key-form")
        page.get_by_role("button", name="Save", exact=True).dblclick()
        key = page.locator(".llmjobs-key").inner_text()
        picture(page, "key-issued")
    assert complaints == []
    row = authenticate_key(key)
    assert row is not None
    assert row.scopes == ["submit", "read", "cancel"]
    assert ApiKey.objects.exclude(pk=rows["ApiKey"].pk).count() == 1, "a double click issues one"
