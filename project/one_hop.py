"""The API's plain requests, each in one thread from its first middleware to its last.

Django's own ASGI handler changes to a thread and back for nearly every middleware that is not its own coroutine, and
makes a thread for each request: a dozen hops, 2 ms of a small POST. What the API answers by a synchronous view needs
one. Streams and waits are coroutines, and keep the usual road; so do the pages.

Owns the road alone: middleware, views and answers are the site's. Invariant: a request takes the same middleware in the
same order by either road, and is answered alike. Threads are bounded; who comes when all are in use waits for one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache
from typing import IO, Any, cast

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve, reverse, set_script_prefix

from llmjobs.live.backpressure import Application

THREADS = 64  # more than the pool has connections: while the database is away, each waits for the pool's time-out

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def one_hop(usual: Application) -> Application:
    """`usual` is Django's own handler; Django is set up."""
    plain = PlainHandler()
    _prefix()  # loads the site's urls: no request shall pay for that, least of all one that is refused

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_plain(scope["path"].removeprefix(scope.get("root_path", ""))):
            await plain.handle(scope, receive, send)
        else:
            await usual(scope, receive, send)

    return application


@lru_cache(maxsize=1024)
def is_plain(path: str) -> bool:
    """Whether the API answers at this address, and by a synchronous view, or with a 404."""
    if not path.startswith(_prefix()):
        return False
    try:
        return not iscoroutinefunction(resolve(path).func)
    except Resolver404:
        return True


@lru_cache(maxsize=1)
def _prefix() -> str:
    return reverse("llmjobs-api:jobs").removesuffix("jobs")


class PlainHandler(ASGIHandler):
    """Reads and sends as Django's does; in between everything is synchronous."""

    def __init__(self) -> None:
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="llmjobs-api")

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            loop, context = asyncio.get_running_loop(), copy_context()
            response = await loop.run_in_executor(self._threads, context.run, self._answer, scope, body)
            await self.send_response(response, send)

    def _answer(self, scope: Message, body: IO[bytes]) -> HttpResponseBase:
        """Whole: it is closed already, which tells Django that the request is over and lets its connection go."""
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=self.__class__, scope=scope)
        request, refusal = self.create_request(scope, body)
        response: Any = refusal if request is None else self.get_response(request)
        response._handler_class = self.__class__
        response.close()
        return cast(HttpResponseBase, response)
