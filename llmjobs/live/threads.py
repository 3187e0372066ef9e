"""Django's ORM for the live layer: three threads a process, each with a connection that is open only while calls wait.

Owns how many Postgres connections viewers may cost through Django: three, however many arrive at once. (Django's own
way gives each request a thread, and with it a connection, of its own: a thousand viewers who return after a restart
would take a thousand.)
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from asgiref.sync import SyncToAsync
from django.db import connections

T = TypeVar("T")


class OrmThread:
    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._asked = 0  # calls that wait or run; only the event loop's thread writes it
        self._is_open = False

    async def run(self, function: Callable[..., T], *args: object) -> T:
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._call, function, args)
        finally:
            self._asked -= 1
            if not self._asked and self._is_open:  # who was to close it gave up waiting
                self._executor.submit(self._close)

    def _call(self, function: Callable[..., T], args: tuple[object, ...]) -> T:
        self._is_open = True
        is_well = False
        try:
            result = function(*args)
            is_well = True
            return result
        finally:
            if self._asked <= 1 or not is_well:
                self._close()

    def _close(self) -> None:
        connections.close_all()
        self._is_open = False


# Who may watch what: many at once after a restart. They must not keep those who watch already from seeing a job's end.
in_thread = OrmThread("llmjobs-viewers").run
in_hub_thread = OrmThread("llmjobs-hub").run
# What may take a second over a long backlog.
in_slow_thread = OrmThread("llmjobs-statistics").run


def release_request_thread() -> None:
    """Ends the thread that asgiref keeps for a request until its response is over: a stream's, for hours.

    Whatever synchronous code follows in that request, such as Django's closing of the response, gets a new one.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    executor = SyncToAsync.context_to_thread_executor.pop(context, None) if context is not None else None
    if executor is not None:
        executor.shutdown(wait=False)
