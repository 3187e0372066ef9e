"""The watch: what is wrong opens one incident, is told once, and once more when it is over; and nothing flaps."""

from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.core import mail
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmjobs import counts, findings, watch
from llmjobs.database import dsn
from llmjobs.handbook import HANDBOOK
from llmjobs.incidents import Teller, open_incidents
from llmjobs.models import (
    BucketKind,
    BucketTurn,
    Client,
    Flow,
    FlowTurn,
    Incident,
    Job,
    Model,
    PoolSample,
    Spending,
    Tier,
    Worker,
)
from llmjobs.models.incidents import Kind
from llmjobs.sql import load
from project.mail import addresses
from tests.factories import make_client, make_job, make_model
from tests.hands import submit
from tests.postgres.test_incidents import Receiver
from tests.postgres.watch_scenes import (
    LONG_AGO,
    SAID,
    SCENES,
    a_backlog,
    a_month,
    a_snapshot,
    blocked,
    claims_paused,
    dead_letters,
    hook,
    old_job,
    sample,
    stack,
)

__all__ = ["hook", "stack"]

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def connect():
    async with await psycopg.AsyncConnection.connect(**dsn()) as conn:
        yield conn


@pytest.fixture(autouse=True)
def patient(monkeypatch: Any) -> None:
    """No check is left out because the machine is busy."""
    monkeypatch.setattr(watch, "MOST_MS", 60_000)


def look(hand: Any) -> watch.Looked:
    looked = hand.run(watch.look(hand.connection, every_s=0.0))
    assert looked is not None
    return looked


def tell(hand: Any) -> None:
    hand.run(Teller(connect).tell())


def time_goes_by(seconds: float = 100) -> None:
    """For what is open: it was not seen since."""
    Incident.objects.filter(closed_at=None).update(seen_at=F("seen_at") - timedelta(seconds=seconds))


def kinds_open() -> list[str]:
    return sorted(Incident.objects.filter(closed_at=None).values_list("kind", flat=True))


def test_every_kind_has_a_scene_here_and_an_entry_in_the_handbook() -> None:
    assert set(HANDBOOK) == set(Kind.values) == {"breaker", *SCENES}
    assert {kind for check in watch.CHECKS for kind in check.kinds} == set(SCENES)


def test_what_is_wrong_is_told_once_and_once_more_when_it_is_over(
    hand: Any, hook: Receiver, settings: Any, stack: ExitStack
) -> None:
    settings.LLMJOBS_SITE_URL = "https://llm.example.org/"
    assert look(hand) == (0, 0), "nothing is wrong yet"
    for kind, begin in SCENES.items():
        hook.calls.clear()
        if kind == "snapshot":
            settings.LLMJOBS_ALERT_SNAPSHOT_S = 0.0
        mend = begin(stack)
        assert [look(hand), look(hand)] == [(1, 0), (0, 0)], kind
        tell(hand)
        tell(hand)
        [opened] = hook.events
        assert (opened["type"], opened["data"]["kind"]) == ("incident.opened", kind)
        assert SAID[kind] in opened["text"]
        assert opened["data"]["link"].startswith("https://llm.example.org/admin/llmjobs/"), kind
        mend()
        assert look(hand) == (0, 0), f"{kind} may come back in a moment"
        time_goes_by()
        assert [look(hand), look(hand)] == [(0, 1), (0, 0)], kind
        tell(hand)
        tell(hand)
        assert [event["type"] for event in hook.events] == ["incident.opened", "incident.closed"]
        assert "over, after " in hook.events[1]["text"]
    assert Incident.objects.exclude(closed_at=None).count() == len(SCENES)


def test_nothing_opens_on_a_site_that_is_well(hand: Any) -> None:
    client = make_client(monthly_budget_usd=100, max_running=4)
    Spending.objects.create(client=client, month=a_month(), usd=70)
    for state in ("queued", "running", "completed", "dead", "failed", "cancelled", "expired", "scheduled"):
        make_job(state, client=client)
    assert look(hand) == (0, 0)
    assert not Incident.objects.exists()


def test_two_watches_at_once_open_one(hand: Any, other: Any) -> None:
    a_backlog(ExitStack())

    async def both() -> list[Any]:
        async with hand.connection.transaction():
            first = await watch.look(hand.connection, every_s=0.0)
            async with connect() as conn:
                second = await watch.look(conn, every_s=0.0)
        return [first, second]

    assert hand.run(both()) == [(1, 0), None]
    assert other.run(watch.look(other.connection)) is None, "somebody just looked"
    assert watch.look_here(every_s=0.0) == (0, 0)
    assert kinds_open() == ["backlog"]


def test_a_flicker_is_not_told(hand: Any) -> None:
    mend = a_backlog(ExitStack())
    look(hand)
    mend()
    time_goes_by(30)
    assert look(hand) == (0, 0)
    Job.objects.update(available_at=timezone.now() - LONG_AGO)
    time_goes_by(30)
    assert look(hand) == (0, 0), "seen again"
    time_goes_by(60)
    mend()
    assert look(hand) == (0, 0), "from when it was seen last"
    assert kinds_open() == ["backlog"]


def test_an_incident_stays_open_down_to_less_than_what_opens_it(hand: Any) -> None:
    job = make_job(available_at=timezone.now() - timedelta(seconds=270))
    assert look(hand) == (0, 0), "the target is 300 s"
    Job.objects.update(available_at=timezone.now() - timedelta(seconds=310))
    assert look(hand) == (1, 0)
    Job.objects.update(available_at=timezone.now() - timedelta(seconds=270))
    time_goes_by()
    assert look(hand) == (0, 0)
    Tier.objects.filter(pk=job.tier_id).update(backlog_target_s=60)
    assert look(hand) == (1, 0), "four times the target is critical"
    shown = [(row.level, row.kind) for row in open_incidents(5)]
    assert shown == [("critical", "backlog")], "which has overtaken the warning"


def test_what_waits_on_purpose_is_no_backlog(hand: Any) -> None:
    held = [make_client() for _ in range(4)]
    jobs = [old_job(client=client) for client in held]
    Client.objects.filter(pk=held[0].pk).update(is_paused=True)
    Model.objects.filter(pk=jobs[1].pool_id).update(is_paused=True)
    for job, is_open, running, most in ((jobs[2], False, 0, None), (jobs[3], True, 2, 4)):
        flow = Flow.objects.create(pool=job.pool, client=job.client)
        FlowTurn.objects.create(
            flow=flow,
            turn=1,
            pool=job.pool,
            client=job.client,
            tier=job.tier,
            is_open=is_open,
            running=running,
            max_running=most,
        )
    limited = old_job()
    at = timezone.now().timestamp() + 45
    BucketTurn.objects.create(kind=BucketKind.CLIENT, of_id=limited.client_id, turn=1, requests_at=at)
    assert look(hand) == (0, 0)
    Client.objects.update(is_paused=False)
    assert look(hand) == (1, 0)


def test_a_client_at_its_limits_does_not_hide_that_no_worker_lives(hand: Any) -> None:
    """What ran when the last one was killed is not over, and nobody takes it back."""
    client, pool = make_client(max_running=2), make_model()
    submit(client, pool, 4)
    hand.claim(pool, 2)
    Job.objects.update(available_at=timezone.now() - LONG_AGO)
    assert look(hand) == (0, 0), "it waits for its own"
    Worker.objects.update(heartbeat_at=timezone.now() - LONG_AGO)
    look(hand)
    assert kinds_open() == ["backlog", "no_worker"]


@pytest.mark.parametrize("flooder", [{"is_paused": True}, {"max_running": 1}])
def test_who_floods_a_tier_does_not_hide_what_waits_behind(hand: Any, monkeypatch: Any, flooder: Any) -> None:
    monkeypatch.setitem(watch.ROWS, "watch_waiting", {"rows": 5, "lanes": 5})
    pool, flood, other = make_model(), make_client(max_running=1), make_client()
    submit(flood, pool, 6)
    hand.claim(pool)
    submit(other, pool)
    hand.fold()
    Client.objects.filter(pk=flood.pk).update(**flooder)
    hand.fold()
    Job.objects.filter(client=flood).update(available_at=timezone.now() - 2 * LONG_AGO)
    assert look(hand) == (0, 0), "these wait on purpose"
    Job.objects.filter(client=other).update(available_at=timezone.now() - LONG_AGO)
    assert look(hand) == (1, 0)
    assert "10 min" in Incident.objects.get(kind="backlog").words


def test_jobs_that_no_worker_serves_are_named_by_model_and_tier(hand: Any) -> None:
    Tier.objects.update(backlog_target_s=3600)
    served, left = make_model("served"), make_model("left")
    client = make_client(tier="pro")
    Worker.objects.update(pools=["served"], tiers=["pro"])
    for model, asked in ((served, client), (left, client), (served, make_client(tier="free"))):
        old_job(client=asked, model=model)
    assert look(hand) == (2, 0)
    found = {
        (row.pool.name, row.tier.name)
        for row in Incident.objects.select_related("pool", "tier")
        if row.pool and row.tier
    }
    assert found == {("left", "pro"), ("served", "free")}
    Worker.objects.update(is_draining=True)
    assert look(hand) == (1, 0), "who drains claims nothing: one word for all of it"


def test_a_restart_is_no_loss_of_workers(hand: Any) -> None:
    Tier.objects.update(backlog_target_s=3600)
    old_job()
    Worker.objects.update(stopped_at=timezone.now() - timedelta(seconds=30))
    assert look(hand) == (0, 0)
    Worker.objects.update(stopped_at=timezone.now() - timedelta(seconds=70))
    assert look(hand) == (1, 0)


def test_a_rate_limit_that_comes_and_goes_is_none(hand: Any, stack: ExitStack) -> None:
    blocked(stack)
    model = Model.objects.get()
    for blocked_at, open_at in (([130, 60], [15]), ([60, 15], [130]), ([300, 60], []), ([60, 15], []), ([], [])):
        PoolSample.objects.all().delete()
        for ago_s in blocked_at:
            sample(model, ago_s, blocked_by="rate_limit")
        for ago_s in open_at:
            sample(model, ago_s, blocked_by=None)
        assert look(hand) == (0, 0), (blocked_at, open_at)


def test_dead_letters_rise_above_the_usual_and_a_rise_that_lasts_is_not_over(hand: Any, stack: ExitStack) -> None:
    dead_letters(stack, count=300, ago_s=1800)
    dead_letters(stack, count=90)
    assert look(hand) == (0, 0), "50 in ten minutes are usual"
    dead_letters(stack, count=20)
    assert look(hand) == (1, 0)
    dead_letters(stack, count=600, ago_s=1800)
    time_goes_by()
    assert look(hand) == (0, 0)
    assert kinds_open() == ["dead_letters"]


def test_a_budget_is_told_at_80_and_at_100_with_what_is_expected_of_its_jobs(hand: Any) -> None:
    client = make_client(monthly_budget_usd=10)
    spent = Spending.objects.create(client=client, month=a_month(), usd=7)
    make_client(monthly_budget_usd=0), make_client()
    make_job(client=client, est_usd=2)
    hand.run(counts.count(hand.connection))
    assert look(hand) == (1, 0)
    Spending.objects.filter(pk=spent.pk).update(usd=8)
    assert look(hand) == (1, 0)
    assert sorted(Incident.objects.values_list("level", flat=True)) == ["critical", "warning"]
    Spending.objects.filter(pk=spent.pk).update(usd="7.60")
    time_goes_by()
    assert look(hand) == (0, 0), "96 %: a margin of five keeps it open"
    Spending.objects.filter(pk=spent.pk).update(usd=7)
    time_goes_by()
    assert look(hand) == (0, 1)
    Spending.objects.filter(pk=spent.pk).update(month="2020-01-01")
    time_goes_by()
    assert look(hand) == (0, 1), "a month begins"


def test_a_storm_is_one_message(hand: Any, hook: Receiver, settings: Any) -> None:
    settings.ADMINS = addresses("ADMINS", "Ops <ops@example.org>")
    settings.LLMJOBS_SITE_URL = "https://llm.example.org"
    month = a_month()
    for number in range(30):
        Spending.objects.create(client=make_client(f"c{number:02}", monthly_budget_usd=1), month=month, usd=2)
    assert look(hand) == (30, 0)
    tell(hand)
    [event] = hook.events
    named = "Budget of c00 used up; Budget of c01 used up; Budget of c02 used up"
    assert event["text"] == f"30 incidents (budget) opened: {named}; and 27 more."
    assert (event["data"]["count"], event["data"]["level"], len(event["data"]["incidents"])) == (30, "critical", 30)
    [message] = mail.outbox
    assert message.subject == "[llmjobs] 30 incidents (budget) opened"
    for words in (
        "Budget of c29 used up since ",
        "https://llm.example.org/admin/llmjobs/incident/\n",
        HANDBOOK["budget"].means,
    ):
        assert words in message.body
    assert not Incident.objects.filter(opening_told_at=None).exists()


def test_a_check_that_takes_too_long_is_left_out_and_what_is_open_stays(
    hand: Any, stack: ExitStack, caplog: Any
) -> None:
    claims_paused(stack)
    assert look(hand) == (1, 0)
    time_goes_by()
    holder = stack.enter_context(psycopg.connect(**dsn() | {"autocommit": False}))
    holder.execute("lock table llmjobs_claimspause in access exclusive mode")
    a_backlog(stack)
    assert look(hand) == (1, 0), "the others are looked at"
    assert watch.look_here(every_s=0.0) == (0, 0)
    holder.rollback()
    assert kinds_open() == ["backlog", "claims_paused"]
    assert caplog.text.count("event=check_left_out check=watch_claims") == 2


def test_who_may_not_see_when_a_session_began_tells_it_by_its_transactions(
    hand: Any, settings: Any, stack: ExitStack
) -> None:
    settings.LLMJOBS_ALERT_SNAPSHOT_S = 0.0
    a_snapshot(stack)
    for _ in range(3):  # transactions go by, and looks
        make_client()
        look(hand)
    with stack.enter_context(psycopg.connect(**dsn() | {"autocommit": False})) as conn:
        conn.execute("create role llmjobs_plain")
        conn.execute("grant all on all tables in schema public to llmjobs_plain")
        conn.execute("set local role llmjobs_plain")
        rows = conn.execute(load("watch_snapshots", rows=3), {"for_s": 0.0}).fetchall()
        conn.rollback()
    assert [(row[0], row[1], row[4]) for row in rows if row[1] == "nightly-report"] == [
        ("session", "nightly-report", None)
    ]


def test_a_breaker_of_a_worker_of_the_version_before_stands_beside_what_the_watch_opened(
    hand: Any, stack: ExitStack
) -> None:
    blocked(stack)
    look(hand)
    model = Model.objects.get(name="gpt")
    with connection.cursor() as cursor:
        for _ in range(2):
            cursor.execute(
                "insert into llmjobs_incident (provider_id, pool_id, reason, words) "
                "values (%s, %s, 'provider_auth', '') on conflict do nothing",
                [model.provider_id, model.pk],
            )
    found = Incident.objects.filter(closed_at=None).values_list("kind", "level")
    assert sorted(found) == [("blocked", "warning"), ("breaker", "critical")]


def test_a_look_costs_the_same_statements_and_little_at_ten_thousand_clients(hand: Any, caplog: Any) -> None:
    pool, tier = make_model(), Tier.objects.get(name="pro")
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into llmjobs_client (name, tier_id, webhook_secret, monthly_budget_usd) "
            "select 'c' || n, %s, '', 100 from generate_series(1, 10000) as n",
            [tier.pk],
        )
        cursor.execute(
            "insert into llmjobs_spending (client_id, month, usd) select id, %s, 50 from llmjobs_client", [a_month()]
        )
        cursor.execute(
            "insert into llmjobs_jobcount (client_id, tier_id, priority, state, jobs, tokens, usd) "
            "select c.id, %s, p, s, 1, 1, 1 from llmjobs_client as c, unnest(array[1, 5]) as p, "
            "unnest(array['queued', 'running', 'completed', 'dead', 'submitted']) as s",
            [tier.pk],
        )
        cursor.execute(
            "insert into llmjobs_job (public_id, pool_id, client_id, tier_id, endpoint, priority, size, lane_order, "
            "state, est_input_tokens, est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, available_at, "
            "retry_until) "
            "select gen_random_uuid(), %s, c.id, %s, '/v1/chat/completions', 5, 0, c.id, 'queued', 1, 1, 1, 1, 1, 1, "
            "now() - interval '20 min', now() + interval '1 d' from llmjobs_client as c",
            [pool.pk, tier.pk],
        )
        cursor.execute("analyze llmjobs_job, llmjobs_jobcount, llmjobs_client, llmjobs_spending")
    with CaptureQueriesContext(connection) as one:
        assert watch.look_here(every_s=0.0) == (1, 0)
    Spending.objects.update(usd=90)
    with CaptureQueriesContext(connection) as all_of_them:
        assert watch.look_here(every_s=0.0) == (10_000, 0)
    assert look(hand) == (0, 0)
    assert len(all_of_them) == len(one) == 2 + 3 * (len(watch.CHECKS) + 3), "a savepoint each"
    assert "check_left_out" not in caplog.text


def test_findings_name_at_most_so_many_rows() -> None:
    """Whatever is wrong, what a look reads and writes is bounded."""
    assert set(watch.ROWS) == {
        "watch_waiting",
        "watch_dead_letters",
        "watch_webhooks",
        "watch_snapshots",
        "watch_budgets",
    }
    assert [findings.span(seconds) for seconds in (0.4, 99, 100, 5_999, 6_000, 86_400)] == [
        "0 s", "99 s", "2 min", "100 min", "2 h", "24 h",
    ]  # fmt: skip
