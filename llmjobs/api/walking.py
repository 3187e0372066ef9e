"""Jobs that no index finds: a walk over the caller's own, from the newest on, in steps, until a page is full.

Owns how far one request looks. Does not own whose jobs they are nor what is looked for: both come in. Invariant: a walk
looks at `WALK_MAX` jobs or works for `WALK_S`, whichever comes first, and at its first step in any case, so that who
follows `next` gets through; the next walk goes on where this one ended, and leaves nothing out.
"""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection

from llmjobs.errors import DatabaseUnavailable
from llmjobs.sql import load
from llmjobs.time_limits import TooSlow, time_limit

WALK_S = 0.15
WALK_MAX = 10_000
STEPS = (20, 100, 500, 1_000)  # jobs: texts may have a hundred thousand characters each, so the first ones are short
FIRST_STEP_S = 5  # it waits for the disk, and must get on
TEXT_CHARS = 100_000  # of a prompt or an answer, from its beginning

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Walked:
    """`found`: ids, the newest first. `next_id`: the next walk begins below; None: it came to the end. `to` is when the
    last job was submitted that was looked at.
    """

    found: list[int]
    next_id: int | None
    to: datetime | None


def walk(
    client_ids: Ids | None,
    keep: Callable[[Ids], Ids],
    *,
    before_id: int | None,
    wanted: int,
    since: datetime | None = None,
) -> Walked:
    """Over the jobs of these clients, None: of all. `keep` says which of some jobs are wanted; `since`: no older ones.

    Raises DatabaseUnavailable where not even the first step was done in time.
    """
    found: list[int] = []
    at, to, looked = before_id, None, 0
    until_s = time.monotonic() + WALK_S
    for number in itertools.count():
        size = STEPS[min(number, len(STEPS) - 1)]
        try:
            with time_limit(max(0.001, until_s - time.monotonic()) if number else FIRST_STEP_S, using=DEFAULT_DB_ALIAS):
                step = newest(client_ids, at, size)
                kept = set(keep([job_id for job_id, _ in step])) if step else set()
        except TooSlow:
            if not number:
                raise DatabaseUnavailable("not even the first step of a search was done in time") from None
            return Walked(found, at, to)
        for job_id, created_at in step:
            at, to = job_id, created_at
            if job_id in kept:
                found.append(job_id)
                if len(found) == wanted:
                    return Walked(found, at, to)
        looked += len(step)
        if len(step) < size or (since is not None and to is not None and to < since):
            return Walked(found, None, to)
        if looked >= WALK_MAX or time.monotonic() >= until_s:
            return Walked(found, at, to)
    raise AssertionError("unreachable")


def newest(client_ids: Ids | None, before_id: int | None, rows: int) -> list[tuple[int, datetime]]:
    """Id and created_at of the newest jobs of these clients, or of all."""
    params = {"clients": None if client_ids is None else list(client_ids), "before_id": before_id}
    with connection.cursor() as cursor:
        cursor.execute(load("newest_jobs" if client_ids is not None else "newest_of_all", rows=rows), params)
        return list(cursor.fetchall())


def with_words(ids: Ids, words: str) -> list[int]:
    """Those of these jobs whose prompt, answer or metadata hold the words, in any case."""
    params: dict[str, Any] = {
        "ids": list(ids),
        "words": words,
        "quoted": json.dumps(words, ensure_ascii=False)[1:-1],
        "chars": TEXT_CHARS,
    }
    with connection.cursor() as cursor:
        cursor.execute(load("search_jobs"), params)
        return [job_id for (job_id,) in cursor.fetchall()]
