"""Submits that make no job, because an equal one made it: by Idempotency-Key, by an SDK's own retry, by `dedupe`.

Owns which job they are answered with, and the locks under which that is asked. Does not own how a job is made
(`queue.py`), nor what a submission says (`submissions.py`). Invariant: of equal submits at once one makes a job. What
`made_before` does not find, nobody else makes before the transaction ends in which it looked; for a key, its unique
index sees to that. Nobody waits longer than LOCK_TIMEOUT: who would, is told to ask again.

In a caller's transaction these locks are held until its end, and in REPEATABLE READ what others committed since its
snapshot is not seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import OperationalError, connection
from django.db.models import Q
from django.db.models.functions import Now
from psycopg.errors import DeadlockDetected, LockNotAvailable

from llmjobs.conf import conf
from llmjobs.errors import IdempotencyInProgress, IdempotencyKeyReused
from llmjobs.models import Client, Job, JobRequest
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.sql import load
from llmjobs.submissions import Submission

LOCK_TIMEOUT = "2s"  # of another that makes the job: its transaction takes milliseconds, unless it is a host's long one
LOOKED_AT_ROWS = 1_000  # equal requests of a client, the newest: a prompt of every minute, kept for a month, is many
OPTIONS = (
    "priority", "delay_s", "expires_in_s", "timeout_s", "max_attempts", "retry_for_s", "max_cost_usd", "keeps_partial",
    "webhook_url", "on_settled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A submit, and what says that it may have come before.

    `retry_count` is an SDK's: 0 at its first try, None where no SDK tells. A retry is one only beside an API key, and
    where no Idempotency-Key says so more exactly.
    """

    client: Client
    submission: Submission
    key: str | None = None
    api_key_id: int | None = None
    retry_count: int | None = None

    @property
    def may_join(self) -> bool:
        return self.key is not None or self.submission.joins or self._is_a_try

    @property
    def _is_a_try(self) -> bool:
        has_count = self.retry_count is not None and self.api_key_id is not None
        return has_count and self.key is None and conf.retry_join_s > 0

    def made_with_key(self) -> Job | None:
        """The job that the first submit with this key made, or joined. Raises IdempotencyKeyReused."""
        if self.key is None:
            return None
        is_kept = Q(job__created_at__gt=Now() - timedelta(seconds=conf.idempotency_keep_s))
        requests = JobRequest.objects.filter(client=self.client, idempotency_key=self.key)
        request = requests.annotate(is_kept=is_kept).first()
        if request is None:
            return None
        if not request.is_kept:
            JobRequest.objects.filter(pk=request.pk).update(idempotency_key=None)
            return None
        if (request.key_fingerprint or request.fingerprint) != self.submission.fingerprint:
            raise IdempotencyKeyReused(
                "expected the body that first came with this Idempotency-Key, got another one",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        return _job(request.pk)

    def made_before(self) -> Job | None:
        """The job that this submit joins, if there is one. In a transaction that makes the job if there is none."""
        if self._is_a_try:
            # First tries don't wait for each other: two equal posts that were both meant make two jobs.
            _lock("retry", self.client, self.submission.fingerprint, is_shared=self.retry_count == 0)
            if self.retry_count and (job := self._one("retried", self._try())) is not None:
                return job
        if self.submission.joins:
            _lock("join", self.client, self.submission.prompt_hash)
            options = {name: getattr(self.submission, name) for name in OPTIONS} | {"has_key": self.key is not None}
            if (job := self._one("join", options)) is not None:
                self._put_key_on(job)
            return job
        return None

    def _try(self) -> dict[str, Any]:
        return {
            "fingerprint": self.submission.fingerprint, "api_key_id": self.api_key_id, "within_s": conf.retry_join_s,
        }  # fmt: skip

    def _one(self, statement: str, params: dict[str, Any]) -> Job | None:
        params = {"client_id": self.client.pk, "prompt_hash": self.submission.prompt_hash, **params}
        with connection.cursor() as cursor:
            cursor.execute(load(statement, rows=LOOKED_AT_ROWS), params)
            row = cursor.fetchone()
        return None if row is None else _job(row[0])

    def _put_key_on(self, job: Job) -> None:
        """A key finds the job that it joined, also when that has ended. No other key can be on that."""
        if self.key is not None:
            request = JobRequest.objects.filter(pk=job.pk)
            request.update(idempotency_key=self.key, key_fingerprint=self.submission.fingerprint)


@contextmanager
def short_waits(most: str = LOCK_TIMEOUT) -> Iterator[None]:
    """In a transaction: locks are waited for so long at most (`most`). The host's own bound is back after it."""
    with connection.cursor() as cursor:
        cursor.execute("select current_setting('lock_timeout'), set_config('lock_timeout', %s, true)", [most])
        [before, _] = cursor.fetchone()
        yield
        cursor.execute("select set_config('lock_timeout', %s, true)", [before])


@contextmanager
def told_in_progress() -> Iterator[None]:
    """Around that transaction: raises IdempotencyInProgress where a lock did not come."""
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, (LockNotAvailable, DeadlockDetected)):
            raise
        raise IdempotencyInProgress(
            "an equal request is still being taken in; ask again in a second", code="idempotency_in_progress"
        ) from error


def _lock(kind: str, client: Client, equal_in: str, *, is_shared: bool = False) -> None:
    """Until the end of the transaction, and a statement of its own: the next one sees what its holder committed."""
    function = "pg_advisory_xact_lock_shared" if is_shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(
            f"select {function}(hashtextextended(%s, 0))",
            [f"llmjobs.{kind}:{client.pk}:{equal_in}"],
        )


def _job(job_id: int) -> Job | None:
    jobs = Job.objects.select_related(*JOB_RELATED)
    return jobs.filter(id=job_id).first()  # None: retention took it just now
