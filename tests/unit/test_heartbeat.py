"""A worker's own judgement: whether the server is away, and whether it may take others for dead."""

import time
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from llmjobs.heartbeat import Heartbeat, _is_server_down


@pytest.mark.parametrize(
    ("error", "is_down"),
    [
        (errors.AdminShutdown("terminating connection due to administrator command"), True),
        (errors.CannotConnectNow("the database system is starting up"), True),
        (psycopg.OperationalError('connection to server at "10.0.0.1" failed: Connection refused'), True),
        (psycopg.OperationalError("server closed the connection unexpectedly"), True),
        (psycopg.OperationalError("connection failed: timeout expired"), False),
        (psycopg.OperationalError("could not receive data from server: Connection timed out"), False),
        (errors.LockNotAvailable("canceling statement due to lock timeout"), False),
    ],
)
def test_only_what_the_server_says_itself_means_that_it_is_away(error, is_down):
    """A time-out may be this worker's own network: then others may reclaim, and its calls must end."""
    assert _is_server_down(error) is is_down


def heartbeat(*, beat_ago_s: float, back_ago_s: float | None = None) -> Heartbeat:
    one = Heartbeat(worker=uuid4(), tell=lambda beat: None)
    one.beat_at = time.monotonic() - beat_ago_s
    if back_ago_s is not None:
        one._came_back_at = time.monotonic() - back_ago_s
    return one


@pytest.mark.parametrize(
    ("times", "may_judge"),
    [
        ({"beat_ago_s": 0.1}, True),
        ({"beat_ago_s": 7.0}, False),
        ({"beat_ago_s": 0.1, "back_ago_s": 1.0}, False),
        ({"beat_ago_s": 0.1, "back_ago_s": 11.0}, False),
        ({"beat_ago_s": 0.1, "back_ago_s": 13.0}, True),
    ],
)
def test_a_worker_judges_others_only_if_it_could_have_beaten_itself_for_a_lease(times, may_judge, settings):
    settings.LLMJOBS_LEASE_S = 12.0
    assert heartbeat(**times).may_judge() is may_judge
