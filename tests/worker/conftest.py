"""The simulator and a client of tests/simulated.py; a pool, and knobs that make a worker quick."""

import pytest

from llmjobs.models import Model
from llmjobs.testing import SimulatorProcess
from tests.factories import make_model, make_provider
from tests.simulated import client, running_simulator, simulator

__all__ = ["client", "running_simulator", "simulator"]


@pytest.fixture
def quick(settings) -> None:
    """Retries at once, looks often."""
    settings.LLMJOBS_POLL_S = 0.05
    settings.LLMJOBS_BACKOFF_BASE_S = 0.01
    settings.LLMJOBS_BACKOFF_CAP_S = 0.01
    settings.LLMJOBS_PROBE_S = settings.LLMJOBS_PROBE_MAX_S = 0.1
    settings.LLMJOBS_HEARTBEAT_S = 0.2
    settings.LLMJOBS_EVENT_TICK_MS = 20


@pytest.fixture
def pool(transactional_db: None, quick: None, simulator: SimulatorProcess) -> Model:
    provider = make_provider("simulator", base_url=simulator.url)
    return make_model("model", provider=provider, input_usd_per_mtok=1, output_usd_per_mtok=4)
