"""One line of the log an attempt, whoever ends it: of a lost worker's, who takes it back."""

import logging
import re
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import attempt_log
from llmjobs.attempt_log import End
from llmjobs.events import Event, append
from llmjobs.models import Attempt, Job, JobRequest, Worker
from tests.hands import claimed_job

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What is logged of attempts; the handlers of the site's loggers are set up for processes, not for tests."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(attempt_log.logger, "handlers", [handler])
    return found


def fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", line))


def test_an_attempt_whose_worker_was_lost_has_its_line_too(hand, other, client, pool, settings, lines):
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    claimed = claimed_job(hand, client, pool)
    JobRequest.objects.update(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    event = Event(claimed.id, claimed.attempt, (claimed.epoch << 20) + 1, "delta", {"text": "said in confidence"})
    hand.run(append(hand.connection, [event], worker=hand.worker))
    Worker.objects.filter(id=hand.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp() - pg_postmaster_start_time() > interval '0.5 s'")
        assert cursor.fetchone() == (True,)

    assert len(other.reclaim()) == 1

    [line] = lines
    told, job, attempt = fields(line), Job.objects.get(), Attempt.objects.get()
    assert "confidence" not in line
    assert told | {"ran_s": "", "delay_s": "", "waited_s": ""} == {
        "event": "attempt", "job": str(job.public_id), "attempt": "1", "client": "acme", "tier": "enterprise",
        "pool": "model", "outcome": "lost", "state": "scheduled", "error": "lease_lost", "waited_s": "", "ran_s": "",
        "input_tokens": str(attempt.input_tokens), "output_tokens": str(attempt.output_tokens), "cost_usd": "-",
        "first_token_s": "-", "delay_s": "", "failures": "1", "provider_status": "-", "provider_request_id": "-",
        "worker": str(hand.worker), "trace": TRACE,
    }  # fmt: skip
    assert float(told["ran_s"]) >= 0 and float(told["delay_s"]) >= 0
    assert set(told) - {"event", "trace"} == set(End._fields) - {"traceparent"}
