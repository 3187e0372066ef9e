"""A real worker at the limits: who comes next where an account runs all that it may, and what a missing key does."""

from typing import Any

import pytest

from llmjobs import queue
from llmjobs.models import Attempt, BucketTurn, Incident, Job
from llmjobs.testing import SimulatorProcess
from tests.factories import make_client, make_model, make_provider
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import working

pytestmark = pytest.mark.django_db(transaction=True)


def test_models_of_an_account_that_runs_all_that_it_may_take_turns(simulator: SimulatorProcess) -> None:
    client = make_client(tier="enterprise")
    simulator.control(ttft_ms=50)
    account = make_provider("one", base_url=simulator.url, max_running=1)
    models = [make_model(provider=account) for _ in range(3)]
    for model in models:
        submit(client, model, 60, messages=[{"role": "user", "content": "Hello. [[tokens=2]]"}])
    with working(concurrency=16):
        counts = eventually(lambda: _done(models, least=5), within_s=30)
    assert max(counts) <= 3 * min(counts)


def _done(models: list[Any], *, least: int) -> list[int]:
    ended = list(Job.objects.filter(state="completed").values_list("pool_id", flat=True))
    counts = [ended.count(model.pk) for model in models]
    assert min(counts) >= least, counts
    return counts


def test_a_worker_without_the_key_leaves_the_pool_to_others(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """It says nothing about the provider: nobody's breaker opens, and the jobs are not tried on and on."""
    monkeypatch.delenv("NOBODYS_API_KEY", raising=False)
    settings.LLMJOBS_PROBE_S = 30
    settings.LLMJOBS_POLL_S = 0.05
    looks = _counted(monkeypatch)
    pool = make_model(provider=make_provider("keyless", api_key_env="NOBODYS_API_KEY"))
    submit(make_client(tier="enterprise"), pool, 20)
    with working(concurrency=4):
        eventually(_tried)
        before = len(looks)
        eventually(lambda: _looked(looks, before + 10))
    assert Attempt.objects.count() <= 8, "each job that it had claimed already"
    assert not Incident.objects.exists()
    assert not BucketTurn.objects.filter(blocked_by__isnull=False).exists()


def test_where_nobody_has_the_key_operators_hear_of_it(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.delenv("NOBODYS_API_KEY", raising=False)
    settings.LLMJOBS_PROBE_S = 0.2
    settings.LLMJOBS_BREAKER_STRIKES = 2
    pool = make_model(provider=make_provider("keyless", api_key_env="NOBODYS_API_KEY"))
    submit(make_client(tier="enterprise"), pool, 20)
    with working(concurrency=4):
        eventually(_told, within_s=20)


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry each time that a worker has looked for pools with work."""
    looks: list[None] = []
    ready_pools = queue.ready_pools

    async def counted(*arguments: Any, **options: Any) -> Any:
        found = await ready_pools(*arguments, **options)
        looks.append(None)
        return found

    monkeypatch.setattr(queue, "ready_pools", counted)
    return looks


def _looked(looks: list[None], times: int) -> None:
    assert len(looks) >= times


def _tried() -> None:
    assert Attempt.objects.filter(outcome="provider_refused").exists()


def _told() -> None:
    incident = Incident.objects.filter(reason="provider_auth").first()
    assert incident is not None, "no incident"
    assert "NOBODYS_API_KEY" in incident.words
