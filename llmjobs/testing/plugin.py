"""The plugin of pytest: it is found by itself (entry point `llmjobs`) where this app is installed.

    def test_a_summary_is_saved(llm_client, llm_simulator):
        llm_simulator.answers("Short.")
        article.ask_for_summary()
        run_jobs()

Owns the fixtures' lives: one simulator a session, as new for each test. Importing this needs neither Django nor a
database; the fixture `llm_client` needs pytest-django.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from llmjobs.testing import running
from llmjobs.testing.simulator import SimulatorProcess

if TYPE_CHECKING:
    from llmjobs.models import Client

DATABASE_FIXTURES = frozenset({"db", "transactional_db", "django_db_reset_sequences", "live_server"})
# Of models that are made on first use: a test meets no limit that it did not ask for.
AMPLE = {"LLMJOBS_DEFAULT_RPM": 60_000_000, "LLMJOBS_DEFAULT_TPM": 2_000_000_000}


@pytest.fixture(scope="session")
def llm_simulator_process() -> Iterator[SimulatorProcess]:
    """The process that `llm_simulator` lends to each test."""
    with SimulatorProcess() as simulator:
        yield simulator


@pytest.fixture
def llm_simulator(
    llm_simulator_process: SimulatorProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimulatorProcess]:
    """A provider that takes any model and any key, and says what it is told to: `answers`, `calls_tools`, `fails`.

    Meanwhile OPENAI_BASE_URL and OPENAI_API_KEY are its own, so that a model nobody configured is made at it.
    """
    from django.test import override_settings

    simulator = llm_simulator_process
    simulator.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", simulator.url)
    monkeypatch.setenv("OPENAI_API_KEY", "simulated")
    if DATABASE_FIXTURES & set(request.fixturenames) or request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        running.seed()
    with override_settings(**AMPLE), running.in_force(simulator.url):
        yield simulator


@pytest.fixture
def llm_client(transactional_db: None, llm_simulator: SimulatorProcess) -> "Client":
    """A client of the tier enterprise, in a test that commits, as run_jobs needs it."""
    return running.make_client()
