"""A host project's functions for `on_settled`: one that works, and those that a host might write one bad day.

Each leaves a Group when it is done with a job. Groups have unique names: a second one of a job's end would fail.
"""

import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connection, transaction

from llmjobs import queue
from llmjobs.models import Job

HERE = "tests.host_handlers"
NOT_CALLABLE = 3
open_door = threading.Event()  # who waits at it goes on
arrived = threading.Event()


def save(job: Job) -> None:
    said = job.result.output_text if hasattr(job, "result") else ""
    Group.objects.create(name=f"{job.id} {job.state} {said}"[:150])


def saved(job: Any) -> list[str]:
    """What handlers have written for this job: its state and text then."""
    names = Group.objects.filter(name__startswith=f"{job.id} ").values_list("name", flat=True)
    return [name.partition(" ")[2] for name in names]


def raises(job: Job) -> None:
    save(job)
    raise RuntimeError("not today\nand here are the details")


def exits(job: Job) -> None:
    save(job)
    raise SystemExit(3)


def fails_in_sql(job: Job) -> None:
    save(job)
    _fail_in_sql()


def hides_a_failure_in_sql(job: Job) -> None:
    save(job)
    with suppress(DatabaseError):
        _fail_in_sql()


def asks_for_a_rollback(job: Job) -> None:
    save(job)
    transaction.set_rollback(True)


def leaves_a_block_open(job: Job) -> None:
    save(job)
    transaction.atomic().__enter__()
    Group.objects.create(name=f"{job.id} and more")


def breaks_a_constraint_of_the_commit(job: Job) -> None:
    save(job)
    page = ContentType.objects.get_for_model(Job)
    LogEntry.objects.create(user_id=10**9, content_type=page, object_id="1", action_flag=1)


def closes_the_connection(job: Job) -> None:
    save(job)
    connection.close()


def connects_again(job: Job) -> None:
    save(job)
    connection.close()
    connection.connect()


def rolls_back_in_sql(job: Job) -> None:
    save(job)
    with connection.cursor() as cursor:
        cursor.execute("rollback")


def has_its_session_ended(job: Job) -> None:
    save(job)
    with connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pg_backend_pid())")


async def is_async(job: Job) -> None:
    raise AssertionError("never awaited")


def returns_a_coroutine(job: Job) -> Any:
    save(job)
    return is_async(job)


def raises_after_the_commit(job: Job) -> None:
    save(job)
    transaction.on_commit(_raise)


def submits_two_more(job: Job) -> None:
    save(job)
    for _ in range(2):
        queue.submit(client=job.client, model=job.pool.name, input="And then? [[tokens=1]]")


def waits_at_the_door(job: Job) -> None:
    save(job)
    arrived.set()
    open_door.wait(20)


def kills_its_process_once(job: Job) -> None:
    save(job)
    mark = Path(os.environ["HANDLER_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait(20)


def sees_the_planner(job: Job) -> None:
    with connection.cursor() as cursor:
        cursor.execute("show enable_seqscan")
        Group.objects.create(name=f"{job.id} seqscan {cursor.fetchone()[0]} {time.monotonic()}")


def _fail_in_sql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("select 1 / 0")


def _raise() -> None:
    raise RuntimeError("after the commit")


def is_generator(job: Job) -> Iterator[None]:
    yield


async def is_async_generator(job: Job) -> AsyncIterator[None]:
    yield


def raises_the_prompt(job: Job) -> None:
    raise ValueError(job.request.body)
