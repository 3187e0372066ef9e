"""Before a weight or a tier is saved: how the shares of what waits would move. Nothing is saved by looking."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from llmjobs.models import Client, Flow, Lane, LaneTurn, Model
from tests.admin.pages import hidden_fields, logged_in, page_url, save, staff, text_of
from tests.admin.test_clients_and_tiers import form_of
from tests.factories import make_client, make_model, make_tier
from tests.hands import submit


def waits(client: Client, pool: Model, queued: int = 10, *, is_ready: bool = True) -> None:
    flow, _ = Flow.objects.get_or_create(client=client, pool=pool)
    lane = Lane.objects.create(flow=flow, priority=5, size=0)
    LaneTurn.objects.create(
        lane=lane, turn=1, flow=flow, pool=pool, tier=client.tier, level=4, queued=queued, is_ready=is_ready
    )


def shares(answer: Any) -> dict[str, tuple[str, str]]:
    """By name, of the first model."""
    pool = answer.context["pools"][0]
    return {row.name: (row.before, row.after) for row in (*pool["tiers"], *pool["clients"])}


def tier_form(tier: Any, **changes: Any) -> dict[str, Any]:
    return {"name": tier.name, "weight": tier.weight, "max_priority": 0, "aging_s": 300, **changes}


@pytest.fixture
def backlog(db: None) -> dict[str, Client]:
    gold, tin, pool = make_tier("gold", weight=4), make_tier("tin", weight=1), make_model("gpt")
    found = {name: make_client(name, tier=tier) for name, tier in (("acme", gold), ("bolt", gold), ("corn", tin))}
    for client in found.values():
        waits(client, pool)
    return found


def test_a_clients_weight_is_previewed_and_saved_by_the_answer(browser: Browser, backlog: dict[str, Client]) -> None:
    acme = backlog["acme"]
    form = form_of(acme, weight="3", max_queued="77")
    answer = browser.post(page_url(acme), form)
    assert answer.status_code == 200
    assert "The weight of <strong>acme</strong> goes from 1.0 to <strong>3.0</strong>" in text_of(answer)
    moved = {"acme": ("40.0%", "60.0%"), "bolt": ("40.0%", "20.0%"), "corn": ("20.0%", "20.0%")}
    assert shares(answer) == {**moved, "gold": ("80.0%", "80.0%"), "tin": ("20.0%", "20.0%")}
    acme.refresh_from_db()
    assert (acme.weight, acme.max_queued) == (1, None)
    assert not LogEntry.objects.exists()
    assert browser.post(page_url(acme), hidden_fields(answer)).status_code == 302
    acme.refresh_from_db()
    assert (acme.weight, acme.max_queued) == (3, 77)
    assert LogEntry.objects.count() == 1


def test_another_tier_is_previewed(browser: Browser, backlog: dict[str, Client]) -> None:
    bolt, tin = backlog["bolt"], backlog["corn"].tier
    answer = browser.post(page_url(bolt), form_of(bolt, tier=tin.pk))
    found = shares(answer)
    assert found["bolt"] == ("40.0%", "10.0%")
    assert found["acme"] == ("40.0%", "80.0%")
    assert found["corn"] == ("20.0%", "10.0%")
    browser.post(page_url(bolt), hidden_fields(answer))
    bolt.refresh_from_db()
    assert bolt.tier == tin


def test_a_tiers_weight_is_previewed(browser: Browser, backlog: dict[str, Client]) -> None:
    tin = backlog["corn"].tier
    answer = browser.post(page_url(tin), tier_form(tin, weight="4"))
    assert shares(answer)["tin"] == ("20.0%", "50.0%")
    assert shares(answer)["acme"] == ("40.0%", "25.0%")
    browser.post(page_url(tin), hidden_fields(answer))
    tin.refresh_from_db()
    assert tin.weight == 4


def test_what_moves_no_share_is_saved_at_once(browser: Browser, backlog: dict[str, Client]) -> None:
    acme = backlog["acme"]
    assert browser.post(page_url(acme), form_of(acme, max_queued="5")).status_code == 302
    acme.refresh_from_db()
    assert acme.max_queued == 5


def test_a_client_that_waits_for_nothing_is_told_that_nothing_moves(
    browser: Browser, backlog: dict[str, Client]
) -> None:
    idle = make_client("idle", tier=backlog["acme"].tier)
    answer = browser.post(page_url(idle), form_of(idle, weight="9"))
    assert "No share of what waits now moves." in text_of(answer)
    assert browser.post(page_url(idle), hidden_fields(answer)).status_code == 302


def test_who_is_paused_or_held_back_has_no_share(browser: Browser, backlog: dict[str, Client]) -> None:
    Client.objects.filter(name="bolt").update(is_paused=True)
    LaneTurn.objects.filter(flow__client__name="corn").update(is_ready=False)
    acme = backlog["acme"]
    answer = browser.post(page_url(acme), form_of(acme, weight="3"))
    assert shares(answer) == {"gold": ("100.0%", "100.0%"), "acme": ("100.0%", "100.0%")}


def test_an_edit_by_somebody_else_meanwhile_is_previewed_anew(browser: Browser, backlog: dict[str, Client]) -> None:
    acme = backlog["acme"]
    answer = browser.post(page_url(acme), form_of(acme, weight="3"))
    Client.objects.filter(pk=acme.pk).update(weight=2)
    again = browser.post(page_url(acme), hidden_fields(answer))
    assert again.status_code == 200
    assert "goes from 2.0 to <strong>3.0</strong>" in text_of(again)
    assert browser.post(page_url(acme), hidden_fields(again)).status_code == 302


def test_a_form_that_is_wrong_is_refused_before_any_preview(browser: Browser, backlog: dict[str, Client]) -> None:
    answer = browser.post(page_url(backlog["acme"]), form_of(backlog["acme"], weight="-3"))
    assert "weight" in answer.context["adminform"].form.errors


def test_adding_is_not_previewed(browser: Browser, backlog: dict[str, Client]) -> None:
    answer = browser.post("/admin/llmjobs/tier/add/", {**tier_form(backlog["acme"].tier), "name": "new", "weight": 7})
    assert answer.status_code == 302


def test_who_may_not_change_a_client_is_shown_no_preview(backlog: dict[str, Client]) -> None:
    acme = backlog["acme"]
    viewer = staff("view_client")
    assert viewer.post(page_url(acme), form_of(acme, weight="3")).status_code == 403
    assert staff().post(page_url(acme), form_of(acme, weight="3")).status_code == 403


def test_what_a_form_holds_is_sent_again_whole(browser: Browser, backlog: dict[str, Client], root: Any) -> None:
    """Fields of many values, the button that was pressed."""
    acme = backlog["acme"]
    form = form_of(acme, weight="3", users=[root.pk], _continue="Save and continue editing")
    answer = save(browser, page_url(acme), form)
    assert answer.url == page_url(acme)
    assert list(acme.users.all()) == [root]


@pytest.mark.django_db(transaction=True)
def test_what_was_submitted_a_moment_ago_counts(root: Any) -> None:
    """Nobody claims: the look folds."""
    acme, pool = make_client("acme"), make_model("gpt")
    submit(acme, pool, 3)
    submit(make_client("bolt"), pool, 1)
    answer = logged_in(root).post(page_url(acme), form_of(acme, weight="3"))
    assert shares(answer)["acme"] == ("50.0%", "75.0%")
    assert answer.context["pools"][0]["queued"] == 4


def test_a_preview_costs_a_fixed_number_of_queries(browser: Browser, backlog: dict[str, Client]) -> None:
    acme, pool = backlog["acme"], Model.objects.get()

    def preview() -> tuple[int, Any]:
        with CaptureQueriesContext(connection) as queries:
            answer = browser.post(page_url(acme), form_of(acme, weight="3"))
        return len(queries), answer

    preview()  # the process keeps what the first one asks for
    few, _ = preview()
    for _ in range(30):
        waits(make_client(tier=acme.tier), pool)
    many, answer = preview()
    assert many == few
    assert few <= 31
    assert answer.context["pools"][0]["others_name"] == "13 others"
