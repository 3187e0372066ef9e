"""Taking in many submits of a client, each for itself: as many become jobs as may, in order, and each of the others is
told why not.

Owns what a batch does where not all of it can be taken: who fits, who came before, who is refused. Does not own what a
submit is (submitting.py), nor the limits (limits.py). Invariant: what `take` returns has committed, an outcome for each
that was asked for; who fits in is taken exactly, as if each had come by itself, one after the other.

One statement takes a batch. Where the limits refuse that, its halves are tried, down to who alone is refused. Two
things are known then without asking: after one that found the queue full, all are refused, so that the order is kept
and the caller can go on from there; and who asks for no less than one that a budget or a limit a minute refused, is
refused too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction

from llmjobs import drafts, joining, limits, submissions, submitting
from llmjobs.catalog import pool_for
from llmjobs.conf import conf
from llmjobs.drafts import Draft
from llmjobs.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InsufficientQuota,
    InvalidRequest,
    QueueFull,
    RateLimitExceeded,
)
from llmjobs.models import Client, JobRequest, Model
from llmjobs.sql import load
from llmjobs.submissions import Submission

BATCH_JOBS = 500  # a statement of these takes some 40 ms
LIMITS = (QueueFull, InsufficientQuota, RateLimitExceeded)
BUSY_TIMEOUT = "100ms"  # for a lock, where the first wait was in vain: who holds it is found by halving
BUSY_MAX = 40  # such waits a batch


@dataclass(frozen=True, slots=True)
class Taken:
    """`is_replay`: an earlier submit's job, by its key, or by dedupe."""

    job_id: int
    public_id: UUID
    state: str
    is_replay: bool


Asked = tuple[Submission | InvalidRequest, str | None]  # and its key
Outcome = Taken | InvalidRequest


@dataclass(slots=True, eq=False)
class _Place:
    """One that was asked for, until it has an outcome."""

    draft: Draft
    key: str | None
    outcome: Outcome | None = None

    @property
    def asked(self) -> Submission:
        return self.draft.submission

    @property
    def row(self) -> dict[str, Any]:
        return self.draft.row


@dataclass(slots=True)
class Intake:
    """For one client. `since`: keys of jobs that were made since then are found, whatever their age."""

    client: Client
    api_key_id: int | None = None
    traceparent: str | None = None
    since: datetime | None = None
    # By what refused it, the last one: it asked for least.
    _refused: dict[str, tuple[InvalidRequest, dict[str, Any]]] = field(default_factory=dict)
    _busy: int = 0
    _found: list["_Place | InvalidRequest"] = field(default_factory=list)

    def take(self, asked: Sequence[Asked]) -> list[Outcome]:
        """In autocommit mode. Raises nothing that is said of one of them; what Postgres raises when it is away."""
        self._busy, self._found = 0, []
        self.client.refresh_from_db()  # since the batch before, an operator may have given it another tier
        pools: dict[str, Model | InvalidRequest] = {}
        found = self._found = [self._placed(what, key, pools) for what, key in asked]
        places = [place for place in found if isinstance(place, _Place)]
        for joins, alike in groupby(places, key=lambda place: place.asked.joins):
            take = self._take_joining if joins else self._take_run
            take(list(alike))
        self._found = []
        return [place if isinstance(place, InvalidRequest) else _outcome(place) for place in found]

    def taken(self) -> list[Taken | None]:
        """Of a `take` that raised: what had committed before, each in its place; empty: nothing had."""
        outcomes = [place.outcome if isinstance(place, _Place) else None for place in self._found]
        return [outcome if isinstance(outcome, Taken) else None for outcome in outcomes]

    def _placed(
        self, asked: Submission | InvalidRequest, key: str | None, pools: dict[str, Model | InvalidRequest]
    ) -> _Place | InvalidRequest:
        if isinstance(asked, InvalidRequest):
            return asked
        if asked.model not in pools:
            pools[asked.model] = _pool_or_error(asked.model, self.client)
        if isinstance(pool := pools[asked.model], InvalidRequest):
            return pool
        try:
            if key is not None:
                submissions.check_idempotency_key(key)
            return _Place(drafts.draft(self.client, asked, pool, key, self.api_key_id), key)
        except InvalidRequest as error:
            return error

    def _take_run(self, run: Sequence[_Place]) -> None:
        """Equal keys wait for the first of them, and are answered with what became of it."""
        firsts: dict[str, _Place] = {}
        for place in run:
            if place.key is not None:
                firsts.setdefault(place.key, place)
        first = [place for place in run if place.key is None or firsts[place.key] is place]
        self._take(first)
        again = [place for place in run if place.outcome is None]
        for place in again:
            made = firsts[place.key].outcome  # type: ignore[index]  # without a key it was among the first
            if isinstance(made, Taken):
                _replay(place, made, firsts[place.key].asked.fingerprint)  # type: ignore[index]
        self._one_by_one([place for place in again if place.outcome is None])

    def _take_joining(self, run: Sequence[_Place]) -> None:
        """Each may join the one before."""
        self._find_made(run)
        self._one_by_one([place for place in run if place.outcome is None])

    def _take(self, places: Sequence[_Place]) -> None:
        self._find_made(places)
        new = [place for place in places if place.outcome is None and not self._is_refused_like_before(place)]
        if not new:
            return
        try:
            made = self._insert(new)
        except LIMITS as refusal:
            if len(new) == 1:
                self._refuse(new[0], refusal)
            else:
                self._take_halves(new)
        except IdempotencyInProgress as error:
            self._busy += 1
            if len(new) == 1 or self._busy >= BUSY_MAX:
                for place in new:
                    place.outcome = error
            else:
                self._take_halves(new)
        except IntegrityError:  # somebody made one of them since we looked
            if len(new) == 1:
                self._one_by_one(new)
            else:
                self._take_halves(new)
        else:
            for place, (job_id, public_id, state, *_) in zip(new, made, strict=True):
                place.outcome = Taken(job_id, public_id, state, is_replay=False)

    def _take_halves(self, places: Sequence[_Place]) -> None:
        half = len(places) // 2
        self._take(places[:half])
        self._take(places[half:])

    def _refuse(self, place: _Place, refusal: InvalidRequest) -> None:
        place.outcome = refusal
        self._refused[refusal.type] = refusal, place.row

    def _insert(self, places: Sequence[_Place]) -> list[tuple[Any, ...]]:
        asked = [place.draft for place in places]
        wait = BUSY_TIMEOUT if self._busy else joining.LOCK_TIMEOUT
        with limits.told(self.client), joining.told_in_progress(), transaction.atomic(), joining.short_waits(wait):
            return submitting.insert(self.client, asked, look_before=True, traceparent=self.traceparent)

    def _one_by_one(self, places: Sequence[_Place]) -> None:
        """As POST /api/jobs takes one."""
        for place in places:
            if self._is_refused_like_before(place):
                self._join(place)
                continue
            try:
                job, is_replay = submitting.submit_submission(
                    self.client, place.asked, place.key, api_key_id=self.api_key_id, traceparent=self.traceparent
                )
            except LIMITS as refusal:
                self._refuse(place, refusal)
            except InvalidRequest as error:
                place.outcome = error
            else:
                place.outcome = Taken(job.id, job.public_id, job.state, is_replay)

    def _join(self, place: _Place) -> None:
        """One that may not become a job may still join an equal one."""
        if not place.asked.joins:
            return
        asked = joining.Asked(self.client, place.asked, place.key)
        try:
            with joining.told_in_progress(), transaction.atomic(), joining.short_waits():
                job = asked.made_with_key() or asked.made_before()
        except InvalidRequest as error:
            place.outcome = error
        else:
            if job is not None:
                place.outcome = Taken(job.id, job.public_id, job.state, is_replay=True)

    def _find_made(self, places: Sequence[_Place]) -> None:
        """Who came before, by its key. Keys past their time are free again."""
        by_key = {place.key: place for place in places if place.key is not None and place.outcome is None}
        if not by_key:
            return
        params = {
            "client_id": self.client.pk, "keys": list(by_key), "keep_s": conf.idempotency_keep_s, "since": self.since,
        }  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute(load("made_with_keys"), params)
            found = cursor.fetchall()
        past = []
        for job_id, public_id, state, key, fingerprint, is_kept in found:
            if is_kept:
                _replay(by_key[key], Taken(job_id, public_id, state, is_replay=True), fingerprint)
            else:
                past.append(job_id)
        if past:
            JobRequest.objects.filter(pk__in=past).update(idempotency_key=None)

    def _is_refused_like_before(self, place: _Place) -> bool:
        for refusal, row in self._refused.values():
            if _covers(refusal, row, place.row):
                place.outcome = refusal
                return True
        return False


def _covers(refusal: InvalidRequest, refused: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether who is refused for that would have to be refused as well: it asks for no less."""
    if isinstance(refusal, InsufficientQuota):
        return Decimal(row["est_usd"] or 0) >= Decimal(refused["est_usd"] or 0)
    if isinstance(refusal, RateLimitExceeded):
        asks_less = _tokens(row) < _tokens(refused) and refusal.type == "tokens"
        return bool(row["is_rejected_when_limited"]) and not asks_less
    return True


def _tokens(row: dict[str, Any]) -> int:
    return int(row["est_input_tokens"] + row["est_output_tokens"])


def _replay(place: _Place, made: Taken, fingerprint: str | None) -> None:
    if fingerprint == place.asked.fingerprint:
        place.outcome = Taken(made.job_id, made.public_id, made.state, is_replay=True)
        return
    place.outcome = IdempotencyKeyReused(
        "expected the fields that first came with this idempotency_key, got others",
        param="idempotency_key",
        code="idempotency_key_reused",
    )


def _pool_or_error(name: str, client: Client) -> Model | InvalidRequest:
    try:
        return pool_for(name, client)
    except InvalidRequest as error:
        return error


def _outcome(place: _Place) -> Outcome:
    if place.outcome is None:
        raise RuntimeError("expected an outcome for each that was asked for, got none")
    return place.outcome
