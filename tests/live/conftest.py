"""What every test of the live layer stands on: committed rows, since the hub reads over connections of its own."""

import pytest

from llmjobs.live import alarms
from llmjobs.live.hub import current_hub
from llmjobs.live.threads import in_hub_thread, in_slow_thread, in_thread
from llmjobs.models import Client, Job
from llmjobs.states import State
from tests.factories import make_client, make_job, make_key


@pytest.fixture(autouse=True)
async def hub(transactional_db):
    """The hub of the test's own event loop; it and its connections end with the test."""
    hub = current_hub()
    yield hub
    await hub.close()
    await alarms.settled()
    for run in (in_thread, in_hub_thread, in_slow_thread):
        await run(bool)  # what still ran there has ended, and holds up no flush


@pytest.fixture
def acme(transactional_db) -> Client:
    return make_client("acme")


@pytest.fixture
def key(acme) -> str:
    return make_key(acme)


@pytest.fixture
def job(acme) -> Job:
    """Running: it has logged `queued` and `running`."""
    return make_job(State.RUNNING, client=acme)
