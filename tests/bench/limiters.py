"""What people put before a provider's limits instead: a process of the SDK's client with one of these limiters.

python -m tests.bench.limiters KIND URL MODEL REQUESTS_A_MINUTE FOR_S

Prints "ready", and begins at a line of its input. What became of its calls is in the simulator's ledger. Several
processes know nothing of each other: each is given its part of the limit. All of them retry as the SDK does.
"""

import asyncio
import contextlib
import sys
import time
from typing import Protocol

import openai
from openai import AsyncOpenAI

MINUTE_S = 60.0
TASKS = 32
RETRIES = 10


class Limiter(Protocol):
    async def wait(self) -> None:
        """Until one more may be sent."""


class AnchoredWindow:
    """So many in each minute, counted from the first request of it."""

    def __init__(self, rpm: float) -> None:
        self._rpm, self._used, self._began_at = rpm, 0, 0.0

    async def wait(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._began_at >= MINUTE_S:
                self._began_at, self._used = now, 0
            if self._used < self._rpm:
                self._used += 1
                return
            await asyncio.sleep(self._began_at + MINUTE_S - now)


class TokenBucket:
    """Full at first; refilled evenly."""

    def __init__(self, rpm: float) -> None:
        self._rpm, self._level, self._at = rpm, rpm, time.monotonic()

    async def wait(self) -> None:
        while True:
            now = time.monotonic()
            self._level = min(self._rpm, self._level + (now - self._at) * self._rpm / MINUTE_S)
            self._at = now
            if self._level >= 1:
                self._level -= 1
                return
            await asyncio.sleep((1 - self._level) * MINUTE_S / self._rpm)


class NoLimiter:
    """Sends, and does as the provider says once it refuses."""

    def __init__(self, rpm: float) -> None:
        pass

    async def wait(self) -> None:
        pass


KINDS: dict[str, type[AnchoredWindow] | type[TokenBucket] | type[NoLimiter]] = {
    "window": AnchoredWindow,
    "bucket": TokenBucket,
    "none": NoLimiter,
}


async def call_on_and_on(client: AsyncOpenAI, model: str, limiter: Limiter) -> None:
    while True:
        await limiter.wait()
        with contextlib.suppress(openai.APIError):  # it was retried as often as the SDK does
            await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Say something. [[tokens=20]]"}]
            )


async def main(kind: str, url: str, model: str, rpm: float, for_s: float) -> None:
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=RETRIES) as client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        limiter = KINDS[kind](rpm)
        tasks = [asyncio.create_task(call_on_and_on(client, model, limiter)) for _ in range(TASKS)]
        await asyncio.wait(tasks, timeout=for_s)  # one that ends has failed
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5])))
