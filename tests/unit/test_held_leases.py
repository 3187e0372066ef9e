"""What a worker makes of a heartbeat's answer, and of a cancel: by the lease, and not before it can be sure."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from llmjobs.heartbeat import Beat
from llmjobs.outcomes import Kind
from llmjobs.worker import Options, Worker


class Running:
    """An attempt as a worker sees it; notes what is asked of it."""

    def __init__(self, number: int = 1, *, claimed_at: float = 0.0, is_ended: bool = False) -> None:
        self.job = SimpleNamespace(id=7, attempt=number)
        self.claimed_at, self.is_ended = claimed_at, is_ended
        self.asked: list[str] = []

    def stop(self, reason: Kind) -> None:
        self.asked.append(str(reason))

    def lose(self) -> None:
        self.asked.append("lose")


def worker_with(*running: Running) -> Any:
    worker = Worker(Options())
    worker._attempts = {attempt.job.id: attempt for attempt in running}  # type: ignore[misc]
    return worker


async def test_an_orphan_is_what_two_beats_find_with_no_claim_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the table says is held may have been settled since, or be what a claim is just bringing."""
    released: list[set[tuple[int, int]]] = []
    worker = worker_with()

    async def release(orphans: set[tuple[int, int]]) -> None:
        released.append(orphans)

    async def hear(*held: tuple[int, int, bool]) -> None:
        worker._compare(Beat(time.monotonic(), False, list(held)))
        for task in list(worker._tasks):
            await task

    monkeypatch.setattr(worker, "_release_orphans", release)
    await hear((1, 1, False))
    await hear((2, 1, False))
    assert released == [], "each was seen once"
    worker._is_claiming = True
    await hear((2, 1, False))
    assert released == [], "it may be that claim's"
    worker._is_claiming = False
    await hear((2, 1, False))
    assert released == [{(2, 1)}]


@pytest.mark.parametrize(
    ("attempt", "held", "asked"),
    [
        (Running(2), [(7, 2, False)], []),
        (Running(2), [], ["lose"]),
        (Running(2), [(7, 1, False)], ["lose"]),
        (Running(2, claimed_at=200.0), [], []),  # after the beat began: it could not know of it
        (Running(2, is_ended=True), [], []),  # its settlement is on its way, which finds out
        (Running(2), [(7, 2, True)], [Kind.CANCELLED]),
    ],
)
def test_a_lease_is_lost_only_if_the_table_could_have_named_it(
    attempt: Running, held: list[tuple[int, int, bool]], asked: list[str]
) -> None:
    worker_with(attempt)._compare(Beat(100.0, False, held))
    assert attempt.asked == asked


def test_a_cancel_of_an_attempt_before_does_not_stop_the_next() -> None:
    attempt = Running(2)
    worker = worker_with(attempt)
    worker._cancel(7, 1)
    assert attempt.asked == []
    worker._cancel(7, 2)
    assert attempt.asked == [Kind.CANCELLED]


def test_a_worker_whose_heartbeat_is_old_starts_nothing(settings: Any) -> None:
    settings.LLMJOBS_LEASE_S = 12.0
    worker = worker_with()
    worker._heartbeat = SimpleNamespace(beat_at=time.monotonic() - 5)
    assert worker._wanted() > 0
    worker._heartbeat.beat_at -= 2
    assert worker._wanted() == 0
