"""What people write without a queue: so many tasks, each with the SDK's client. Prints {"took_s": …} as JSON.

python -m tests.bench.plain_loop URL CALLS CONCURRENCY PROMPT [stream]
"""

import asyncio
import json
import sys
import time

from openai import AsyncOpenAI


async def call(client: AsyncOpenAI, slots: asyncio.Semaphore, prompt: str, *, is_stream: bool) -> str | None:
    async with slots:
        if not is_stream:
            completion = await client.chat.completions.create(
                model="bench", messages=[{"role": "user", "content": prompt}]
            )
            return completion.choices[0].message.content
        pieces = []
        stream = await client.chat.completions.create(
            model="bench", messages=[{"role": "user", "content": prompt}], stream=True
        )
        async for chunk in stream:
            if chunk.choices:
                pieces.append(chunk.choices[0].delta.content or "")
        return "".join(pieces)


async def main(url: str, calls: int, concurrency: int, prompt: str, *, is_stream: bool) -> None:
    async with AsyncOpenAI(base_url=url, api_key="any") as client:
        slots = asyncio.Semaphore(concurrency)
        await asyncio.gather(*(call(client, slots, prompt, is_stream=is_stream) for _ in range(concurrency)))  # warm
        began_at = time.perf_counter()
        answers = await asyncio.gather(*(call(client, slots, prompt, is_stream=is_stream) for _ in range(calls)))
        took_s = time.perf_counter() - began_at
        assert all(answers), "expected a text from each call"
        print(json.dumps({"took_s": took_s}))


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], is_stream=sys.argv[5:] == ["stream"])
    )
