"""Who watches what: positions, wake-ups and the handover, move by move."""

import pytest
from django.test import override_settings

from llmjobs.events import Wake
from llmjobs.live import watches as watches_module
from llmjobs.live.rendering import LiveEvent
from llmjobs.live.viewers import FeedViewer, JobViewer
from llmjobs.live.watches import TooManyViewers, Watches

JOB, CLIENT = 1, 7


@pytest.fixture(autouse=True)
def hub():
    """These tests need none."""


@pytest.fixture
def watches() -> Watches:
    return Watches()


def logged(first: int, last: int) -> list[LiveEvent]:
    return [LiveEvent(JOB, "a", seq, "delta", "{}", 0) for seq in range(first, last + 1)]


def viewing(watches: Watches, after: int = 0):
    return watches.viewing_job(JOB, "a", CLIENT, after)


async def shown(viewer: JobViewer | FeedViewer) -> list[int]:
    return [event.seq for event in await viewer.buffer.take(idle_s=0)]


async def test_a_viewer_who_has_read_less_than_was_handed_out_must_read_on(watches):
    """It would never be handed what is between."""
    with viewing(watches) as early, viewing(watches) as late:
        assert watches.go_live(early)
        watches.hand(logged(1, 5), read_from=0, is_all=True)
        late.position = 3
        assert not watches.go_live(late)
        watches.hand(logged(6, 6), read_from=5, is_all=True)
        late.position = 6
        assert watches.go_live(late)
        watches.hand(logged(7, 8), read_from=6, is_all=True)
        assert await shown(late) == [7, 8]
        assert await shown(early) == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_viewer_who_has_read_more_than_was_handed_out_leaves_that_out(watches):
    with viewing(watches) as early, viewing(watches) as late:
        watches.go_live(early)
        late.position = 4
        assert watches.go_live(late)
        watches.hand(logged(1, 6), read_from=0, is_all=True)
        assert await shown(late) == [5, 6]


async def test_who_goes_live_has_the_job_looked_at_once_more(watches):
    """For what was logged after its last page, and said before it was live."""
    with viewing(watches, after=9) as viewer:
        watches.heard([Wake(JOB, CLIENT, 10)])
        assert not watches.take_woken()
        watches.go_live(viewer)
        assert watches.take_woken() == {JOB}
        assert watches.positions([JOB]) == {JOB: 9}


async def test_nothing_is_handed_to_a_viewer_who_is_not_live(watches):
    with viewing(watches) as early, viewing(watches) as late:
        watches.go_live(early)
        assert watches.hand(logged(1, 5), read_from=0, is_all=True) == 5
        assert await shown(late) == []


async def test_a_feed_begins_where_its_wake_up_says_though_the_job_was_read_further(watches):
    with viewing(watches, after=10) as viewer, watches.viewing_feed((CLIENT,)) as feed:
        watches.go_live(viewer)
        watches.take_woken()
        watches.heard([Wake(JOB, CLIENT, 8)])
        assert watches.take_woken() == {JOB}
        assert watches.positions([JOB]) == {JOB: 7}
        watches.hand(logged(8, 11), read_from=7, is_all=True)
        assert await shown(viewer) == [11]
        assert await shown(feed) == [8, 9, 10, 11]
        watches.heard([Wake(JOB, CLIENT, 8)])
        assert watches.positions([JOB]) == {JOB: 11}


async def test_what_was_read_before_the_position_fell_back_is_not_handed_out(watches):
    """It is read again, from the earlier position: feeds would get it out of order."""
    with viewing(watches, after=10) as viewer, watches.viewing_feed((CLIENT,)) as feed:
        watches.go_live(viewer)
        watches.heard([Wake(JOB, CLIENT, 8)])
        assert watches.hand(logged(11, 12), read_from=10, is_all=True) == 0
        assert await shown(viewer) == await shown(feed) == []
        assert JOB in watches.take_woken()


async def test_a_job_with_more_than_was_read_is_woken_again(watches):
    with viewing(watches) as viewer:
        watches.go_live(viewer)
        watches.take_woken()
        watches.hand(logged(1, 5), read_from=0, is_all=False)
        assert watches.take_woken() == {JOB}
        watches.hand(logged(6, 7), read_from=5, is_all=True)
        assert not watches.take_woken()


async def test_a_job_that_nobody_follows_is_forgotten(watches):
    with watches.viewing_feed((CLIENT,)):
        with viewing(watches):
            watches.heard([Wake(JOB, CLIENT, 1), Wake(2, CLIENT, 1), Wake(3, 99, 1)])
        assert set(watches.jobs) == {JOB, 2}
    assert not watches.jobs and not watches.feeds


async def test_a_job_with_something_unread_is_never_forgotten(watches, monkeypatch):
    monkeypatch.setattr(watches_module, "FED_JOBS_MAX", 2)
    with watches.viewing_feed((CLIENT,)):
        watches.heard([Wake(job_id, CLIENT, 1) for job_id in (1, 2, 3, 4)])
        watches.forget_the_most_silent()
        assert set(watches.jobs) == {1, 2, 3, 4}
        watches.take_woken()
        watches.heard([Wake(1, CLIENT, 2)])
        watches.forget_the_most_silent()
        assert set(watches.jobs) == {1, 4}


@override_settings(LLMJOBS_VIEWERS_PER_CLIENT_MAX=2)
async def test_a_client_has_so_many_viewers_and_a_place_is_free_again_when_one_leaves(watches):
    with viewing(watches), watches.viewing_feed((CLIENT, 8)):
        with pytest.raises(TooManyViewers), viewing(watches):
            pass
        with pytest.raises(TooManyViewers), watches.viewing_feed((9, CLIENT)):
            pass
        with watches.viewing_feed((8,)):
            pass
    with viewing(watches), viewing(watches):
        pass
    assert not watches.jobs and not +watches._viewer_count
