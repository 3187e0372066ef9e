"""A run: the lines of a file become jobs, and their results lines of another, whatever comes in between.

Owns the pace: batches, waiting for room in the queue, asking for results, patience with a database that is away. Does
not own what is remembered (journal.py, results.py), nor who is taken (intake.py). Invariant: begun again after any
interruption, it submits no line twice and writes no result twice.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from llmjobs import job_lines, representation
from llmjobs.errors import IdempotencyInProgress, IdempotencyKeyReused, InvalidRequest, QueueFull
from llmjobs.intake import BATCH_JOBS, Intake, Outcome, Taken
from llmjobs.job_files.journal import Journal
from llmjobs.job_files.results import Results, why
from llmjobs.job_files.showing import Bar
from llmjobs.job_lines import JobLine
from llmjobs.models import Client, Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.states import TERMINAL

T = TypeVar("T")

ASKED_JOBS = 1_000  # for their states, at once
SHOWN_JOBS = 100  # with their outputs, at once
ASKED_AT_ONCE = 10  # so many times before a pause: each of 1,000,000 jobs is looked at twice a minute
ASK_EVERY_S = 0.25
FULL_WAIT_MAX_S = 15.0  # there may be room sooner than was thought
AWAY_S, AWAY_EVERY_S = 60.0, 1.0  # a database that restarts is back by then
GONE = "gone: its job was removed, as finished jobs are past their age"


class Run:
    """`results` None: they are not kept. `failed`: by the line's number, why it is no job, or did not complete."""

    def __init__(self, client: Client, journal: Journal, results: Results | None, *, waits: bool, bar: Bar) -> None:
        self._client, self._journal, self._results, self._waits = client, journal, results, waits
        self._bar = bar
        self._open: deque[tuple[int, int]] = deque()  # a line, and its job, which has not ended as far as is known
        self.failed: dict[int, str] = dict(results.failed) if results else {}
        self.refused = self.before = self.submitted = 0
        self.ended: dict[str, int] = {}

    def submit(self, lines: Iterable[JobLine], total: int | None) -> None:
        """All lines, in order. Raises FileRefused for another file than the journal's."""
        self._bar.begin("submitting", total)
        fresh = self._fresh(lines)
        while batch := job_lines.batch(fresh, most=BATCH_JOBS):
            self._submit(batch)

    def wait(self) -> None:
        self._bar.begin("waiting", len(self._open))
        while self._open:
            for _ in range(min(ASKED_AT_ONCE, math.ceil(len(self._open) / ASKED_JOBS))):
                self._ask()
            if self._open:
                time.sleep(ASK_EVERY_S)

    def _fresh(self, lines: Iterable[JobLine]) -> Iterator[JobLine]:
        """Those that are no job yet."""
        for line in lines:
            self._bar.show(line.number, len(self.failed))
            if isinstance(line.asked, InvalidRequest):
                self._refuse(line, line.asked)
            elif self._journal.has(line.number, line.asked.fingerprint):
                self.before += 1
                self._expect(line.number, self._journal.lines[line.number].job_id)
            else:
                yield line

    def _submit(self, batch: list[JobLine]) -> None:
        while batch:
            outcomes = self._patiently(lambda waiting=batch: self._take(waiting))  # type: ignore[misc]
            pairs = list(zip(batch, outcomes, strict=True))
            self._note([(line, outcome) for line, outcome in pairs if isinstance(outcome, Taken)])
            again = [
                (line, outcome) for line, outcome in pairs if isinstance(outcome, QueueFull | IdempotencyInProgress)
            ]
            for line, outcome in pairs:
                if isinstance(outcome, InvalidRequest) and not isinstance(outcome, QueueFull | IdempotencyInProgress):
                    self._refuse(line, outcome)
            batch = [line for line, _ in again]
            if again:
                self._wait_for_room(again[0][1])

    def _take(self, batch: list[JobLine]) -> list[Outcome]:
        asked = [(line.asked, line.key or self._journal.key(line.number)) for line in batch]
        return Intake(self._client, since=self._journal.began_at).take(asked)

    def _note(self, taken: list[tuple[JobLine, Taken]]) -> None:
        self._journal.note(
            (line.number, found.job_id, str(found.public_id), line.asked.fingerprint)  # type: ignore[union-attr]
            for line, found in taken
        )
        self.submitted += len(taken)
        for line, found in taken:
            self._expect(line.number, found.job_id)

    def _expect(self, number: int, job_id: int) -> None:
        if self._waits and not (self._results and number in self._results.done):
            self._open.append((number, job_id))

    def _refuse(self, line: JobLine, error: InvalidRequest) -> None:
        if isinstance(error, IdempotencyKeyReused) and line.key is None:  # our own key: it was noted by nobody
            self._journal.refuse_changed(line.number)
        self.refused += 1
        where = f" ({error.param})" if error.param else ""
        self.failed[line.number] = f"not submitted: {error.code}: {error.message}{where}"

    def _wait_for_room(self, refusal: QueueFull | IdempotencyInProgress) -> None:
        """Results come in meanwhile."""
        why, wait_s = "a line's key is just being taken in elsewhere", 1.0
        if isinstance(refusal, QueueFull):
            why, wait_s = "the queue is full", min(refusal.retry_after_s, FULL_WAIT_MAX_S)
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0:
            self._bar.note(f"{why}: again in {left_s:.0f} s")
            if self._open:
                self._ask()
            time.sleep(min(left_s, ASK_EVERY_S))

    def _ask(self) -> None:
        """Look at some of the jobs that have not ended, those that were looked at longest ago."""
        some = [self._open.popleft() for _ in range(min(ASKED_JOBS, len(self._open)))]
        jobs = Job.objects.filter(id__in=[job for _, job in some])
        going = self._patiently(lambda: set(jobs.exclude(state__in=TERMINAL).values_list("id", flat=True)))
        ended = [(number, job) for number, job in some if job not in going]
        self._open.extend((number, job) for number, job in some if job in going)
        self._end(ended)
        self._bar.add(len(ended), len(self.failed))

    def _end(self, ended: list[tuple[int, int]]) -> None:
        left = iter(ended)
        while some := list(islice(left, SHOWN_JOBS)):
            found = self._patiently(lambda: Job.objects.select_related(*JOB_RELATED).in_bulk([job for _, job in some]))
            self.failed |= {number: GONE for number, job in some if job not in found}
            shown = [
                (number, representation.job_json(found[job], with_place=False)) for number, job in some if job in found
            ]
            if self._results:
                self._results.add(shown)
            for number, job in shown:
                self.ended[job["status"]] = self.ended.get(job["status"], 0) + 1
                if job["status"] != "completed":
                    self.failed[number] = why(job)

    def _patiently(self, call: Callable[[], T]) -> T:
        """Again while the database is away, which makes nothing twice: what was committed is found by its keys."""
        until_s = time.monotonic() + AWAY_S
        while True:
            try:
                return call()
            except (OperationalError, InterfaceError):
                if time.monotonic() > until_s:
                    raise
                connection.close()
                self._bar.note("the database is away: trying again")
                time.sleep(AWAY_EVERY_S)
