"""A blocked pool's fallback takes some of its jobs: which, how many, in what order, at what price."""

import random
from collections import Counter
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.http import QueryDict

from llmjobs import fallback as moving
from llmjobs import queue
from llmjobs.access import Caller
from llmjobs.admin.job_filters import AskedModelFilter
from llmjobs.api.listing import page, parse
from llmjobs.events import WORK_CHANNEL
from llmjobs.leases import Claimed
from llmjobs.models import ApiKey, Attempt, BucketTurn, Job, LaneTurn, Model, Provider, Turnstile
from llmjobs.models.buckets import BlockedBy, BucketKind
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.representation import job_json
from llmjobs.sql import load
from llmjobs.states import State
from tests.concurrency.threads import started_and_waiting
from tests.factories import make_client, make_model, make_tier
from tests.hands import Hand, claimed_job, submit
from tests.postgres.test_claim_plan import looked_at, plans
from tests.properties.ground import check_counts, check_floors, check_turns

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fallback(transactional_db) -> Model:
    return make_model("fallback", input_usd_per_mtok=1, output_usd_per_mtok=8, upstream_name="theirs")


@pytest.fixture
def pool(fallback) -> Model:
    return make_model("model", fallback=fallback, input_usd_per_mtok=1, output_usd_per_mtok=2)


@pytest.fixture(autouse=True)
def bounds(settings) -> None:
    settings.LLMJOBS_FALLBACK_WAITING_MAX = 10


def block(row: Model | Provider, by: str = BlockedBy.DOWN, for_s: float = 60) -> None:
    """As the fold does once the provider has said so."""
    kind = BucketKind.POOL if isinstance(row, Model) else BucketKind.ACCOUNT
    BucketTurn.objects.get_or_create(kind=kind, of_id=row.pk, defaults={"turn": 0})
    with connection.cursor() as cursor:
        cursor.execute(
            "update llmjobs_bucketturn set turn = turn + 1, blocked_by = %s, "
            "blocked_until = extract(epoch from clock_timestamp()) + %s where kind = %s and of_id = %s",
            [by, for_s, kind, row.pk],
        )


def unblock(row: Model | Provider) -> None:
    kind = BucketKind.POOL if isinstance(row, Model) else BucketKind.ACCOUNT
    BucketTurn.objects.filter(kind=kind, of_id=row.pk).update(blocked_by=None, blocked_until=None)


def fall_back(hand: Hand) -> list[int]:
    return sorted(hand.run(moving.fall_back(hand.connection)))


def where(*jobs: Job) -> list[tuple[str, str | None]]:
    """(pool, home) of each."""
    rows = Job.objects.in_bulk([job.pk for job in jobs])
    return [(rows[job.pk].pool.name, rows[job.pk].home.name if rows[job.pk].home else None) for job in jobs]


def test_an_open_pool_keeps_its_jobs(hand, client, pool):
    submit(client, pool)
    assert fall_back(hand) == []


@pytest.mark.parametrize(
    ("whose", "by"),
    [
        ("pool", BlockedBy.AUTH),
        ("pool", BlockedBy.RATE_LIMIT),
        ("account", BlockedBy.DOWN),
        ("account", BlockedBy.QUOTA),
    ],
)
def test_a_blocked_pools_job_runs_at_its_fallback(hand, client, pool, fallback, by, whose):
    [job] = submit(client, pool)
    block(pool if whose == "pool" else pool.provider, by)
    assert hand.claim(pool) == []
    assert fall_back(hand) == [job.id]
    assert where(job) == [("fallback", "model")]
    [claimed] = hand.claim(fallback)
    assert (claimed.id, claimed.upstream_name, claimed.provider) == (job.id, "theirs", fallback.provider.name)


def test_what_was_just_submitted_is_seen_without_a_claim(hand, client, pool):
    block(pool)
    [job] = submit(client, pool)
    assert fall_back(hand) == [job.id]


def test_the_job_keeps_its_place_and_what_it_is(hand, client, pool, fallback):
    [job] = submit(client, pool, priority="high", long=True)
    block(pool)
    fall_back(hand)
    moved = Job.objects.get()
    for name in (
        "state",
        "lane_order",
        "priority",
        "size",
        "epoch",
        "attempt",
        "tier_id",
        "available_at",
        "created_at",
    ):
        assert getattr(moved, name) == getattr(job, name), name
    [younger] = submit(client, fallback, priority="high", long=True)
    assert [claimed.id for claimed in hand.claim(fallback, 2)] == [job.id, younger.id]


def test_an_older_job_goes_before_what_the_fallback_has_served_since(hand, client, pool, fallback):
    """Its lane there is behind what it brings: the head moves back."""
    [older] = submit(client, pool)
    submit(client, fallback, 2)
    hand.settle(*hand.claim(fallback))
    block(pool)
    fall_back(hand)
    assert [claimed.id for claimed in hand.claim(fallback)] == [older.id]


def test_its_estimates_and_its_cost_are_by_the_fallbacks_prices(hand, client, pool, fallback):
    [job] = submit(client, pool)
    block(pool)
    fall_back(hand)
    moved = Job.objects.get()
    assert moved.est_cost == job.est_input_tokens + 8 * job.est_output_tokens
    assert moved.est_usd == (job.est_input_tokens + 8 * job.est_output_tokens) / Decimal(1_000_000)
    [claimed] = hand.claim(fallback)
    assert (claimed.charged, claimed.output_usd_per_mtok) == (moved.est_cost, 8)
    attempt = Attempt.objects.get()
    assert (attempt.pool, attempt.charged) == (fallback, moved.est_cost)
    hand.settle(claimed, input_tokens=8, output_tokens=8, cost=72.0, cost_usd="0.000072")
    attempt.refresh_from_db()
    assert (attempt.pool, attempt.outcome, attempt.cost_usd) == (fallback, "completed", Decimal("0.000072"))


@pytest.mark.parametrize(
    ("prices", "weight", "usd"),
    [
        ((None, None), 1, None),
        ((0, 8), 1, "by output"),
        ((None, 8), 1, "by output"),
        ((4, None), 1, "by input"),
        ((Decimal("0.000001"), Decimal("999999.999999")), 999_999_999_999, "by output"),
    ],
)
def test_prices_that_are_not_known_are_as_at_submit(hand, client, pool, fallback, prices, weight, usd):
    fallback.input_usd_per_mtok, fallback.output_usd_per_mtok = prices
    fallback.save()
    [job] = submit(client, pool)
    [like_it] = submit(client, fallback)
    block(pool)
    fall_back(hand)
    moved, there = Job.objects.get(id=job.id), Job.objects.get(id=like_it.id)
    assert moved.est_cost == pytest.approx(there.est_cost)
    assert moved.est_cost == pytest.approx(job.est_input_tokens + weight * job.est_output_tokens)
    assert moved.est_usd == there.est_usd
    assert (moved.est_usd is None) == (usd is None)


def test_no_estimate_is_too_large_for_its_column(hand, client, pool, fallback):
    Model.objects.filter(pk=fallback.pk).update(output_usd_per_mtok=Decimal("999999.999999"))
    [job] = submit(client, pool)
    Job.objects.update(est_output_tokens=2**31 - 1)
    block(pool)
    assert fall_back(hand) == [job.id]


def test_a_rate_limit_of_some_seconds_is_waited_for(hand, client, pool):
    submit(client, pool)
    block(pool, BlockedBy.RATE_LIMIT, for_s=9)
    assert fall_back(hand) == []
    block(pool, BlockedBy.RATE_LIMIT, for_s=-1)
    assert fall_back(hand) == []
    block(pool, BlockedBy.RATE_LIMIT, for_s=15)
    assert len(fall_back(hand)) == 1


@pytest.mark.parametrize("what", ["model", "provider", "fallback", "fallback's provider"])
def test_what_an_operator_paused_neither_gives_nor_takes(hand, client, pool, fallback, what):
    submit(client, pool)
    block(pool)
    rows = {"model": pool, "provider": pool.provider, "fallback": fallback, "fallback's provider": fallback.provider}
    type(rows[what]).objects.filter(pk=rows[what].pk).update(is_paused=True)
    assert fall_back(hand) == []
    type(rows[what]).objects.update(is_paused=False)
    assert len(fall_back(hand)) == 1


def test_a_pause_alone_moves_nothing(hand, client, pool):
    submit(client, pool)
    Model.objects.filter(pk=pool.pk).update(is_paused=True)
    assert fall_back(hand) == []


@pytest.mark.parametrize("by", [BlockedBy.DOWN, BlockedBy.RATE_LIMIT])
def test_a_fallback_that_is_blocked_itself_takes_nothing(hand, client, pool, fallback, by):
    submit(client, pool)
    block(pool)
    block(fallback.provider, by, for_s=5)
    assert fall_back(hand) == []


def test_the_next_fallback_takes_what_the_first_cannot(hand, client, pool, fallback):
    last = make_model("last")
    Model.objects.filter(pk=fallback.pk).update(fallback=last)
    [before] = submit(client, pool)
    block(pool)
    fall_back(hand)
    assert where(before) == [("fallback", "model")]
    block(fallback)
    [after] = submit(client, pool)
    [own] = submit(client, fallback)
    assert len(fall_back(hand)) == 3
    assert where(before, after, own) == [("last", "model"), ("last", "model"), ("last", "fallback")]


def test_a_job_never_comes_back_to_its_home(hand, client, pool, fallback):
    """Where somebody made a circle, past Django or by an edit while jobs were away."""
    [job] = submit(client, pool)
    block(pool)
    fall_back(hand)
    Model.objects.filter(pk=fallback.pk).update(fallback=pool)
    [own] = submit(client, fallback)
    unblock(pool)
    block(fallback)
    assert fall_back(hand) == [own.id]
    assert where(job, own) == [("fallback", "model"), ("model", "fallback")]
    block(pool)
    assert fall_back(hand) == [], "all of the circle is blocked"


def test_few_wait_at_the_fallback_and_the_others_stay_at_home(hand, client, pool, fallback):
    submit(client, pool, 30)
    block(pool)
    assert len(fall_back(hand)) == 10
    assert fall_back(hand) == []
    hand.claim(fallback, 3)
    assert len(fall_back(hand)) == 3
    assert Counter(Job.objects.filter(state="queued").values_list("pool__name", flat=True)) == {
        "model": 17,
        "fallback": 10,
    }


def test_each_home_has_its_own_room_at_a_fallback(hand, client, pool, fallback):
    twin = make_model("twin", fallback=fallback)
    submit(client, pool, 12)
    submit(client, twin, 12)
    block(pool)
    block(twin)
    fall_back(hand)
    away = Job.objects.filter(home__isnull=False).values_list("home__name", flat=True)
    assert Counter(away) == {"model": 10, "twin": 10}


def test_what_passes_through_counts_for_its_home(hand, client, pool, fallback):
    last = make_model("last")
    Model.objects.filter(pk=fallback.pk).update(fallback=last)
    submit(client, pool, 30)
    block(pool)
    fall_back(hand)
    block(fallback)
    for _ in range(3):
        fall_back(hand)
    assert Counter(Job.objects.values_list("pool__name", flat=True)) == {"model": 20, "last": 10}


def test_the_clients_share_what_the_fallback_takes(hand, pool, fallback):
    """Nobody's long queue takes all of it, however old; weights count."""
    flood, light, heavy = (make_client(name, tier="pro", weight=w) for name, w in (("a", 1), ("b", 1), ("c", 3)))
    for client in (flood, light, heavy):
        submit(client, pool, 30)
    block(pool)
    fall_back(hand)
    away = Counter(Job.objects.filter(pool=fallback).values_list("client__name", flat=True))
    assert away == {"a": 2, "b": 2, "c": 6}
    queue.cancel(Job.objects.filter(pool=fallback, client=heavy).values_list("pk", flat=True))
    fall_back(hand)
    away = Counter(Job.objects.filter(pool=fallback, state="queued").values_list("client__name", flat=True))
    assert away == {"a": 2, "b": 2, "c": 6}, "who has the least there is next"


def test_the_tiers_share_what_the_fallback_takes(hand, pool, fallback):
    for tier in (make_tier("x", weight=1), make_tier("y", weight=4)):
        submit(make_client(tier=tier), pool, 20)
    block(pool)
    for _ in range(2):
        fall_back(hand)
        away = Job.objects.filter(pool=fallback, state="queued")
        assert Counter(away.values_list("tier__name", flat=True)) == {"x": 2, "y": 8}
        queue.cancel(away.filter(tier__name="y").values_list("pk", flat=True))


def test_the_more_urgent_and_then_the_older_go_first(hand, client, pool):
    normal = submit(client, pool, 8)
    high = submit(client, pool, 4, priority="high")
    block(pool)
    assert fall_back(hand) == [job.id for job in [*normal[:6], *high]]


def test_in_a_tier_the_more_urgent_goes_first_whosever_it_is(hand, client, pool):
    submit(client, pool, 12)
    urgent = submit(make_client(tier=client.tier), pool, 12, priority="high")
    block(pool)
    assert fall_back(hand) == [job.id for job in urgent[:10]]


def test_who_is_paused_stays(hand, pool):
    submit(make_client("paused", is_paused=True), pool)
    block(pool)
    assert fall_back(hand) == []


def test_a_job_that_the_fallbacks_context_is_too_small_for_stays(hand, client, pool, fallback):
    Model.objects.filter(pk=fallback.pk).update(context_window=100)
    jobs = submit(client, pool, 4)
    Job.objects.update(est_input_tokens=20, est_output_tokens=80)
    Job.objects.filter(pk__in=[jobs[0].pk, jobs[2].pk]).update(est_output_tokens=81)
    block(pool)
    assert fall_back(hand) == [jobs[1].id, jobs[3].id]


def test_a_job_that_runs_or_waits_for_its_retry_stays(hand, client, pool):
    running = claimed_job(hand, client, pool)
    later = claimed_job(hand, client, pool)
    hand.settle(later, state=State.SCHEDULED, delay_s=60.0)
    block(pool)
    assert fall_back(hand) == []
    assert hand.settle(running)


def test_a_pool_that_is_to_be_tried_keeps_a_job_for_it(hand, client, pool):
    [first, second] = submit(client, pool, 2)
    block(pool, BlockedBy.DOWN, for_s=-1)
    assert fall_back(hand) == [second.id]
    assert where(first) == [("model", None)]


def test_when_it_opens_the_new_stay_at_home_and_the_moved_where_they_are(hand, client, pool, fallback):
    [moved] = submit(client, pool)
    block(pool)
    fall_back(hand)
    unblock(pool)
    [new] = submit(client, pool)
    assert fall_back(hand) == []
    assert [claimed.id for claimed in hand.claim(pool)] == [new.id]
    assert [claimed.id for claimed in hand.claim(fallback)] == [moved.id]


def test_a_job_that_somebody_holds_is_left(hand, client, pool):
    [held, free] = submit(client, pool, 2)
    hand.fold()
    block(pool)
    with transaction.atomic():
        list(Job.objects.select_for_update().filter(pk=held.pk))
        assert fall_back(hand) == [free.id]
    assert fall_back(hand) == [held.id]


def test_one_worker_at_a_time(hand, client, pool):
    submit(client, pool)
    block(pool)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(hashtext('llmjobs.fall_back'), 1)")
        assert fall_back(hand) == []
    assert len(fall_back(hand)) == 1


def test_counts_of_lanes_and_pools_follow(hand, client, pool, fallback):
    submit(client, pool, 12)
    block(pool)
    fall_back(hand)
    hand.fold()
    queued = dict(LaneTurn.objects.values_list("pool__name", "queued"))
    assert queued == {"model": 2, "fallback": 10}
    buckets = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id__in=[pool.pk, fallback.pk])
    assert dict(buckets.values_list("of_id", "queued")) == {pool.pk: 2, fallback.pk: 10}
    unblock(pool)
    assert len(hand.claim(pool, 16)) == 2
    assert len(hand.claim(fallback, 16)) == 10


def test_the_head_of_a_lane_moves_behind_what_was_taken(hand, client, pool):
    """No claim does that while the pool is blocked, and each call would walk through all that left before."""
    jobs = submit(client, pool, 25)
    block(pool)
    with transaction.atomic():
        list(Job.objects.select_for_update().filter(pk=jobs[3].pk))
        fall_back(hand)

    def head() -> int:
        return LaneTurn.objects.filter(pool=pool).latest("turn").head_order

    assert head() == jobs[3].lane_order, "it was held by somebody"
    Job.objects.filter(pool__name="fallback").update(state="cancelled", finished_at=jobs[0].created_at)
    assert len(fall_back(hand)) == 10
    assert head() == jobs[19].lane_order
    Job.objects.filter(pool__name="fallback").update(state="cancelled", finished_at=jobs[0].created_at)
    assert len(fall_back(hand)) == 6
    assert head() == jobs[-1].lane_order + 1
    [more] = submit(client, pool)
    unblock(pool)
    assert [claimed.id for claimed in hand.claim(pool, 4)] == [more.id]


def test_a_retry_comes_before_the_head_that_moved_on(hand, client, pool):
    first = claimed_job(hand, client, pool)
    submit(client, pool, 5)
    block(pool)
    assert len(fall_back(hand)) == 5
    hand.release(first)
    assert fall_back(hand) == [first.id]


def test_a_claim_is_over_before_a_move_begins(hand, client, pool, fallback):
    """It has seen the job at home; it would start it there, and it would run at the fallback."""
    [job] = submit(client, pool)
    block(pool)
    with transaction.atomic():
        list(Turnstile.objects.select_for_update(no_key=True))
        moved = started_and_waiting(fall_back, hand, backend=hand.connection.info.backend_pid)
        assert where(job) == [("model", None)]
    assert moved() == [job.id]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_around_it_the_turns_say_what_is(hand, pool, fallback, seed):
    chance = random.Random(seed)
    clients = [make_client(f"client-{n}", tier=("pro", "free")[n % 2], weight=n + 1) for n in range(4)]
    held: list[Claimed] = []
    for _ in range(60):
        match chance.choice(["submit", "block", "unblock", "move", "move", "claim", "settle", "cancel", "fold"]):
            case "submit":
                submit(chance.choice(clients), pool, chance.randrange(1, 6), priority=chance.choice(["low", "normal"]))
            case "block":
                block(pool, chance.choice(BlockedBy.values), for_s=chance.choice([-1, 60]))
            case "unblock":
                unblock(pool)
            case "move":
                fall_back(hand)
            case "claim":
                held += hand.claim(chance.choice([pool, fallback]), chance.randrange(1, 5))
            case "settle" if held:
                hand.settle(held.pop(), state=chance.choice([State.COMPLETED, State.QUEUED]))
            case "cancel":
                queue.cancel(Job.objects.filter(state="queued").order_by("?").values_list("pk", flat=True)[:2])
            case "fold":
                hand.fold()
    hand.fold()
    check_counts()
    check_floors()
    check_turns()
    for row in (pool, fallback):
        bucket = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=row.pk).latest("turn")
        assert bucket.queued == Job.objects.filter(pool=row, state="queued").count()
        assert bucket.running == Job.objects.filter(pool=row, state="running").count()
    assert (
        Attempt.objects.exclude(job__pool=F("pool")).count()
        == Attempt.objects.filter(job__state="queued", pool=pool, job__pool=fallback).count()
    ), "it moved after that attempt"


def test_workers_are_woken_for_the_fallback(hand, client, pool, fallback):
    submit(client, pool, 2)
    block(pool)
    with connection.cursor() as cursor:
        cursor.execute(f"listen {WORK_CHANNEL}")
        fall_back(hand)
        told = [message.payload for message in connection.connection.notifies(timeout=5, stop_after=1)]
        cursor.execute("unlisten *")
    assert told == [f"pool:{fallback.pk}"]


def test_a_move_walks_indexes_and_its_cost_grows_with_nothing(hand, pool, fallback, settings):
    settings.LLMJOBS_FALLBACK_WAITING_MAX = 64
    settings.LLMJOBS_FOLD_ROWS_MAX = 10_000
    clients = [make_client(f"client-{n}", tier="pro") for n in range(20)]
    for client in clients:
        submit(client, pool, 200)
        submit(client, fallback, 200)
    block(pool)
    assert len(fall_back(hand)) == 64
    hand.fold()
    params = {"pool": str(pool.pk), "fallback": str(fallback.pk), "most": "128", "is_probing": "false"}
    for is_fresh in (False, True):
        if is_fresh:
            with connection.cursor() as cursor:
                cursor.execute("analyze llmjobs_job, llmjobs_laneturn, llmjobs_flowturn")
        nodes = plans(hand, load("fall_back", n=64), params, pin=load("pin_reads"))
        seen = looked_at(nodes)
        assert seen["llmjobs_job"] < 700, [node for node in nodes if node.get("Relation Name") == "llmjobs_job"]
        assert not [
            node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "llmjobs_tier"
        ]


def test_a_job_is_shown_and_found_by_the_model_that_was_asked_for(hand, client, pool, fallback):
    [moved] = submit(client, pool)
    block(pool)
    fall_back(hand)
    [own] = submit(client, fallback)
    jobs = {job.pk: job for job in Job.objects.select_related(*JOB_RELATED)}
    assert [job_json(jobs[job.pk])["model"] for job in (moved, own)] == ["model", "fallback"]
    caller = Caller.from_key(ApiKey.objects.issue(client)[0])
    for name, job in (("model", moved), ("fallback", own)):
        assert page(caller, parse(QueryDict(f"model={name}"))).jobs == [job]
        assert list(AskedModelFilter.matching(None, Job.objects.all(), name)) == [job]


@pytest.mark.parametrize("statistics", ["stale", "fresh"])
def test_asking_what_is_blocked_walks_indexes(hand, pool, statistics):
    for _ in range(50):
        make_model()
    if statistics == "fresh":
        with connection.cursor() as cursor:
            cursor.execute("analyze llmjobs_model, llmjobs_provider, llmjobs_bucketturn")
    block(pool)
    nodes = plans(hand, load("fall_back_is_due"), {"shard": "1"}, pin=load("pin_reads"))
    tables = [node for node in nodes if "Relation Name" in node]
    assert {"llmjobs_model", "llmjobs_bucketturn"} <= {node["Relation Name"] for node in tables}
    assert not [node for node in tables if node["Node Type"] == "Seq Scan"]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in tables) < 20, "of the models with a fallback"
