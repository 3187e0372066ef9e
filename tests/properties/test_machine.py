"""All verbs in any order, on the real Postgres, with a dict as oracle.

After every step: states are those that the oracle expects, the identity of virtual time holds, no ready lane is under
its floor, and each end of a job that is to be told stands in the outbox once. At every audit: counts, cursors and
openness are exact. Every claim follows the fair order, job by job.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmjobs import queue
from llmjobs.errors import NotAllowed
from llmjobs.leases import Claimed
from llmjobs.models import Client, HandlerCall, Job, JobRequest, Model, Tier, WebhookDelivery, Worker
from llmjobs.states import DEAD_LETTERS, REQUEUEABLE, TERMINAL, WAITING, Priority, State
from llmjobs.submissions import parse
from tests.factories import make_client, make_model
from tests.hands import Hand, hands, submit
from tests.properties.ground import (
    FairOrder,
    check_counts,
    check_dead_letters,
    check_floors,
    check_identity,
    check_levels,
    check_turns,
    empty,
    let_pass,
    used_by_attempts,
)

pytestmark = pytest.mark.django_db(transaction=True)

PRIORITIES = st.sampled_from(["critical", "normal", "background"])
CLIENTS = st.integers(0, 3)
PICKS = st.lists(st.integers(0, 1_000), min_size=1, max_size=4)
ROADS: Any = st.sampled_from(
    [frozenset(), frozenset({"webhook"}), frozenset({"handler"}), frozenset({"webhook", "handler"})]
)
ENDS = st.sampled_from([State.COMPLETED, State.FAILED, State.DEAD, State.SCHEDULED, State.QUEUED, State.CANCELLED])


def told_of(job: Job) -> None:
    """The handler of those that have one."""


class Verbs(RuleBasedStateMachine):
    hands: list[Hand]
    clients: list[Client]
    pool: Model
    elsewhere: Model

    @initialize()
    def begin(self) -> None:
        empty()
        Client.objects.update(is_paused=False, max_running=None, weight=1)
        Model.objects.update(max_running=None)
        Tier.objects.update(weight=1, aging_s=300, max_priority=0)
        for client, name in zip(self.clients, ["enterprise", "enterprise", "pro", "free"], strict=True):
            Client.objects.filter(pk=client.pk).update(tier=Tier.objects.get(name=name))
        self.states: dict[int, State] = {}
        self.leases: dict[int, tuple[Hand, Claimed]] = {}
        self.cancels: set[int] = set()
        self.told: dict[int, frozenset[str]] = {}  # by which roads a job's end is told
        self.ends: Counter[int] = Counter()
        self.kept: set[int] = set()  # on_interrupt: keep
        self.said: set[int] = set()  # of what runs, the jobs that have some text
        self.erased: set[int] = set()
        self.discarded: set[int] = set()
        self.aged: set[int] = set()  # past their age, if they are over
        self.gone: list[dict[str, Any]] = []  # what the attempts used that were removed

    def move(self, ids: Iterable[int], state: State) -> None:
        for job_id in ids:
            if state in TERMINAL and self.states.get(job_id) not in TERMINAL:
                self.ends[job_id] += 1
            self.states[job_id] = state

    def client(self, number: int) -> Client:
        return Client.objects.select_related("tier").get(pk=self.clients[number].pk)

    def picked(self, picks: list[int], states: Any) -> list[int]:
        known = sorted(job_id for job_id, state in self.states.items() if state in states)
        return sorted({known[pick % len(known)] for pick in picks}) if known else []

    # What clients and operators do.

    @rule(
        number=CLIENTS, priority=PRIORITIES, long=st.booleans(), count=st.integers(1, 4), delay=st.booleans(),
        roads=ROADS, keep=st.booleans(),
    )  # fmt: skip
    def submit(
        self, number: int, priority: str, long: bool, count: int, delay: bool, roads: frozenset[str], keep: bool
    ) -> None:
        client = self.client(number)
        Tier.objects.filter(pk=client.tier_id).update(max_priority=0)
        client.tier.max_priority = 0
        more = {
            "webhook_url": "https://a.example/" if "webhook" in roads else None,
            "on_settled": f"{__name__}.told_of" if "handler" in roads else None,
            "on_interrupt": "keep" if keep else "restart",
        }
        made = submit(client, self.pool, count, priority=priority, long=long, delay_s=3600 if delay else 0, **more)
        self.move([job.id for job in made], State.SCHEDULED if delay else State.QUEUED)
        self.told.update(dict.fromkeys((job.id for job in made), roads))
        if keep:
            self.kept.update(job.id for job in made)

    @rule(picks=PICKS)
    def cancel(self, picks: list[int]) -> None:
        ids = self.picked(picks, set(State))
        changed = queue.cancel(ids)
        expected = []
        for job_id in ids:
            if self.states[job_id] in WAITING:
                self.move([job_id], State.CANCELLED)
                expected.append(job_id)
            elif self.states[job_id] == State.RUNNING and job_id not in self.cancels:
                self.cancels.add(job_id)
                expected.append(job_id)
        assert sorted(changed) == expected

    @rule(picks=PICKS)
    def requeue(self, picks: list[int]) -> None:
        ids = self.picked(picks, set(State))
        expected = [job_id for job_id in ids if self.states[job_id] in REQUEUEABLE and job_id not in self.erased]
        assert sorted(queue.requeue(ids)) == expected
        self.begin_again(expected)

    def begin_again(self, ids: Iterable[int]) -> None:
        for job_id in ids:
            self.states[job_id] = State.QUEUED
            for known in (self.cancels, self.aged, self.discarded):
                known.discard(job_id)

    @rule(picks=PICKS, priority=PRIORITIES, is_moved=st.booleans())
    def requeue_as(self, picks: list[int], priority: str, is_moved: bool) -> None:
        for job_id in self.picked(picks, REQUEUEABLE):
            if job_id in self.erased:
                with pytest.raises(NotAllowed):
                    queue.asked_of(Job.objects.get(pk=job_id))
                continue
            asked = queue.asked_of(Job.objects.select_related("pool", "home").get(pk=job_id)) | {"priority": priority}
            if is_moved:
                asked |= {"model": self.elsewhere.name, "body": asked["body"] | {"n": 2}}
            assert queue.requeue_as(job_id, parse(asked)) == [job_id]
            self.begin_again([job_id])

    @rule(picks=PICKS, priority=st.sampled_from(list(Priority)))
    def reprioritize(self, picks: list[int], priority: Priority) -> None:
        ids = self.picked(picks, set(State) - TERMINAL)
        there = set(Job.objects.filter(id__in=ids, priority=priority).values_list("id", flat=True))
        assert sorted(queue.reprioritize(ids, priority)) == sorted(set(ids) - there)

    @rule(picks=PICKS, is_back=st.booleans())
    def move_to(self, picks: list[int], is_back: bool) -> None:
        pool = self.pool if is_back else self.elsewhere
        ids = self.picked(picks, set(State))
        expected = Job.objects.filter(id__in=ids, state__in=WAITING).exclude(pool=pool).order_by("id")
        assert list(expected.values_list("id", flat=True)) == sorted(queue.move(ids, pool.pk))

    @rule(picks=PICKS)
    def give_up(self, picks: list[int]) -> None:
        """A second end, which is told like the first; of an erased one nobody knows to whom."""
        ids = self.picked(picks, DEAD_LETTERS)
        assert sorted(queue.cancel(ids, even_dead=True)) == ids
        for job_id in ids:
            self.states[job_id] = State.CANCELLED
            self.ends[job_id] += job_id not in self.erased
            self.discarded.discard(job_id)
            self.aged.discard(job_id)

    @rule(picks=PICKS, is_back=st.booleans())
    def discard(self, picks: list[int], is_back: bool) -> None:
        ids = self.picked(picks, set(State))
        letters = {job_id for job_id in ids if self.states[job_id] in DEAD_LETTERS}
        if is_back:
            assert set(queue.restore(ids)) == letters & self.discarded
            self.discarded -= letters
        else:
            assert set(queue.discard(ids)) == letters - self.discarded
            self.discarded |= letters

    @rule(picks=PICKS)
    def erase_many(self, picks: list[int]) -> None:
        ids = self.picked(picks, set(State))
        expected = [job_id for job_id in ids if self.states[job_id] in TERMINAL]
        assert queue.erase_many(ids) == expected
        self.erased.update(expected)

    @rule(picks=PICKS)
    def erase(self, picks: list[int]) -> None:
        for job_id in self.picked(picks, set(State)):
            if self.states[job_id] in TERMINAL:
                queue.erase(job_id)
                self.erased.add(job_id)
            else:
                with pytest.raises(NotAllowed):
                    queue.erase(job_id)

    @rule(picks=PICKS, is_told=st.booleans())
    def prune(self, picks: list[int], is_told: bool) -> None:
        """Some are past their age now; who is told of their end may have been, or may not."""
        old = self.picked(picks, TERMINAL)
        Job.objects.filter(id__in=old).update(finished_at=F("finished_at") - timedelta(days=31))
        self.aged.update(old)
        if is_told:
            WebhookDelivery.objects.filter(job_id__in=old).update(state="delivered", ended_at=timezone.now())
            HandlerCall.objects.filter(job_id__in=old).update(state="done", ended_at=timezone.now())
        pending = {
            job_id for table in (WebhookDelivery, HandlerCall)
            for job_id in table.objects.filter(state="pending").values_list("job_id", flat=True)
        }  # fmt: skip
        expected = self.aged - pending
        used = [attempt for attempt in used_by_attempts() if attempt["job_id"] in expected]
        assert self.hands[0].prune() == len(expected)
        self.gone += used
        self.aged -= expected
        for job_id in expected:
            for known in (self.states, self.told, self.ends):
                del known[job_id]
        self.erased -= expected
        self.discarded -= expected

    @rule(picks=PICKS)
    def prune_bodies(self, picks: list[int]) -> None:
        """They are a day old by now, and are told of; without a body nobody requeues them."""
        old = self.picked(picks, TERMINAL)
        for table in (WebhookDelivery, HandlerCall):
            ended = "delivered" if table is WebhookDelivery else "done"
            table.objects.filter(job_id__in=old, state="pending").update(state=ended, ended_at=timezone.now())
        Job.objects.filter(id__in=set(old) - self.aged).update(finished_at=timezone.now() - timedelta(days=1))
        self.hands[0].prune(3_600, of_bodies=True)
        self.erased.update(old)

    @rule(number=CLIENTS, paused=st.booleans())
    def pause(self, number: int, paused: bool) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(is_paused=paused)

    @rule(number=CLIENTS, most=st.sampled_from([None, 1, 2]))
    def limit(self, number: int, most: int | None) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(max_running=most)

    @rule(number=CLIENTS, weight=st.sampled_from([0.5, 1, 3]))
    def weigh(self, number: int, weight: float) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(weight=weight)

    @rule(number=CLIENTS, name=st.sampled_from(["free", "pro", "enterprise"]))
    def change_tier(self, number: int, name: str) -> None:
        Client.objects.filter(pk=self.clients[number].pk).update(tier=Tier.objects.get(name=name))

    @rule(most=st.sampled_from([None, 3]))
    def limit_model(self, most: int | None) -> None:
        Model.objects.update(max_running=most)

    @rule(seconds=st.sampled_from([7.0, 331.0, 331.0, 1_000.0]))
    def wait(self, seconds: float) -> None:
        let_pass(seconds)

    @rule(number=st.integers(0, 2), weight=st.sampled_from([1, 5]), aging_s=st.sampled_from([0, 300]))
    def weigh_tier(self, number: int, weight: float, aging_s: float) -> None:
        Tier.objects.filter(name=["free", "pro", "enterprise"][number]).update(weight=weight, aging_s=aging_s)

    # What workers do.

    @rule(worker=st.integers(0, 1), count=st.integers(1, 6), short_only=st.booleans())
    def claim(self, worker: int, count: int, short_only: bool) -> None:
        """Folded first, so that the turns that the claim sees can be read before it."""
        hand, left, exclude, again = self.hands[worker], count, list[int](), True
        claimed: list[Claimed] = []
        hand.fold()
        while left and again:
            order = FairOrder.now(self.pool_now(), short_only=short_only)
            claim = hand.claim_once(self.pool, left, exclude=exclude, short_only=short_only)
            order.follow(claim.jobs)
            order.check()
            claimed += claim.jobs
            left, again = left - len(claim.jobs), claim.again
        assert not left or order.next() is None, "a slot stays idle while an admissible job waits"
        for job in claimed:
            self.start(hand, job)

    def pool_now(self) -> Model:
        return Model.objects.get(pk=self.pool.pk)

    @rule(worker=st.integers(0, 1), count=st.integers(1, 3), is_elsewhere=st.booleans())
    def claim_as_it_comes(self, worker: int, count: int, is_elsewhere: bool) -> None:
        for job in self.hands[worker].claim(self.elsewhere if is_elsewhere else self.pool, count):
            self.start(self.hands[worker], job)

    def start(self, hand: Hand, job: Claimed) -> None:
        assert self.states[job.id] == State.QUEUED, "claimed twice"
        self.states[job.id] = State.RUNNING
        self.leases[job.id] = hand, job
        self.said.discard(job.id)

    @rule(picks=PICKS)
    def say(self, picks: list[int]) -> None:
        for job_id in set(self.picked(picks, {State.RUNNING})) - self.said:
            hand, job = self.leases[job_id]
            hand.say(job, "word")
            self.said.add(job_id)

    @precondition(lambda self: State.RUNNING in self.states.values())
    @rule(picks=PICKS, end=ENDS, factor=st.sampled_from([0, 0.5, 1, 3]))
    def settle(self, picks: list[int], end: State, factor: float) -> None:
        for job_id in self.picked(picks, {State.RUNNING}):
            hand, job = self.leases[job_id]
            is_cancelled = job_id in self.cancels and end in WAITING
            now = State.CANCELLED if is_cancelled else end
            assert hand.settle(job, state=end, cost=job.charged * factor, delay_s=3600.0) == {job_id: now}
            self.move([job_id], now)

    @precondition(lambda self: self.leases)
    @rule(picks=PICKS, end=ENDS)
    def settle_again(self, picks: list[int], end: State) -> None:
        """With the lease of an attempt that is over."""
        over = sorted(job_id for job_id in self.leases if self.states.get(job_id) != State.RUNNING)
        for job_id in {over[pick % len(over)] for pick in picks} if over else ():
            hand, job = self.leases[job_id]
            assert hand.settle(job, state=end).get(job_id) in (None, "settled")

    @rule(picks=PICKS)
    def stage(self, picks: list[int]) -> None:
        ids = self.picked(picks, {State.SCHEDULED})
        Job.objects.filter(id__in=ids).update(available_at=timezone.now())
        assert sorted(wake.job_id for wake in self.hands[0].stage()) == ids
        self.states.update(dict.fromkeys(ids, State.QUEUED))

    @rule(picks=PICKS)
    def expire(self, picks: list[int]) -> None:
        ids = self.picked(picks, WAITING)
        Job.objects.filter(id__in=ids).update(expires_at=timezone.now())
        assert sorted(wake.job_id for wake in self.hands[0].expire()) == ids
        self.move(ids, State.EXPIRED)

    @rule(worker=st.integers(0, 1))
    def reclaim(self, worker: int) -> None:
        dead = self.hands[worker]
        Worker.objects.update(heartbeat_at=timezone.now())
        Worker.objects.filter(id=dead.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        held = [
            job_id for job_id, state in self.states.items() if state == State.RUNNING and self.leases[job_id][0] is dead
        ]
        assert sorted(wake.job_id for wake in self.hands[1 - worker].reclaim()) == sorted(held)
        Worker.objects.update(heartbeat_at=timezone.now())
        for job in Job.objects.filter(id__in=held):
            allowed = {State.SCHEDULED, State.DEAD}
            if job.id in self.cancels:
                allowed = {State.CANCELLED}
            elif job.id in self.kept & self.said:
                allowed = {State.COMPLETED}
            assert job.state in allowed
            self.move([job.id], State(job.state))

    @rule()
    def audit(self) -> None:
        self.hands[0].fold()
        check_counts()
        check_turns()
        check_levels()

    @invariant()
    def states_are_those_expected(self) -> None:
        assert dict(Job.objects.values_list("id", "state")) == self.states

    @invariant()
    def each_end_that_is_to_be_told_is_told_once(self) -> None:
        for table, road in ((WebhookDelivery, "webhook"), (HandlerCall, "handler")):
            expected = {job_id: ends for job_id, ends in self.ends.items() if road in self.told[job_id]}
            assert Counter(table.objects.values_list("job_id", flat=True)) == expected, road

    @invariant()
    def what_is_not_over_has_its_request(self) -> None:
        asked = set(JobRequest.objects.exclude(body="").values_list("job_id", flat=True))
        assert asked == self.states.keys() - self.erased

    @invariant()
    def dead_letters_are_those_that_nobody_discarded(self) -> None:
        check_dead_letters(self.discarded)

    @invariant()
    def virtual_time_is_what_was_used(self) -> None:
        check_identity(self.gone)

    @invariant()
    def no_ready_lane_is_under_its_floor(self) -> None:
        check_floors()


def test_any_order_of_verbs_keeps_every_law(settings: Any) -> None:
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    settings.LLMJOBS_BACKOFF_BASE_S = 3_600  # what was reclaimed waits until it is staged
    settings.LLMJOBS_BACKOFF_CAP_S = 3_600
    settings.LLMJOBS_RETRY_MIN_PER_S = 100_000  # storms are another test's
    Verbs.clients = [make_client(f"c{n}", tier="enterprise") for n in range(4)]
    Verbs.pool, Verbs.elsewhere = make_model(), make_model(input_usd_per_mtok=1, output_usd_per_mtok=4)
    with hands(2) as Verbs.hands:
        run_state_machine_as_test(Verbs, settings=EFFORT)


EFFORT = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
