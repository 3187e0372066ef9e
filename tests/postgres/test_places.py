"""Where a waiting job stands: its place among the starts to come, when that may be, and what holds it back."""

import time

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from llmjobs import places as places_module
from llmjobs.models import BucketKind, BucketTurn, Client, FlowTurn, Job, LaneTurn, Model, Provider, Worker
from llmjobs.places import Starts, places
from llmjobs.sql import load
from tests.factories import make_client, make_model, make_worker
from tests.hands import hands, submit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """The next starts are kept for half a second; most tests look sooner."""
    monkeypatch.setattr(places_module, "_kept", {})
    monkeypatch.setattr(places_module, "KEPT_S", 0.0)
    monkeypatch.setattr(places_module, "KEPT_BY_COST", 0)


def positions(*jobs):
    found = places(jobs)
    return [found[job.id].position for job in jobs]


def test_a_position_counts_what_starts_before(client, pool, hand):
    jobs = submit(client, pool, 3)
    [urgent] = submit(client, pool, priority="critical")
    ahead = places([*jobs, urgent])
    assert [ahead[job.id].position for job in (urgent, *jobs)] == [0, 1, 2, 3]
    hand.claim(pool, 2)
    waiting = list(Job.objects.filter(state="queued").order_by("id"))
    assert [places(waiting)[job.id].position for job in waiting] == [0, 1]


def test_an_eta_is_the_position_by_what_the_pool_starts(hand, client, pool):
    submit(client, pool, 20)
    assert places([Job.objects.order_by("id")[0]]).popitem()[1].eta_s is None, "nothing has started yet"
    hand.claim(pool, 10)
    last = Job.objects.order_by("-id")[0]
    place = places([last])[last.id]
    assert place.position == 9 and place.eta_s == pytest.approx(1, abs=1), "ten started within the last second"


@pytest.mark.parametrize("kind", [BucketKind.POOL, BucketKind.ACCOUNT])
@pytest.mark.parametrize("limit", ["requests", "tokens"])
def test_an_eta_is_no_sooner_than_the_limits_let_jobs_start(hand, client, pool, kind, limit):
    """Two a minute, however short the calls are."""
    submit(client, pool, 8)
    hand.claim(pool, 3)
    waiting = list(Job.objects.filter(state="queued").order_by("id"))
    assert max(place.eta_s for place in places(waiting).values()) < 10
    bucket(BucketKind.POOL, pool.pk, mean_tokens=600)
    rates = {"requests_rate": 1 / 30} if limit == "requests" else {"tokens_rate": 20, "mean_tokens": 600}
    bucket(kind, pool.pk if kind == BucketKind.POOL else pool.provider_id, **rates)
    found = places(waiting)
    assert [found[job.id].eta_s for job in waiting] == pytest.approx([30, 60, 90, 120, 150])


@pytest.mark.parametrize("kind", [BucketKind.POOL, BucketKind.ACCOUNT])
@pytest.mark.parametrize("block", ["opens_at", "blocked_until"])
def test_an_eta_is_not_before_its_pool_opens(hand, client, pool, kind, block):
    submit(client, pool, 8)
    hand.claim(pool, 6)
    waiting = list(Job.objects.filter(state="queued").order_by("id"))
    turn = {block: time.time() + 100, "blocked_by": "rate_limit" if block == "blocked_until" else None}
    bucket(kind, pool.pk if kind == BucketKind.POOL else pool.provider_id, **turn)
    found = places(waiting)
    first, second = (found[job.id].eta_s for job in waiting)
    assert 90 <= first <= second <= 101 and (found[waiting[0].id].blocked_by == "rate_limit")


@pytest.mark.parametrize("limit", ["rpm", "tpm"])
@pytest.mark.parametrize("is_open", [True, False])
def test_an_eta_is_not_before_the_client_s_own_limit_has_room(hand, client, pool, limit, is_open):
    """Six jobs a minute and a full bucket: one each ten seconds, whatever the pool could start."""
    submit(client, pool, 6)
    hand.claim(pool, 3)
    waiting = list(Job.objects.filter(state="queued").order_by("id"))
    tokens = waiting[0].est_input_tokens + waiting[0].est_output_tokens
    type(client).objects.update(**{limit: 6 if limit == "rpm" else 6 * tokens})
    if not is_open:
        FlowTurn.objects.update(opens_at=LATER, is_open=False)
        LaneTurn.objects.update(is_ready=False)
    full = time.time() + 60
    bucket(BucketKind.CLIENT, client.pk, **({"requests_at": full} if limit == "rpm" else {"tokens_at": full}))
    found = places(waiting)
    assert [found[job.id].eta_s for job in waiting] == pytest.approx([10, 20, 30], abs=3)


@pytest.mark.parametrize(
    ("reason", "table", "changes"),
    [
        ("client_paused", "client", {"is_paused": True}),
        ("model_paused", Model, {"is_paused": True}),
        ("provider_paused", Provider, {"is_paused": True}),
        ("client_concurrency", "client", {"max_running": 1}),
        ("model_concurrency", Model, {"max_running": 1}),
        ("no_worker", Worker, {"is_draining": True}),
    ],
)
def test_a_job_says_what_keeps_it_waiting(hand, client, pool, reason, table, changes):
    submit(client, pool, 2)
    hand.claim(pool)
    [waiting] = Job.objects.filter(state="queued")
    assert places([waiting])[waiting.id].blocked_by is None
    (type(client) if table == "client" else table).objects.update(**changes)
    hand.fold()
    assert places([waiting])[waiting.id].blocked_by == reason


def bucket(kind, of_id, **fields):
    """What the claim will find, and what a fold would have written."""
    before = BucketTurn.objects.filter(kind=kind, of_id=of_id).order_by("-turn").first()
    BucketTurn.objects.create(kind=kind, of_id=of_id, turn=before.turn + 1 if before else 1, **fields)


LATER, BEFORE = time.time() + 3600, time.time() - 60


@pytest.mark.parametrize(
    ("reason", "kind", "turn"),
    [
        ("provider_down", BucketKind.ACCOUNT, {"blocked_by": "provider_down", "blocked_until": LATER}),
        ("provider_quota", BucketKind.ACCOUNT, {"blocked_by": "provider_quota", "blocked_until": LATER}),
        ("provider_auth", BucketKind.POOL, {"blocked_by": "provider_auth", "blocked_until": LATER}),
        ("provider_auth", BucketKind.POOL, {"blocked_by": "provider_auth", "blocked_until": BEFORE}),
        ("rate_limit", BucketKind.POOL, {"blocked_by": "rate_limit", "blocked_until": LATER}),
        ("rate_limit", BucketKind.ACCOUNT, {"blocked_by": "rate_limit", "blocked_until": LATER}),
        ("rate_limit", BucketKind.POOL, {"opens_at": LATER}),
        ("rate_limit", BucketKind.ACCOUNT, {"opens_at": LATER}),
        (None, BucketKind.POOL, {"blocked_by": "rate_limit", "blocked_until": BEFORE}),
        (None, BucketKind.ACCOUNT, {"blocked_by": "rate_limit", "blocked_until": BEFORE}),
        (None, BucketKind.POOL, {"opens_at": BEFORE}),
        (None, BucketKind.ACCOUNT, {}),
    ],
)
def test_a_job_says_what_the_provider_or_its_limits_keep_it_waiting_for(hand, client, pool, reason, kind, turn):
    submit(client, pool, 2)
    hand.claim(pool)
    [waiting] = Job.objects.filter(state="queued")
    bucket(kind, pool.pk if kind == BucketKind.POOL else pool.provider_id, **turn)
    place = places([waiting])[waiting.id]
    assert place.blocked_by == reason
    assert (place.eta_s is None) == (reason is not None and reason.startswith("provider_")), "what passes has a time"


def test_a_job_says_that_it_waits_for_its_client_s_own_limit(hand, client, pool):
    submit(client, pool, 2)
    hand.claim(pool)
    [waiting] = Job.objects.filter(state="queued")
    for opens_at, reason in ((LATER, "client_rate_limit"), (BEFORE, None)):
        FlowTurn.objects.update(opens_at=opens_at)
        assert places([waiting])[waiting.id].blocked_by == reason


def test_the_reason_that_lasts_longest_is_told_first(hand, client, pool):
    """A pause lasts until an operator ends it, a breaker until the provider answers, a limit some seconds."""
    submit(client, pool, 2)
    hand.claim(pool)
    [waiting] = Job.objects.filter(state="queued")
    Model.objects.update(max_running=1)
    told = []
    for change in (
        lambda: Client.objects.update(max_running=1),
        lambda: bucket(BucketKind.POOL, pool.pk, blocked_by="rate_limit", blocked_until=LATER),
        lambda: FlowTurn.objects.update(opens_at=LATER),
        lambda: Worker.objects.update(is_draining=True),
        lambda: bucket(BucketKind.POOL, pool.pk, blocked_by="provider_auth", blocked_until=LATER),
        lambda: bucket(BucketKind.ACCOUNT, pool.provider_id, blocked_by="provider_down", blocked_until=LATER),
        lambda: Provider.objects.update(is_paused=True),
    ):
        told.append(places([waiting])[waiting.id].blocked_by)
        change()
    told.append(places([waiting])[waiting.id].blocked_by)
    assert told == [
        "model_concurrency", "client_concurrency", "rate_limit", "client_rate_limit", "no_worker", "provider_auth",
        "provider_down", "provider_paused",
    ]  # fmt: skip


def test_a_full_account_is_told_as_a_full_model(hand, client, pool):
    submit(client, pool, 2)
    hand.claim(pool)
    [waiting] = Job.objects.filter(state="queued")
    bucket(BucketKind.ACCOUNT, pool.provider_id, running=3)
    for most, reason in ((4, None), (3, "model_concurrency")):
        Provider.objects.update(max_running=most)
        assert places([waiting])[waiting.id].blocked_by == reason


@pytest.mark.parametrize(("fields", "serves"), [({"pools": ["other"]}, False), ({"tiers": ["pro"]}, False), ({}, True)])
def test_a_worker_of_other_pools_or_tiers_is_none(client, pool, fields, serves):
    make_worker(**fields)
    [job] = submit(client, pool)
    assert (places([job])[job.id].blocked_by is None) == serves


def test_another_model_s_jobs_do_not_count_for_a_position(client, pool):
    other = make_model("other")
    submit(client, other, 5)
    [job] = submit(client, pool)
    assert places([job])[job.id].position == 0


def test_positions_are_the_order_of_the_claims(hand, pool):
    """Of three tiers, weights, priorities and sizes; claimed one by one."""
    for number, (tier, weight) in enumerate([("free", 1), ("pro", 1), ("pro", 3), ("enterprise", 1)]):
        client = make_client(f"c{number}", tier=tier, weight=weight)
        submit(client, pool, 6, long=bool(number % 2))
        submit(client, pool, 4, priority="low")
    hand.fold()
    jobs = list(Job.objects.all())
    found = places(jobs)
    expected = sorted(jobs, key=lambda job: found[job.id].position)
    assert sorted(place.position for place in found.values()) == list(range(40))
    claimed = [hand.claim(pool)[0].id for _ in range(40)]
    assert claimed == [job.id for job in expected]


def test_a_new_client_s_job_waits_for_its_share_not_for_all_before_it(hand, client, pool):
    submit(client, pool, 100)
    hand.claim(pool, 4)
    [job] = submit(make_client(tier="enterprise"), pool)
    assert positions(job)[0] <= 2, "of a hundred jobs that came before"


def test_beyond_what_is_looked_ahead_a_position_is_rounded(hand, client, pool, monkeypatch):
    monkeypatch.setattr(places_module, "STARTS_MAX", 20)
    Client.objects.update(max_queued=5_000)
    jobs = submit(Client.objects.get(id=client.id), pool, 300)
    hand.fold()
    near, far = positions(jobs[19], jobs[287])
    assert near == 19 and far in (280, 290)


def test_far_back_a_position_is_told_from_what_the_lanes_say(hand, client, pool, monkeypatch):
    monkeypatch.setattr(places_module, "STARTS_MAX", 20)
    jobs = submit(client, pool, 300)
    urgent = submit(client, pool, 100, priority="critical")
    hand.fold()
    last, middle = positions(jobs[299], jobs[150])
    assert last == pytest.approx(399, rel=0.1) and middle == pytest.approx(250, rel=0.2)
    assert positions(urgent[5]) == [5]


def test_looking_ahead_claims_nothing_and_leaves_the_caller_s_settings_alone(hand, client, pool):
    [job] = submit(client, pool)
    hand.fold()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("set local enable_mergejoin = on")
        places([job])
        cursor.execute("show enable_mergejoin")
        assert cursor.fetchone() == ("on",)
        cursor.execute("show enable_seqscan")
        assert cursor.fetchone() == ("on",)
    assert Job.objects.get().state == "queued"


def test_a_page_costs_as_many_queries_as_a_job_and_the_next_page_one(hand, client, pool, monkeypatch):
    jobs = submit(client, pool, 30)
    hand.fold()
    counts = []
    for some in (jobs[:1], jobs):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            places(some)
        counts.append(len(queries))
    assert counts[0] == counts[1]
    monkeypatch.setattr(places_module, "KEPT_S", 60.0)
    places(jobs)
    with CaptureQueriesContext(connection) as queries:
        places(jobs[10:])
    assert len(queries) == 1, "the next starts are known"


def test_buckets_are_looked_at_by_key_however_many_there_are(hand, client, pool):
    [job] = submit(client, pool)
    hand.fold()
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into llmjobs_bucketturn (kind, of_id, turn) select 2, n, 1 from generate_series(1, 20000) as n"
        )
        cursor.execute("analyze llmjobs_bucketturn")
        params = {"ids": [job.id], "unplaced": [], "lease_s": 12.0}
        cursor.execute("explain " + load("places", most=1000), params)
        plan = "\n".join(line for [line] in cursor.fetchall())
    assert plan.count("llmjobs_bucketturn_pkey") == 3, plan
    assert "Seq Scan on llmjobs_bucketturn" not in plan


def test_a_paused_job_still_has_a_place_but_no_time(hand, client, pool):
    jobs = submit(client, pool, 3)
    hand.claim(pool)
    Model.objects.update(is_paused=True)
    place = places(jobs)[jobs[2].id]
    assert (place.position, place.eta_s, place.blocked_by) == (1, None, "model_paused")


def test_what_is_kept_is_bounded(monkeypatch, pool):
    monkeypatch.setattr(places_module, "POOLS_MAX", 2)
    for _ in range(5):
        places_module.next_starts(make_model().id)
    assert len(places_module._kept) <= 2


def test_while_one_looks_others_take_what_was_known(monkeypatch, pool):
    before = places_module.next_starts(pool.id)
    with places_module._asking:
        assert places_module.next_starts(pool.id) is before


@pytest.mark.parametrize(
    ("ahead", "share", "position"), [(0, 1, 0), (7, 1, 7), (0, 0.25, 2), (9, 0.5, 19), (123_456, 1, 120_000)]
)
def test_a_position_is_the_client_s_own_jobs_by_its_share(ahead, share, position):
    assert Starts().position(ahead, share) == position


def test_a_share_is_of_the_next_starts_or_by_weight_for_who_has_none():
    starts = Starts(
        places={n: n for n in range(10)}, of_client={1: 8, 2: 2}, weights={1: {1: 4.0, 2: 1.0}}, tier_weights={1: 4.0}
    )
    assert starts.share(1, 4.0, 1, 4.0) == 0.8
    assert starts.share(3, 5.0, 1, 4.0) == 0.5, "half of the tier's weights with its own, and no other tier"
    assert starts.share(4, 1.0, 2, 1.0) == 0.2, "alone in a tier of weight 1 beside one of 4"


def test_what_no_claim_has_folded_yet_has_its_place_too(pool):
    """No worker is there: who looks folds."""
    first, second = make_client(tier="pro"), make_client(tier="pro")
    jobs = [submit(client, pool)[0] for client in (first, second, first, second)]
    assert sorted(positions(*jobs)) == [0, 1, 2, 3]


def test_a_fold_for_a_place_sees_what_was_committed_whatever_the_host_s_isolation(pool):
    [job] = submit(make_client(tier="pro"), pool)
    with connection.cursor() as cursor:
        cursor.execute("set session characteristics as transaction isolation level repeatable read")
    try:
        with hands(1) as [hand]:
            hand.fold()
        submit(make_client(tier="pro"), pool)
        assert positions(job) == [0]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("set session characteristics as transaction isolation level read committed")
