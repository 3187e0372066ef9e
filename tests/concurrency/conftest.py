"""Clients and a pool for tests of verbs that meet."""

import pytest

from llmjobs.models import Client, Model
from tests.factories import make_client, make_model


@pytest.fixture
def client(transactional_db: None) -> Client:
    return make_client("acme", tier="enterprise")


@pytest.fixture
def pool(transactional_db: None) -> Model:
    return make_model("model")
