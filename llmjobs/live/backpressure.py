"""Makes `await send` wait for a slow client, where the server does not: daphne takes everything and keeps it in memory.

Owns nothing but that wait. uvicorn and hypercorn do it by themselves; there this is a plain passage. With it, a
viewer who does not read is noticed by its own buffer running over, which drops it. daphne's connection is found
through the `send` that it gives to an application.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

LOOK_EVERY_S = 0.05  # at a client that does not read at all

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


def paced(application: Application) -> Application:
    async def paced_application(scope: Scope, receive: Any, send: Send) -> None:
        async def paced_send(message: dict[str, Any]) -> None:
            await send(message)
            wait_s = 0.0  # one turn of the loop is enough for who reads
            while _is_full(send):
                await asyncio.sleep(wait_s)
                wait_s = min(LOOK_EVERY_S, wait_s * 2 or 0.001)

        await application(scope, receive, paced_send)

    return paced_application


def _is_full(send: Send) -> bool:
    """Whether over 64 KiB wait in the connection's buffer: daphne's `send` is `partial(handle_reply, protocol)`."""
    protocol = send.args[0] if isinstance(send, partial) and send.args else None
    is_full = getattr(getattr(protocol, "transport", None), "_isSendBufferFull", None)
    return is_full is not None and is_full()
