"""Limits come to a site that has jobs: buckets begin with what runs and waits there, folded or not."""

from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from llmjobs.models import BucketTurn, Provider
from tests.factories import make_client, make_model
from tests.hands import Hand, submit

pytestmark = pytest.mark.django_db(transaction=True)


def migrate(name: str | None) -> None:
    executor = MigrationExecutor(connection)
    leaf = [("llmjobs", name)] if name else executor.loader.graph.leaf_nodes("llmjobs")
    executor.migrate(leaf)


def counts() -> Any:
    newest: dict[Any, Any] = {}
    for turn in BucketTurn.objects.order_by("turn"):
        newest[turn.kind] = (turn.queued, turn.running)
    return newest[0], newest[1]


def test_buckets_begin_with_what_is_there() -> None:
    hand = Hand()
    client, pool = make_client(tier="enterprise"), make_model()
    try:
        submit(client, pool, 20)
        claimed = hand.claim(pool, 3)
        hand.settle(claimed[0], input_tokens=1, output_tokens=1, cost=1.0)
        submit(client, pool, 7)  # not folded
    finally:
        hand.close()
    try:
        migrate("0006_tiers_may_go")
    finally:
        migrate(None)
    hand = Hand()
    try:
        hand.fold()
        assert counts() == ((24, 2), (24, 2))
        Provider.objects.update(max_running=3)
        assert len(hand.claim(pool, 20)) == 1, "of three"
    finally:
        hand.close()
