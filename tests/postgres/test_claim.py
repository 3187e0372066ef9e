"""Claim: fair order, limits, what is skipped, and what is written."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import Attempt, Client, FlowTurn, Inbox, Job, JobEvent, LaneTurn, Model, Provider, Tier, TierTurn
from llmjobs.states import State
from tests.factories import make_client, make_model
from tests.hands import claimed_job, submit

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_claim_takes_a_lease_and_opens_a_row_of_the_ledger(hand, client, pool):
    [job] = submit(client, pool)
    [claimed] = hand.claim(pool)
    job.refresh_from_db()
    assert (claimed.id, claimed.attempt, claimed.epoch) == (job.id, 1, 2)
    assert (job.state, job.attempt, job.worker_id, job.epoch) == (State.RUNNING, 1, hand.worker, 2)
    attempt = Attempt.objects.get(job=job)
    assert (attempt.number, attempt.worker_id, attempt.charged, attempt.outcome) == (1, hand.worker, job.est_cost, None)
    assert (attempt.flow_weight, attempt.tier_weight) == (client.weight, client.tier.weight)


def test_a_claim_brings_what_the_call_needs(hand, client):
    provider = Provider.objects.create(name="p", base_url="http://127.0.0.1:9/v1", api_key_env="X_API_KEY")
    pool = make_model("m", provider=provider, upstream_name="up", input_usd_per_mtok=1, output_usd_per_mtok=2)
    submit(client, pool, timeout_s=7, max_attempts=3, max_cost_usd=0.5)
    [claimed] = hand.claim(pool)
    assert claimed.body == '{"messages":[{"role":"user","content":"Say hello."}]}'
    assert (claimed.model, claimed.upstream_name, claimed.base_url, claimed.api_key_env) == (
        "m",
        "up",
        provider.base_url,
        "X_API_KEY",
    )
    assert (claimed.timeout_s, claimed.max_attempts, float(claimed.max_cost_usd)) == (7, 3, 0.5)
    assert (claimed.client, claimed.tier, claimed.spent_usd) == ("acme", "enterprise", 0)
    assert 86_390 < claimed.retry_left_s <= 86_400


def test_jobs_of_a_lane_are_claimed_first_in_first_out(hand, client, pool):
    jobs = submit(client, pool, 10)
    order = [claimed.id for _ in range(5) for claimed in hand.claim(pool, 2)]
    assert order == [job.id for job in jobs]


def test_priority_goes_first_and_clients_of_one_priority_take_turns(hand, pool):
    one, two, three = (make_client(f"client{n}", tier="enterprise") for n in (1, 2, 3))
    submit(one, pool, priority="high")
    submit(one, pool, priority="normal")
    submit(two, pool, priority="high")
    submit(two, pool, priority="normal")
    submit(three, pool, priority="critical")
    order = [claimed.client for _ in range(5) for claimed in hand.claim(pool)]
    assert order == ["client3", "client1", "client2", "client1", "client2"]


def test_priority_goes_before_shares_also_in_a_claim_of_several(hand, pool):
    """Who was served much, and asks for something urgent, goes before who was served nothing."""
    served, waiting = make_client("served", tier="enterprise"), make_client("waiting", tier="enterprise")
    submit(served, pool, 6)
    hand.claim(pool, 6)
    submit(waiting, pool, 4, priority="low")
    hand.fold()
    submit(served, pool, 2, priority="high")
    assert [claimed.client for claimed in hand.claim(pool, 4)] == ["served", "served", "waiting", "waiting"]


@pytest.mark.parametrize("count", [1, 2, 5, 17, 64, 100])
def test_a_claim_brings_as_many_as_asked_and_no_more(hand, client, pool, count):
    submit(client, pool, 120)
    assert len(hand.claim(pool, count)) == count


def test_a_large_claim_is_as_fair_as_small_ones(hand, pool):
    clients = [make_client(f"c{n}", tier="enterprise") for n in range(4)]
    for client in clients:
        submit(client, pool, 50)
    claimed = hand.claim(pool, 100)
    assert sorted(sum(job.client == client.name for job in claimed) for client in clients) == [25] * 4


def test_a_heavy_client_is_not_starved_in_a_large_claim(hand, pool):
    heavy = make_client("heavy", tier="enterprise", weight=9)
    light = make_client("light", tier="enterprise", weight=1)
    submit(light, pool, 100)
    submit(heavy, pool, 100)
    claimed = hand.claim(pool, 100)
    assert 88 <= sum(job.client == "heavy" for job in claimed) <= 92


def test_an_expired_head_is_expired_by_the_claim_and_the_next_one_is_brought(hand, client, pool):
    [late] = submit(client, pool, expires_in_s=0.001)
    [next_one] = submit(client, pool)
    claim = hand.claim_once(pool)
    assert [wake.job_id for wake in claim.expired] == [late.id]
    assert claim.again, "a claim that only expired would leave the slot idle until the next poll"
    assert [claimed.id for claimed in hand.claim(pool)] == [next_one.id]
    late.refresh_from_db()
    assert (late.state, late.attempt, late.worker_id) == (State.EXPIRED, 0, None)
    assert not Attempt.objects.filter(job=late).exists(), "what was never tried is not in the ledger"
    done = JobEvent.objects.filter(job=late).latest("seq")
    assert (done.type, done.data, done.seq) == ("done", {"status": "expired"}, late.epoch << 20)


def test_a_head_that_somebody_else_holds_is_skipped_and_stays_queued(hand, client, pool):
    first, second, third = submit(client, pool, 3)
    with transaction.atomic():
        list(Job.objects.select_for_update().filter(id=first.id))
        assert [claimed.id for claimed in hand.claim(pool, 4)] == [second.id, third.id]
    assert [claimed.id for claimed in hand.claim(pool, 4)] == [first.id]


def test_the_cursor_of_a_lane_moves_only_to_the_least_that_was_skipped(hand, client, pool):
    jobs = submit(client, pool, 4)
    with transaction.atomic():
        list(Job.objects.select_for_update().filter(id=jobs[1].id))
        assert [claimed.id for claimed in hand.claim(pool, 4)] == [jobs[0].id, jobs[2].id, jobs[3].id]
        assert LaneTurn.objects.get().head_order == jobs[1].lane_order
    [claimed] = hand.claim(pool)
    assert claimed.id == jobs[1].id


def test_what_somebody_held_is_found_once_it_is_free(hand, client, pool):
    [job] = submit(client, pool)
    with transaction.atomic():
        list(Job.objects.select_for_update().filter(id=job.id))
        assert hand.claim(pool) == []
    assert hand.ready_pools() == [pool.id]
    assert [claimed.id for claimed in hand.claim(pool)] == [job.id]


def test_lanes_whose_heads_are_all_locked_do_not_fill_a_claim_with_nothing(hand, pool):
    blocked, free = make_client("blocked", tier="enterprise"), make_client("free-one", tier="enterprise")
    held = submit(blocked, pool, 3)
    [wanted] = submit(free, pool)
    with transaction.atomic():
        list(Job.objects.select_for_update().filter(id__in=[job.id for job in held]))
        assert [claimed.id for claimed in hand.claim(pool)] == [wanted.id]
    assert len(hand.claim(pool, 4)) == 3


def test_empty_lanes_do_not_fill_a_claim_with_nothing(hand, pool):
    clients = [make_client(f"c{n}", tier="enterprise") for n in range(30)]
    for client in clients:
        submit(client, pool)
    queue.cancel(Job.objects.exclude(client=clients[-1]).values_list("id", flat=True))
    assert [claimed.client for claimed in hand.claim(pool)] == ["c29"]


def test_a_claim_of_short_jobs_brings_no_long_one(hand, client, pool):
    submit(client, pool, 3, long=True)
    [short] = submit(client, pool, priority="background")
    assert [claimed.id for claimed in hand.claim(pool, 4, short_only=True)] == [short.id]
    assert len(hand.claim(pool, 4)) == 3


def test_a_claim_of_short_jobs_does_not_hide_the_long_ones_from_the_next(hand, client, pool):
    [long] = submit(client, pool, long=True)
    assert hand.claim(pool, short_only=True) == []
    assert [claimed.id for claimed in hand.claim(pool)] == [long.id]


def test_a_dedicated_worker_claims_only_its_tiers(hand, pool):
    pro, free = make_client("p", tier="pro"), make_client("f", tier="free")
    submit(free, pool, 2)
    submit(pro, pool, 2)
    tiers = [Tier.objects.get(name="pro").id]
    assert [claimed.client for claimed in hand.claim(pool, 4, tiers=tiers)] == ["p", "p"]
    assert [claimed.client for claimed in hand.claim(pool, 4)] == ["f", "f"]


def test_a_client_runs_as_many_as_it_may(hand, pool):
    client = make_client("c", tier="enterprise", max_running=2)
    submit(client, pool, 5)
    running = hand.claim(pool, 4)
    assert len(running) == 2
    assert hand.claim(pool, 4) == []
    hand.settle(running[0])
    assert len(hand.claim(pool, 4)) == 1


def test_a_limit_of_running_jobs_is_for_all_lanes_of_a_client_together(hand, pool):
    client = make_client("c", tier="enterprise", max_running=3)
    for priority in ("critical", "normal", "low"):
        submit(client, pool, 3, priority=priority)
        submit(client, pool, 3, priority=priority, long=True)
    assert len(hand.claim(pool, 16)) == 3


def test_a_client_at_its_limit_does_not_stop_the_others(hand, pool):
    full = make_client("full", tier="enterprise", max_running=1)
    submit(full, pool, 50, priority="critical")
    [other] = submit(make_client("other", tier="enterprise"), pool, priority="background")
    hand.claim(pool)
    assert [claimed.id for claimed in hand.claim(pool)] == [other.id]


def test_the_limit_of_a_tier_counts_where_the_client_has_none(hand, pool):
    Tier.objects.filter(name="pro").update(max_running=1)
    submit(make_client("a", tier="pro"), pool, 3)
    submit(make_client("b", tier="pro", max_running=2), pool, 3)
    assert sorted(claimed.client for claimed in hand.claim(pool, 16)) == ["a", "b", "b"]


def test_a_model_runs_as_many_as_it_may(hand, client):
    pool = make_model("small", max_running=3)
    submit(client, pool, 5)
    running = hand.claim(pool, 16)
    assert len(running) == 3
    assert hand.claim(pool, 16) == []
    hand.settle(*running)
    assert len(hand.claim(pool, 16)) == 2


@pytest.mark.parametrize("road", ["update", "sql"])
def test_a_pause_of_a_client_acts_at_the_next_claim_by_whatever_road(hand, client, pool, road):
    submit(client, pool, 3)
    hand.claim(pool)
    _set(Client, client.pk, road, is_paused=True)
    assert hand.claim(pool) == []
    _set(Client, client.pk, road, is_paused=False)
    assert len(hand.claim(pool)) == 1


@pytest.mark.parametrize("table", [Model, Provider])
@pytest.mark.parametrize("road", ["update", "sql"])
def test_a_pause_of_a_model_or_provider_acts_at_the_next_claim(hand, client, pool, table, road):
    submit(client, pool, 2)
    pk = pool.pk if table is Model else pool.provider_id
    _set(table, pk, road, is_paused=True)
    assert hand.claim(pool) == []
    _set(table, pk, road, is_paused=False)
    assert len(hand.claim(pool, 2)) == 2


@pytest.mark.parametrize("road", ["update", "sql"])
def test_a_limit_edited_by_whatever_road_acts_at_the_next_claim(hand, pool, road):
    client = make_client("c", tier="pro")
    submit(client, pool, 6)
    hand.claim(pool)
    _set(Client, client.pk, road, max_running=2)
    assert len(hand.claim(pool, 4)) == 1
    _set(Client, client.pk, road, max_running=None)
    _set(Tier, client.tier_id, road, max_running=3)
    assert len(hand.claim(pool, 4)) == 1
    _set(Tier, client.tier_id, road, max_running=None)
    assert len(hand.claim(pool, 4)) == 3


def test_a_client_that_was_paused_before_its_first_job_waits(hand, pool):
    client = make_client("c", tier="enterprise", is_paused=True)
    submit(client, pool)
    assert hand.claim(pool) == []
    Client.objects.update(is_paused=False)
    assert len(hand.claim(pool)) == 1


def test_a_paused_client_does_not_stop_the_others(hand, pool):
    paused = make_client("paused", tier="enterprise", is_paused=True)
    submit(paused, pool, 100, priority="critical")
    [other] = submit(make_client("other", tier="free"), pool, priority="background")
    assert [claimed.id for claimed in hand.claim(pool)] == [other.id]


def test_a_client_that_changes_tier_is_charged_to_the_tier_it_is_in(hand, pool):
    client = make_client("c", tier="free")
    submit(client, pool, 2)
    [before] = hand.claim(pool)
    Client.objects.update(tier=Tier.objects.get(name="enterprise"))
    [after] = hand.claim(pool)
    assert (before.tier, after.tier) == ("free", "enterprise")
    assert _of_tiers("running") == {"free": 1, "enterprise": 1, "pro": 0}
    hand.settle(before, after)
    hand.claim(pool)
    assert _of_tiers("running") == {"free": 0, "enterprise": 0, "pro": 0}


def test_a_client_can_move_to_a_tier_that_was_made_after_its_pool(hand, pool):
    client = make_client("c", tier="free")
    submit(client, pool, 3)
    hand.claim(pool)
    Client.objects.update(tier=Tier.objects.create(name="new", weight=3))
    assert [claimed.tier for claimed in hand.claim(pool)] == ["new"]


def test_a_retry_keeps_its_place(hand, client, pool):
    first, second = submit(client, pool, 2)
    [claimed] = hand.claim(pool)
    hand.settle(claimed, state=State.SCHEDULED)
    hand.stage()
    assert [claimed.id for claimed in hand.claim(pool, 2)] == [first.id, second.id]


def test_a_requeued_job_goes_to_the_end(hand, client, pool):
    first, second = submit(client, pool, 2)
    queue.cancel([first.id])
    queue.requeue([first.id])
    assert [claimed.id for claimed in hand.claim(pool, 2)] == [second.id, first.id]


def test_a_scheduled_job_is_not_claimed(hand, client, pool):
    submit(client, pool, delay_s=3600)
    assert hand.claim(pool) == []
    assert hand.ready_pools() == []


def test_attempts_rise_at_every_claim_and_never_go_back(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    numbers = [claimed.attempt]
    for _ in range(3):
        hand.release(claimed)
        [claimed] = hand.claim(pool)
        numbers.append(claimed.attempt)
    hand.settle(claimed, state=State.DEAD)
    queue.requeue([claimed.id])
    [claimed] = hand.claim(pool)
    assert [*numbers, claimed.attempt] == [1, 2, 3, 4, 5]


def test_a_claim_charges_the_estimate_and_a_settle_corrects_it(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    assert _of_tiers("vt")["enterprise"] == pytest.approx(claimed.charged / client.tier.weight)
    hand.settle(claimed, cost=claimed.charged * 3)
    hand.claim(pool)
    assert _of_tiers("vt")["enterprise"] == pytest.approx(3 * claimed.charged / client.tier.weight)


def test_a_full_model_with_a_long_queue_is_not_asked_again_and_again(hand, pool):
    """Where a wall would end the claim, but there is no room anyway, nothing more comes of asking."""
    for name, words in (("terse", 1), ("wordy", 40_000)):
        submit(make_client(name, tier="pro"), pool, 120, body={"messages": [{"role": "user", "content": "x" * words}]})
    Model.objects.update(max_running=0)
    full = hand.claim_once(pool, 60)
    assert (full.jobs, full.again) == ([], False)


def test_a_claim_of_many_takes_what_as_many_claims_of_one_would(hand, pool):
    """However much jobs differ in cost: where too few heads were read it ends at a wall, and says so."""
    for name, words in (("terse", 1), ("wordy", 40_000)):
        submit(make_client(name, tier="pro"), pool, 120, body={"messages": [{"role": "user", "content": "x" * words}]})
    first = hand.claim_once(pool, 60)
    assert 0 < len(first.jobs) < 60 and first.again
    rest = hand.claim(pool, 60 - len(first.jobs))
    shares = Counter(job.client for job in [*first.jobs, *rest])
    assert shares["terse"] * 261 == pytest.approx(shares["wordy"] * 10_260, abs=10_260)


def test_a_large_inbox_is_folded_in_steps_and_claims_say_that_there_is_more(hand, pool, settings):
    settings.LLMJOBS_FOLD_ROWS_MAX = 100
    client = make_client("c", tier="enterprise")
    for _ in range(150):
        submit(client, pool)
    claim = hand.claim_once(pool)
    assert claim.again and Inbox.objects.count() == 50
    hand.claim_once(pool)
    assert Inbox.objects.count() == 0


def test_pools_with_work_are_told_and_others_are_not(hand, client, pool):
    make_model("idle")
    assert hand.ready_pools() == []
    submit(client, pool)
    assert hand.ready_pools() == [pool.id]
    [claimed] = hand.claim(pool)
    hand.claim(pool)
    assert hand.ready_pools() == []
    hand.release(claimed)
    assert hand.ready_pools() == [pool.id]


def test_the_wait_is_told_from_when_the_job_was_available(hand, client, pool):
    submit(client, pool)
    Job.objects.update(
        created_at=timezone.now() - timedelta(hours=2), available_at=timezone.now() - timedelta(seconds=30)
    )
    [claimed] = hand.claim(pool)
    assert 29 < claimed.waited_s < 3_600


def test_a_pool_that_is_gone_has_nothing_and_ends_nobody(hand, pool):
    """A worker may ask once more for a model that an operator has just deleted."""
    gone = Model(pk=pool.pk)
    pool.delete()
    claim = hand.claim_once(gone)
    assert (claim.jobs, claim.again) == ([], False) and claim.clock > 0


def test_a_count_below_zero_does_not_stop_a_pool(hand, client, pool):
    """As of a job that nobody had claimed and somebody took back."""
    submit(client, pool, 2)
    hand.claim(pool)
    FlowTurn.objects.update(running=-1)
    assert len(hand.claim(pool)) == 1


def _set(table, pk, road, **values):
    if road == "update":
        table.objects.filter(pk=pk).update(**values)
        return
    [(name, value)] = values.items()
    with connection.cursor() as cursor:
        cursor.execute(f'update {table._meta.db_table} set "{name}" = %s where id = %s', [value, pk])  # noqa: S608


def _of_tiers(column):
    """The newest turn's, by tier."""
    turns = TierTurn.objects.order_by("tier_id", "-turn").distinct("tier_id").select_related("tier")
    return {turn.tier.name: getattr(turn, column) for turn in turns}
