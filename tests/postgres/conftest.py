"""What a test of one verb needs: a client, a pool, and hands that claim and settle."""

from collections.abc import Iterator

import pytest

from llmjobs.models import Client, Model
from tests.factories import make_client, make_model
from tests.hands import Hand, hands


@pytest.fixture
def client(transactional_db: None) -> Client:
    return make_client("acme", tier="enterprise")


@pytest.fixture
def pool(transactional_db: None) -> Model:
    return make_model("model")


@pytest.fixture
def hand(transactional_db: None) -> Iterator[Hand]:
    with hands(1) as [one]:
        yield one


@pytest.fixture
def other(transactional_db: None) -> Iterator[Hand]:
    """Another worker's."""
    with hands(1) as [one]:
        yield one
