"""Usage and keys, and the link that shares a job, in a real Chromium."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from llmjobs import sharing
from llmjobs.models import Client
from tests.browser.axe import faults_of
from tests.browser.chromium import Witness
from tests.browser.conftest import Site, apart
from tests.browser.test_page import row, status, submit, text
from tests.factories import make_client, make_job

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nobody_complains(site: Site) -> Iterator[None]:
    yield
    assert site.complaints == []


def test_a_key_is_made_shown_once_used_and_revoked(site: Site) -> None:
    page = site.tab("/account/")
    page.get_by_label("Name of the new key").fill("<i>nightly</i>")
    page.get_by_label("cancel and delete").uncheck()
    page.get_by_role("button", name="Make a key").click()
    shown = page.get_by_label("Your new key.")
    expect(shown).to_be_focused()
    key = shown.input_value()
    row = page.get_by_role("row", name="<i>nightly</i>")
    expect(row).to_contain_text("submit, read")
    expect(row).to_contain_text(site.user.username)
    page.get_by_role("button", name="Copy key").click()
    assert page.evaluate("navigator.clipboard.readText()") == key

    program = site.browser.new_context(extra_http_headers={"Authorization": f"Bearer {key}"}).request
    assert program.get(f"{site.url}/api/me").json()["clients"][0]["name"] == site.client.name
    assert faults_of(page) == []
    page.reload()
    expect(row).to_be_visible()
    assert key not in page.content()
    page.get_by_role("button", name="Revoke <i>nightly</i>").click()
    page.get_by_role("button", name="Keep it").click()
    expect(row).to_contain_text("valid until")
    page.get_by_role("button", name="Revoke <i>nightly</i>").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(row).to_contain_text("revoked")
    assert program.get(f"{site.url}/api/me").status == 401


def test_a_key_that_is_refused_is_told_and_the_button_keeps_the_focus(site: Site) -> None:
    page = site.tab("/account/")
    page.get_by_label("Name of the new key").fill("   ")
    button = page.get_by_role("button", name="Make a key")
    button.press("Enter")
    expect(page.locator("#key-error")).to_be_visible()
    expect(button).to_be_focused()
    site.forgive()


def test_what_jobs_cost_is_drawn_and_written_against_the_budget(site: Site) -> None:
    apart(Client.objects.filter(pk=site.client.pk).update, monthly_budget_usd="0.25", max_running=7)
    page = site.tab()
    submit(page, site, "[[tokens=300]]")
    expect(status(page)).to_have_text("completed")
    page.get_by_role("link", name="Usage and keys").click()
    expect(page.locator("#usage-spent")).to_have_text(re.compile(r"^\$0\.00\d+$"))
    expect(page.locator("#usage-budget")).to_have_text("$0.25")
    expect(page.locator("#usage-limits")).to_contain_text("0 of 7")
    expect(page.locator("#budget-over")).to_be_hidden()
    page.get_by_label("Measure").select_option("jobs")
    expect(page.get_by_role("img", name=re.compile("1 job in all"))).to_be_visible(timeout=30_000)
    page.get_by_text("As a table").click()
    expect(page.locator("#usage-days tr")).to_have_count(1)
    assert faults_of(page) == []
    page.get_by_role("button", name="The month before").click()
    expect(page.get_by_text("Nothing was used in this month.")).to_be_visible()
    expect(page.get_by_text("Now, against your limits")).to_be_hidden()
    expect(page.locator("#usage-budget")).to_be_hidden()
    page.get_by_role("button", name="The month after").click()
    expect(page.get_by_role("button", name="The month after")).to_be_disabled()
    apart(Client.objects.filter(pk=site.client.pk).update, monthly_budget_usd="0.0001")
    page.reload()
    expect(page.locator("#budget-over")).to_be_visible()


def test_keys_and_usage_are_of_the_client_that_is_chosen(site: Site) -> None:
    other = apart(lambda: make_client("zeta-of-two"))
    apart(other.users.add, site.user)
    page = site.tab("/account/")
    expect(page.locator("#keys-rows tr")).to_have_count(1)
    page.get_by_label("Client", exact=True).select_option(other.name)
    page.wait_for_url("**/account/?client=zeta-of-two")
    expect(page.get_by_text("There is no key yet.")).to_be_visible()
    apart(other.delete)


def test_a_shared_link_shows_the_job_to_who_is_not_logged_in_until_it_is_revoked(site: Site) -> None:
    page = site.tab()
    submit(page, site, "What <b>is</b> it? [[tokens=12]]")
    expect(status(page)).to_have_text("completed")
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_text("None.")).to_be_visible()
    page.get_by_label("The link ends after").select_option("86400")
    page.get_by_role("button", name="Make a link").click()
    shown = page.get_by_label("The link (shown only now)")
    expect(shown).to_have_value(re.compile("/shared/"))
    link = shown.input_value()
    assert faults_of(page) == []

    stranger = site.browser.new_context(color_scheme="dark").new_page()
    site.witnesses.append(Witness(stranger, site.url))
    stranger.goto(link)
    expect(stranger.get_by_text("What <b>is</b> it?")).to_be_visible()
    expect(stranger.get_by_text(text(page).strip())).to_be_visible()
    assert site.client.name not in stranger.content()
    page.route("**/revoke", lambda route: route.abort())
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("#share-error")).to_be_visible()
    page.unroute("**/revoke")
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("None.")).to_be_visible()
    answer = stranger.goto(link)
    assert answer is not None
    assert answer.status == 404
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Share").click()
    expect(shown).to_be_hidden()
    site.forgive()


def test_links_of_a_job_never_show_in_the_dialog_of_another(site: Site) -> None:
    linked, other = apart(lambda: [make_job("completed", client=site.client, model=site.model) for _ in range(2)])
    apart(sharing.share, linked, expires_in_s=None)
    page = site.tab(f"/#job={linked.public_id}")
    held: list[Route] = []
    page.route(f"**/api/jobs/{linked.public_id}/shares", lambda route: held.append(route))
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Close").click()
    row(page, str(other.public_id)).click()
    expect(page.locator("#job-id")).to_have_text(str(other.public_id))
    page.get_by_role("button", name="Share").click()
    expect(page.get_by_text("None.")).to_be_visible()
    with page.expect_response("**/shares") as late:
        held[0].continue_()
    late.value.finished()
    page.evaluate("new Promise((resolve) => { setTimeout(resolve); })")
    expect(page.get_by_text("None.")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)


def test_a_session_that_ends_in_mid_sentence_loses_no_word(site: Site) -> None:
    page = site.tab()
    page.get_by_label("Prompt", exact=True).fill("A long thought")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#session-notice")).to_be_visible()
    page.get_by_role("link", name="Log in again").click()
    page.get_by_label("Username").fill(site.user.username)
    page.get_by_label("Password").fill("password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("A long thought")
    site.forgive()
