"""Fixtures of packages that run workers against the simulator: one process a package, as new for each test, with a
client and a pool at it.

A package's conftest imports those that it wants.
"""

from collections.abc import Iterator

import pytest

from llmjobs.models import Client, Model
from llmjobs.testing import SimulatorProcess
from tests.factories import make_client, make_model, make_provider

KEY = {"SIMULATOR_API_KEY": "sk-test"}  # for the environment of processes that serve `pool`


@pytest.fixture(scope="package")
def running_simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: SimulatorProcess) -> SimulatorProcess:
    running_simulator.reset()
    return running_simulator


@pytest.fixture
def client(transactional_db: None) -> Client:
    return make_client("acme", tier="enterprise")


@pytest.fixture
def pool(transactional_db: None, simulator: SimulatorProcess) -> Model:
    provider = make_provider("simulator", base_url=simulator.url, api_key_env="SIMULATOR_API_KEY")
    return make_model("model", provider=provider, input_usd_per_mtok=1, output_usd_per_mtok=4)
