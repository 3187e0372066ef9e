"""Incidents in the admin: the banner says the worst first, the list can be narrowed, a page says what to do."""

import re
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client as Browser

from llmjobs import pauses
from llmjobs.handbook import HANDBOOK
from llmjobs.models import Incident, Tier
from llmjobs.models.incidents import Kind
from tests.admin.pages import list_url, page_url, staff, text_of
from tests.factories import make_client, make_model

pytestmark = pytest.mark.django_db


def incidents() -> dict[str, Incident]:
    """One of every kind."""
    model, client = make_model("gpt"), make_client("acme")
    tier = Tier.objects.get(name="pro")
    about: dict[str, dict[str, Any]] = {
        "breaker": {"provider": model.provider, "reason": "provider_quota"},
        "blocked": {"provider": model.provider, "pool": model},
        "backlog": {"tier": tier},
        "budget": {"client": client},
        "no_worker": {"pool": model, "tier": tier},
    }
    critical = ("breaker", "no_worker", "budget")
    return {
        kind: Incident.objects.create(
            kind=kind,
            level="critical" if kind in critical else "warning",
            words=f"seen of {kind}",
            **about.get(kind, {}),
        )
        for kind in Kind.values
    }


def banner(response: Any) -> list[str]:
    """Its lines, as text."""
    [found] = re.findall(r'<ul class="messagelist llmjobs-incidents".*?</ul>', text_of(response), re.S)
    return [" ".join(re.sub(r"<[^>]+>", "", item).split()) for item in re.findall(r"<li.*?</li>", found, re.S)]


def test_the_banner_says_the_worst_first_and_five_at_most(browser: Browser) -> None:
    found = incidents()
    Incident.objects.create(kind="budget", level="warning", client=found["budget"].client, words="overtaken")
    lines = banner(browser.get(list_url("Worker")))
    assert [line.partition(" since ")[0] for line in lines[:3]] == [
        "Budget of acme used up",
        "No worker for tier pro of model gpt",
        f"{found['breaker'].provider}: quota used up",
    ]
    assert len(lines) == 6 and lines[5] == "And others. All incidents"
    page = text_of(browser.get(list_url("Worker")))
    assert f'<a href="{page_url(found["budget"].client)}">Budget of acme used up</a>' in page, "a link to where to act"
    assert "overtaken" not in page
    seen = text_of(staff("view_job").get(list_url("Job")))
    assert "Budget of acme used up" in seen
    assert "/admin/llmjobs/client/" not in seen.partition("</ul>")[0], "no way to what it may not see"


def test_the_list_is_narrowed_by_open_level_and_kind(browser: Browser) -> None:
    found = incidents()
    Incident.objects.filter(kind="snapshot").update(closed_at=Now())

    def shown(query: str) -> set[str]:
        page = browser.get(f"{list_url('Incident')}?{query}")
        return {row.kind for row in page.context["cl"].result_list}

    assert shown("is_open=yes") == set(Kind.values) - {"snapshot"}
    assert shown("is_open=no") == {"snapshot"}
    assert shown("level=critical") == {"breaker", "no_worker", "budget"}
    assert shown("kind=backlog") == {"backlog"}
    assert shown("level=warning&is_open=no") == {"snapshot"}
    for query in ("is_open=x", "level='", f"kind={found['backlog'].pk}"):
        assert shown(query) <= set(), query


def test_a_page_of_each_kind_says_what_it_means_what_to_do_and_where(browser: Browser) -> None:
    for kind, row in incidents().items():
        page = text_of(browser.get(page_url(row)))
        assert HANDBOOK[kind].means in page, kind
        for step in HANDBOOK[kind].steps:
            assert f"<li>{step}</li>" in page, kind
        links = re.findall(r'class="llmjobs-tool" href="([^"]+)"', page)
        assert len(links) == (kind != "snapshot"), (kind, links)
        for link in links:
            assert browser.get(link).status_code == 200, (kind, link)


@pytest.mark.django_db(transaction=True)
def test_who_opens_the_list_sees_what_is_wrong_now(browser: Browser) -> None:
    """Even where no worker lives to look."""
    pauses.pause_claims(by="ann", reason="The provider mends something.")
    page = text_of(browser.get(list_url("Incident")))
    assert "All claims paused" in page
    assert "Paused by ann at " in text_of(browser.get(page_url(Incident.objects.get())))


def test_the_list_costs_the_same_statements_for_one_and_for_many(
    browser: Browser, django_assert_max_num_queries: Any
) -> None:
    counts = []
    for number in (1, 30):
        for _ in range(number):
            Incident.objects.create(kind="budget", level="warning", client=make_client(), words="81 %")
        with django_assert_max_num_queries(12) as captured:
            assert browser.get(list_url("Incident")).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1], counts
