"""The clients of a run: they submit over HTTP and from Python, cancel some, and follow some to their end.

Owns what was acknowledged: `accepted` has a job's id only once a 202, a 200 or the return of `submit_submissions`
said so. Over HTTP each post has an Idempotency-Key and is sent again until it is answered; from Python a batch whose
commit was not acknowledged is left alone, as a caller would leave it that can't know. Runs in an event loop of its
own thread, so that the main thread makes the faults.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import httpx2
from django.db import DatabaseError, close_old_connections, connection

from llmjobs import queue
from llmjobs.models import Client
from llmjobs.submissions import parse
from tests.chaos.asked import Asked
from tests.chaos.viewers import View, watch

BATCH = 20  # jobs of one submit_submissions
POSTS_AT_ONCE = 8
VIEWERS_AT_ONCE = 60
POST_AGAIN_S = 0.3
POST_TIMEOUT_S = 15
GIVE_UP_S = 90


class Load:
    """`web` tells where the web server is just now; `keys` are by client."""

    def __init__(self, web: Callable[[], str], keys: dict[str, str]) -> None:
        self._web, self._keys = web, keys
        self.accepted: dict[str, Asked] = {}
        self.views: list[View] = []
        self.refused: dict[int, int] = {}  # by HTTP status: answers that were no acknowledgement
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        # One for all: each makes a TLS context of its own, which takes as long as ten posts.
        unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=POSTS_AT_ONCE)
        self._http = httpx2.AsyncClient(timeout=POST_TIMEOUT_S, trust_env=False, limits=unlimited)
        self._main: Future[None] | None = None
        self._sent, self._least, self._may_end = 0, 0, False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, asked: Iterable[Asked], *, per_s: float, least: int) -> None:
        """Submits evenly, at least so many, and until `end`."""
        self._least = least
        self._main = asyncio.run_coroutine_threadsafe(self._submit_all(asked, per_s), self._loop)

    def has_least(self) -> bool:
        return self._sent >= self._least

    def end(self) -> None:
        """No fault follows: it stops once it has submitted as many as it should."""
        self._may_end = True

    def is_submitting(self) -> bool:
        return self._main is not None and not self._main.done()

    def finish(self, within_s: float) -> None:
        """Until all is submitted and followed to its end, or that time is over. Raises what submitting raised."""
        deadline = time.monotonic() + within_s
        if self._main is not None:
            self._main.result(within_s)
        waiting = asyncio.run_coroutine_threadsafe(self._await_tasks(deadline - time.monotonic()), self._loop)
        waiting.result(within_s + 10)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _await_tasks(self, within_s: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(within_s, 0))

    async def _end_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def _submit_all(self, asked: Iterable[Asked], per_s: float) -> None:
        self._posting, self._watching = asyncio.Semaphore(POSTS_AT_ONCE), asyncio.Semaphore(VIEWERS_AT_ONCE)
        began_at = self._loop.time()
        sending: list[asyncio.Task[None]] = []
        batches: dict[str, list[Asked]] = {}
        for one in asked:
            if self._may_end and self.has_least():
                break
            self._sent += 1
            await asyncio.sleep(max(0.0, began_at + one.number / per_s - self._loop.time()))
            if one.is_by_http:
                sending.append(asyncio.create_task(self._post(one)))
                continue
            batch = batches.setdefault(one.client, [])
            batch.append(one)
            if len(batch) >= BATCH:
                sending.append(asyncio.create_task(self._submit(batches.pop(one.client))))
        sending += [asyncio.create_task(self._submit(batch)) for batch in batches.values()]
        await asyncio.gather(*sending)

    async def _post(self, asked: Asked) -> None:
        headers = {"Authorization": f"Bearer {self._keys[asked.client]}", "Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + GIVE_UP_S
        async with self._posting:
            while time.monotonic() < deadline:
                try:
                    answer = await self._http.post(f"{self._web()}/api/jobs", json=asked.payload, headers=headers)
                except httpx2.TransportError:
                    await asyncio.sleep(POST_AGAIN_S)
                    continue
                if answer.status_code in (200, 202):
                    self._is_accepted(answer.json()["id"], asked)
                    return
                self.refused[answer.status_code] = self.refused.get(answer.status_code, 0) + 1
                if answer.status_code < 500 and answer.status_code not in (409, 429):
                    raise AssertionError(f"expected 202, got {answer.status_code}: {answer.text}")
                await asyncio.sleep(POST_AGAIN_S)

    async def _submit(self, batch: list[Asked]) -> None:
        for public_id, asked in zip(await asyncio.to_thread(_submit_many, batch), batch, strict=False):
            self._is_accepted(public_id, asked)

    def _is_accepted(self, public_id: str, asked: Asked) -> None:
        self.accepted[public_id] = asked
        if asked.is_watched:
            view = View(public_id, "ws" if asked.number % 2 else "sse")
            self.views.append(view)
            self._begin(self._watch(view, self._keys[asked.client]))
        if asked.cancel_after_s is not None:
            self._begin(self._cancel(public_id, asked))

    def _begin(self, what: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(task := self._loop.create_task(what))
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, view: View, key: str) -> None:
        async with self._watching:
            await watch(view, self._web, key, self._http)

    async def _cancel(self, public_id: str, asked: Asked) -> None:
        """Again until it is answered: a cancel is idempotent."""
        await asyncio.sleep(asked.cancel_after_s or 0)
        headers = {"Authorization": f"Bearer {self._keys[asked.client]}"}
        while True:
            with suppress(httpx2.TransportError):
                answer = await self._http.post(f"{self._web()}/api/jobs/{public_id}/cancel", headers=headers)
                if answer.status_code == 200:
                    return
            await asyncio.sleep(POST_AGAIN_S)


def _submit_many(batch: list[Asked]) -> list[str]:
    """Their ids; none if nobody knows whether they were accepted. In a thread, over Django's own connection."""
    close_old_connections()
    try:
        client = Client.objects.select_related("tier").get(name=batch[0].client)
        return [str(job.public_id) for job in queue.submit_submissions(client, [parse(one.payload) for one in batch])]
    except DatabaseError:
        return []
    finally:
        connection.close()
