"""A real worker at the limits: who comes next where an account runs all that it may, and what a missing key does."""

import time
from typing import Any

import pytest

from llmjobs.models import Attempt, BucketTurn, Incident, Job
from tests.factories import make_client, make_model, make_provider
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import working
from tests.worker.scripted import said, scripted, stream_answer

pytestmark = pytest.mark.django_db(transaction=True)


def test_models_of_an_account_that_runs_all_that_it_may_take_turns() -> None:
    client = make_client(tier="enterprise")

    def answer(request: Any) -> Any:
        time.sleep(0.05)
        return stream_answer(*said("hi", usage={"prompt_tokens": 5, "completion_tokens": 5}))

    with scripted(answer) as provider:
        account = make_provider("one", base_url=provider.url, max_running=1)
        models = [make_model(provider=account) for _ in range(3)]
        for model in models:
            submit(client, model, 60)
        with working(concurrency=16):
            eventually(lambda: _done(models, least=5), within_s=30)
            counts = [Job.objects.filter(pool=model, state="completed").count() for model in models]
    assert max(counts) <= 3 * min(counts)


def _done(models: list[Any], *, least: int) -> None:
    counts = [Job.objects.filter(pool=model, state="completed").count() for model in models]
    assert min(counts) >= least, counts


def test_a_worker_without_the_key_leaves_the_pool_to_others(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """It says nothing about the provider: nobody's breaker opens, and the jobs are not tried on and on."""
    monkeypatch.delenv("NOBODYS_API_KEY", raising=False)
    settings.LLMJOBS_PROBE_S = 30
    provider = make_provider("keyless", api_key_env="NOBODYS_API_KEY")
    pool = make_model(provider=provider)
    jobs = submit(make_client(tier="enterprise"), pool, 20)
    with working(concurrency=4):
        eventually(lambda: _tried(jobs))
        time.sleep(1.5)  # some polls
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


def _tried(jobs: list[Job]) -> None:
    assert Attempt.objects.filter(outcome="provider_refused").exists()


def _told() -> None:
    incident = Incident.objects.filter(reason="provider_auth").first()
    assert incident is not None, "no incident"
    assert "NOBODYS_API_KEY" in incident.words
