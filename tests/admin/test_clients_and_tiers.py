"""Tiers and clients: edited by people, paused with a reason, their secrets never shown."""

from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.models import Attempt, Client, Flow, Inbox, Tier
from tests.admin.pages import ask, confirm, list_url, page_url, save, staff, text_of
from tests.factories import make_client, make_job, make_key, make_model, make_tier, make_user

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/client/"


def form_of(client: Client, **changes: Any) -> dict[str, Any]:
    """What the page's form sends."""
    values = {
        "name": client.name, "tier": client.tier_id, "weight": client.weight, "users": [],
        "api_keys-TOTAL_FORMS": 0, "api_keys-INITIAL_FORMS": 0,
    }  # fmt: skip
    return {**values, **changes}


def test_limits_and_weights_are_edited_and_written_down(browser: Browser) -> None:
    client = make_client("acme")
    answer = save(browser, page_url(client), form_of(client, weight="2.5", max_queued="50", monthly_budget_usd="20"))
    assert answer.status_code == 302
    client.refresh_from_db()
    assert (client.weight, client.max_queued, client.max_running) == (2.5, 50, None)
    assert "Weight" in LogEntry.objects.get().get_change_message()


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", "0"), ("weight", "-1"), ("max_queued", "-5"), ("name", "no spaces please"), ("name", "")],
)
def test_what_makes_no_sense_is_refused_with_a_word(browser: Browser, field: str, value: str) -> None:
    client = make_client("acme")
    answer = browser.post(page_url(client), form_of(client, **{field: value}))
    assert answer.status_code == 200
    assert field in answer.context["adminform"].form.errors


def test_a_client_is_made_here(browser: Browser) -> None:
    tier = make_tier("gold")
    browser.post(
        f"{URL}add/",
        {"name": "acme", "tier": tier.pk, "weight": 1, "api_keys-TOTAL_FORMS": 0, "api_keys-INITIAL_FORMS": 0},
    )
    assert Client.objects.get(name="acme").webhook_secret.startswith("whsec_")


def test_a_webhook_secret_is_never_shown(browser: Browser) -> None:
    client = make_client("acme")
    for url in (URL, page_url(client), f"{page_url(client)[:-7]}history/"):
        assert client.webhook_secret not in text_of(browser.get(url)), url


def test_pausing_asks_then_pauses_and_says_why_in_the_history(browser: Browser) -> None:
    acme, other = make_client("acme"), make_client("other", is_paused=True)
    question = ask(browser, URL, "pause", acme, other)
    assert "Pause 1 of 2" in text_of(question)
    assert not Client.objects.get(pk=acme.pk).is_paused
    answer = confirm(browser, URL, question, reason="they asked")
    assert "Paused 1. Left alone: 1 that was so already." in text_of(answer)
    assert Client.objects.get(pk=acme.pk).is_paused
    [entry] = LogEntry.objects.all()
    assert (entry.object_id, entry.change_message) == (str(acme.pk), "Paused: they asked")
    confirm(browser, URL, ask(browser, URL, "resume", acme, other))
    assert not Client.objects.filter(is_paused=True).exists()


def test_the_claim_hears_of_a_pause(browser: Browser) -> None:
    client, model = make_client(), make_model()
    Flow.objects.create(pool=model, client=client)
    confirm(browser, URL, ask(browser, URL, "pause", client))
    assert Inbox.objects.filter(client=client, priority=None).count() == 1


def test_a_form_that_was_left_open_does_not_resume_what_was_paused(browser: Browser) -> None:
    client = make_client()
    left_open = form_of(client, weight="3")
    Client.objects.update(is_paused=True)
    save(browser, page_url(client), left_open)
    client.refresh_from_db()
    assert client.is_paused
    assert client.weight == 3


def test_pausing_needs_the_permission_to_change(rows: Any) -> None:
    client = make_client()
    ask(staff("view_client"), URL, "pause", client, confirmed="yes")
    client.refresh_from_db()
    assert not client.is_paused


def test_a_page_offers_the_one_that_makes_sense(browser: Browser) -> None:
    client = make_client()
    assert "Pause…</button>" in text_of(browser.get(page_url(client)))
    Client.objects.update(is_paused=True)
    page = text_of(browser.get(page_url(client)))
    assert "Resume…</button>" in page
    assert "Pause…</button>" not in page


def test_keys_are_listed_on_their_clients_page_and_not_edited_there(browser: Browser) -> None:
    client = make_client("acme")
    key = make_key(client, name="laptop")
    page = text_of(browser.get(page_url(client)))
    assert "laptop" in page
    assert key[:12] in page
    assert key not in page
    assert "/admin/llmjobs/apikey/add/?client=" in page


def test_a_tier_is_edited_and_leads_to_its_clients_and_jobs(browser: Browser) -> None:
    client = make_client(tier=make_tier("gold"))
    other, job = make_client(tier=make_tier("tin")), make_job(client=client)
    page = browser.get(page_url(client.tier))
    links = {label: url for url, label in page.context["links"]}
    assert [row.pk for row in browser.get(links["Clients"]).context["cl"].result_list] == [client.pk]
    assert [row.pk for row in browser.get(links["Jobs"]).context["cl"].result_list] == [job.pk]
    form = {"name": "gold", "weight": 9, "max_priority": 1, "aging_s": 60, "max_queued": 7}
    assert save(browser, page_url(client.tier), form).status_code == 302
    tier = Tier.objects.get(name="gold")
    assert (tier.weight, tier.max_priority, tier.aging_s, tier.max_queued) == (9, 1, 60, 7)
    assert other.tier != tier


def test_a_client_is_found_by_a_part_of_its_name(browser: Browser) -> None:
    make_client("acme-eu"), make_client("other")
    found = browser.get(list_url("Client"), {"q": "acme"}).context["cl"].result_list
    assert [client.name for client in found] == ["acme-eu"]


# Money.


def test_what_was_spent_of_the_budget_is_told_with_what_is_promised(browser: Browser) -> None:
    client = make_client("acme", monthly_budget_usd=200)
    for cost_usd in ("3.00", "0.204"):
        Attempt.objects.filter(job=make_job("completed", client=client)).update(cost_usd=cost_usd)
    make_job("queued", client=client, est_usd="0.4")
    make_job("running", client=make_client("other"), est_usd="7")
    month = timezone.now().strftime("%B")
    assert f"$3.20 of $200.00 in {month}, $0.40 reserved" in text_of(browser.get(page_url(client)))


def test_without_a_budget_it_is_told_what_was_spent(browser: Browser) -> None:
    client = make_client("acme")
    assert "$0.00 in " in text_of(browser.get(page_url(client)))
    assert "$0.00 in " not in text_of(browser.get(f"{URL}add/"))


def test_users_without_a_page_in_the_admin_are_named_by_their_numbers(browser: Browser) -> None:
    """A host may have users of its own, and show them nowhere: Django's check would refuse all of its commands."""
    client, ann = make_client("acme"), make_user(username="ann")
    page = site._registry.pop(get_user_model())
    try:
        assert site._registry[Client].check() == []
        assert 'name="users"' in browser.get(page_url(client)).text
        assert save(browser, page_url(client), form_of(client, users=str(ann.pk))).status_code == 302
    finally:
        site._registry[get_user_model()] = page
    assert list(client.users.all()) == [ann]
