"""The pools that a worker may claim from: those that are closed, and those that it leaves to others."""

import asyncio
from typing import Any

from llmjobs.rotation import Rotation


def rotation() -> Rotation:
    async def unused() -> Any:
        raise AssertionError("nothing is read here")

    return Rotation(connect=unused, only=None, cancelled=lambda *lease: None)  # type: ignore[arg-type]


def test_a_pool_whose_limits_are_used_up_rests_until_they_are_not() -> None:
    async def run() -> None:
        pools = rotation()
        pools.close(1, 0.02)
        pools.add([1, 2])
        assert pools.next() == 2
        assert not pools
        await asyncio.sleep(0.05)
        assert pools.next() == 1

    asyncio.run(run())


def test_news_open_a_closed_pool_and_so_does_a_claim_that_found_it_open() -> None:
    async def run() -> None:
        pools = rotation()
        pools.close(1, 3_600)
        pools.add([1], is_sure=True)
        assert pools.next() == 1
        pools.add([1])
        assert not pools
        pools.open(1)
        pools.add([1])
        assert pools.next() == 1

    asyncio.run(run())


def test_a_pool_that_this_worker_cannot_serve_is_left_whatever_is_heard_of_it() -> None:
    async def run() -> None:
        pools = rotation()
        pools.add([1])
        assert pools.leave(1, 3_600)
        assert not pools.leave(1, 3_600), "it is left already"
        pools.add([1], is_sure=True)
        assert not pools

    asyncio.run(run())


def test_pools_take_turns() -> None:
    async def run() -> None:
        pools = rotation()
        pools.add([1, 2, 3])
        pools.add([1])
        assert [pools.next() for _ in range(3)] == [1, 2, 3]

    asyncio.run(run())
