"""Workers and web servers behind PgBouncer in transaction mode, with the file that people copy."""

import json
import os
from typing import Any

import httpx2
import pytest

from llmjobs.models import Attempt, Job
from llmjobs.states import TERMINAL
from tests.deployment.pooling import binary, pgbouncer
from tests.factories import make_key
from tests.helpers import database_url, eventually
from tests.live_process import web_server
from tests.simulated import KEY
from tests.worker_process import worker_process

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        binary() is None and not os.environ.get("REQUIRE_SERVERS"), reason="PgBouncer is not installed here"
    ),
]


def all_completed(count: int) -> None:
    states = list(Job.objects.values_list("state", flat=True))
    assert len(states) == count and set(states) <= TERMINAL, states
    assert set(states) == {"completed"}, states


@pytest.mark.parametrize("server_connections", ["2", "20"])
def test_the_whole_way_of_a_job_goes_through_a_pooler_in_transaction_mode(client, pool, server_connections):
    """Submitted over HTTP, claimed by two workers over fewer sessions than they believe to have, told to a viewer."""
    key = make_key(client)
    with pgbouncer(default_pool_size=server_connections, reserve_pool_size="0") as pooler:
        around = {"DATABASE_URL": pooler.url, "LLMJOBS_LISTEN_DSN": database_url(), **pooler.knobs, **KEY}
        with (
            web_server(**around) as web,
            worker_process(**around) as one,
            worker_process(**around) as other,
        ):
            ids = [ask(web.url, key, "/api/jobs", body(index))["id"] for index in range(20)]
            eventually(lambda: all_completed(20), within_s=60)
            seen = read(web.url, key, f"/api/jobs/{ids[0]}/events")
            assert ask(web.url, key, f"/api/jobs/{ids[1]}?wait=5")["status"] == "completed"
            said = one.output() + other.output() + web.output()
        said += one.output() + other.output()

    assert seen.count("event: done") == 1 and "event: delta" in seen
    assert Attempt.objects.count() == 20, "no call was made twice"
    for fault in ("prepared statement", "failed", "Traceback", "waits"):
        assert fault not in said, said


def body(index: int) -> dict[str, Any]:
    return {"model": "model", "messages": [{"role": "user", "content": f"Job {index}. [[tokens=20]]"}]}


def ask(url: str, key: str, path: str, data: Any = None) -> Any:
    return json.loads(read(url, key, path, data))


def read(url: str, key: str, path: str, data: Any = None) -> str:
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as http:
        answer = http.request(
            "GET" if data is None else "POST", path, json=data, headers={"Authorization": f"Bearer {key}"}
        )
        assert answer.is_success, answer.text
        return answer.text
