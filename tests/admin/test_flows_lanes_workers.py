"""What the scheduler and the workers write, read as it stands now: by the newest turn, by the database's clock."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client as Browser

from llmjobs.models import Flow, FlowTurn, Lane, LaneTurn, ShardTurn, Worker
from tests.admin.pages import list_url, page_url, text_of
from tests.factories import make_client, make_job, make_model, make_worker

pytestmark = pytest.mark.django_db


def test_a_flow_is_shown_by_its_newest_turn(browser: Browser, rows: Any) -> None:
    flow: Flow = rows["Flow"]
    FlowTurn.objects.create(
        flow=flow, turn=2, pool=flow.pool, client=flow.client, tier=flow.client.tier, vt=777.5, running=9, is_open=False
    )
    for url in (list_url("Flow"), page_url(flow)):
        page = text_of(browser.get(url))
        assert "777.5" in page, url
        assert "12.5" not in page, url
        assert ">blocked<" in page, url


def test_a_flows_page_shows_its_tier_its_lanes_and_what_is_not_folded(browser: Browser, rows: Any) -> None:
    page = text_of(browser.get(page_url(rows["Flow"])))
    assert "free: virtual time 99.5, 0 running" in page
    assert "1 row in the inbox: 1 queued, 0 running" in page
    assert page_url(rows["Lane"]) in page


def test_a_flow_and_a_lane_lead_to_the_jobs_that_they_hold_whatever_was_asked_for(browser: Browser) -> None:
    moved = make_job(model=make_model("eu"), home=make_model("gpt"))
    flow = Flow.objects.create(pool=moved.pool, client=moved.client)
    lane = Lane.objects.create(flow=flow, priority=moved.priority, size=moved.size)
    for row in (flow, lane):
        [(url, _)] = browser.get(page_url(row)).context["links"]
        assert [job.pk for job in browser.get(url).context["cl"].result_list] == [moved.pk]


def test_a_flow_without_a_turn_can_be_read(browser: Browser) -> None:
    flow = Flow.objects.create(pool=make_model(), client=make_client())
    lane = Lane.objects.create(flow=flow, priority=5, size=0)
    for url in (list_url("Flow"), list_url("Lane"), page_url(flow), page_url(lane)):
        assert browser.get(url).status_code == 200, url


@pytest.mark.parametrize(
    ("turn", "word"),
    [
        ({"is_ready": True, "has_heads": True}, "ready"),
        ({"is_ready": False, "has_heads": True}, "blocked"),
        ({"is_ready": False, "has_heads": False}, "asleep"),
    ],
)
def test_a_lane_says_how_many_wait_and_whether_it_is_next(browser: Browser, rows: Any, turn: Any, word: str) -> None:
    lane: Lane = rows["Lane"]
    LaneTurn.objects.create(
        lane=lane, turn=2, flow=lane.flow, pool=lane.flow.pool, tier=lane.flow.client.tier, level=4, queued=4321, **turn
    )
    for url in (list_url("Lane"), page_url(lane)):
        page = text_of(browser.get(url))
        assert "4,321" in page, url
        assert f">{word}<" in page, url


def test_a_lane_that_has_aged_shows_what_it_was_raised_to(browser: Browser, rows: Any) -> None:
    lane = Lane.objects.create(flow=rows["Flow"], priority=8, size=0)
    turn = {"lane": lane, "flow": lane.flow, "pool": lane.flow.pool, "tier": lane.flow.client.tier, "has_heads": True}
    LaneTurn.objects.create(**turn, turn=1, level=6)
    assert "raised" not in text_of(browser.get(page_url(lane)))
    LaneTurn.objects.create(**turn, turn=2, level=2)
    for url in (list_url("Lane"), page_url(lane)):
        assert "low, raised to high" in text_of(browser.get(url)), url


def test_a_flow_shows_what_its_jobs_taught(browser: Browser, rows: Any) -> None:
    flow: Flow = rows["Flow"]
    turn = {"flow": flow, "pool": flow.pool, "client": flow.client, "tier": flow.client.tier}
    FlowTurn.objects.create(**turn, turn=2, learned=20, cost_ratio=0.4, output_tokens=1_234)
    for url in (list_url("Flow"), page_url(flow)):
        assert "1,234 output tokens a job, 0.40 times the estimated cost" in text_of(browser.get(url)), url


def test_flows_and_lanes_are_filtered_by_model_and_client(browser: Browser, rows: Any) -> None:
    other = Flow.objects.create(pool=make_model("other"), client=make_client("other"))
    lane = Lane.objects.create(flow=other, priority=1, size=1)
    for query in ({"model": "other"}, {"client": "other"}):
        assert [row.pk for row in browser.get(list_url("Flow"), query).context["cl"].result_list] == [other.pk]
        assert [row.pk for row in browser.get(list_url("Lane"), query).context["cl"].result_list] == [lane.pk]
    assert [row.pk for row in browser.get(list_url("Lane"), {"priority": "high"}).context["cl"].result_list] == [
        lane.pk
    ]


def test_a_shard_says_how_far_it_was_folded(browser: Browser, rows: Any) -> None:
    ShardTurn.objects.create(shard_id=1, turn=7, folded_to=123456)
    page = text_of(browser.get(list_url("Turnstile")))
    assert "123,456" in page


@pytest.mark.parametrize(
    ("age_s", "stopped", "draining", "word"),
    [
        (0, False, False, "live"), (0, False, True, "draining"), (7, False, False, "late"), (60, False, False, "lost"),
        (60, True, False, "stopped"), (0, True, False, "stopped"),
    ],
)  # fmt: skip
def test_a_worker_is_judged_by_the_databases_clock(
    browser: Browser, age_s: int, stopped: bool, draining: bool, word: str
) -> None:
    worker = make_worker(is_draining=draining)
    Worker.objects.update(heartbeat_at=Now() - timedelta(seconds=age_s), stopped_at=Now() if stopped else None)
    for url in (list_url("Worker"), page_url(worker)):
        assert f">{word}<" in text_of(browser.get(url)), url
    filtered = browser.get(list_url("Worker"), {"state": "live" if word == "draining" else word})
    assert [row.pk for row in filtered.context["cl"].result_list] == [worker.pk]


def test_a_worker_shows_what_it_holds(browser: Browser) -> None:
    worker = make_worker(slots=8)
    held = make_job("running", worker_id=worker.pk)
    elsewhere = make_job("running", worker_id=uuid.uuid4())
    assert "1 of 8" in text_of(browser.get(list_url("Worker")))
    page = text_of(browser.get(page_url(worker)))
    assert page_url(held) in page
    assert page_url(elsewhere) not in page
