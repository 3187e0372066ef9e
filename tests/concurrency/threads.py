"""Threads for tests: started together, or known to wait for a lock."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection

from tests.helpers import eventually

T = TypeVar("T")
PATIENCE_S = 60


def together(calls: list[Callable[[], T]]) -> list[T]:
    """Every call in a thread of its own, begun at the same moment. Raises what the first of them raises."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        try:
            barrier.wait(PATIENCE_S)
            return call()
        finally:
            connection.close()  # Django's, of this thread

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
        return [future.result(PATIENCE_S) for future in futures]


def started_and_waiting(call: Callable[..., T], *arguments: Any, backend: int | None = None) -> Callable[[], T]:
    """`call` in a new thread, once Postgres says that it waits for a lock. What is returned waits for its result.

    `backend`: the process id of the server that it speaks to; None: of Django's connection in that thread.
    """
    future: Future[T] = Future()
    pid: Future[int] = Future()

    def run() -> None:
        try:
            if backend is None:
                with connection.cursor() as cursor:
                    cursor.execute("select pg_backend_pid()")
                    pid.set_result(cursor.fetchone()[0])
            else:
                pid.set_result(backend)
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    waiting_pid = pid.result(PATIENCE_S)

    def waits() -> None:
        with connection.cursor() as cursor:
            cursor.execute("select cardinality(pg_blocking_pids(%s)) > 0", [waiting_pid])
            assert cursor.fetchone() == (True,) or future.done(), "it does not wait for anybody yet"

    eventually(waits)

    def result() -> T:
        thread.join(PATIENCE_S)
        return future.result(0)

    return result
