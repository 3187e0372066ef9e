"""Tokens that say when they were sent: what the delay of a stream is measured with."""

import time

from tests.providers.simulating import says, simulated


async def test_each_token_of_a_stamped_stream_is_the_time_at_which_it_is_sent() -> None:
    async with simulated(tokens_per_s=20) as (_, client):
        began_at = time.time()
        stream = await client.chat.completions.create(model="m", messages=says("[[stamp]] [[tokens=5]]"), stream=True)
        seen: list[tuple[float, float]] = []
        async for chunk in stream:
            if text := chunk.choices[0].delta.content:
                seen += [(float(stamp), time.time()) for stamp in text.split()]
        assert len(seen) == 5
        assert all(began_at - 0.001 <= sent_at <= read_at + 0.001 for sent_at, read_at in seen)
        assert seen[-1][0] - seen[0][0] >= 0.15
