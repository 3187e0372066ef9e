"""Schemathesis on our own OpenAPI schema, against a real daphne: valid data is taken, invalid data is refused, and
every answer is what the schema says, on every route.

A fixed seed and few examples, so that it always does the same, in half a minute. For a long look: FUZZ_EXAMPLES=500
FUZZ_SEED=1.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from llmjobs.api.schema import OPERATIONS
from tests.factories import make_client, make_job, make_key, make_model, make_provider, make_tier
from tests.helpers import process_environment
from tests.live_process import WebServer, web_server

pytestmark = pytest.mark.django_db(transaction=True)

CONFIG = Path(__file__).with_name("schemathesis.toml")
LINES = Path(__file__).with_name("fuzzed_lines.py")
PROGRAM = Path(sys.executable).with_name("st")
ROUTES = len(OPERATIONS)


@pytest.fixture
def server(transactional_db):
    """Waits and streams are short, since the fuzzer waits for the end of each; every model's name is one."""
    with web_server(
        "tests.security.fuzzed_site:application",
        LLMJOBS_SSE_KEEPALIVE_S="0.1",
        LLMJOBS_WAIT_MAX_S="0.1",
        LLMJOBS_POOLS_PER_CLIENT_MAX="100000",
    ) as running:
        yield running


@pytest.fixture
def key(transactional_db) -> str:
    """Of a client with jobs in three states, which nothing runs."""
    client = make_client("acme", tier=make_tier("unlimited", max_queued=None))
    model = make_model("gpt", provider=make_provider(any_model=True))
    for state in ("queued", "running", "completed"):
        make_job(state, client=client, model=model)
    return make_key(client)


def cursor(server: WebServer, key: str) -> str:
    """Of a second page."""
    page = httpx2.get(f"{server.url}/api/jobs?limit=1", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    return page.json()["next"]


def fuzz(server: WebServer, key: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            str(PROGRAM), "--config-file", str(CONFIG), "run", f"{server.url}/api/schema",
            "--header", f"Authorization: Bearer {key}", "--seed", os.environ.get("FUZZ_SEED", "5"),
            "--max-examples", os.environ.get("FUZZ_EXAMPLES", "8"), "--generation-database", "none",
            "--request-timeout", "10", "--continue-on-failure", "--no-color",
        ],
        cwd=folder, env=process_environment(CURSOR=cursor(server, key), SCHEMATHESIS_HOOKS=str(LINES)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_fuzzer_finds_nothing(server, key, tmp_path):
    found = fuzz(server, key, tmp_path)

    assert found.returncode == 0, found.stdout + found.stderr + server.output()[-5000:]
    assert f"Operations:       {ROUTES} selected / {ROUTES} total" in found.stdout, found.stdout
    asked = re.search(r"(\d+) generated", found.stdout)
    assert asked and int(asked[1]) > 300, found.stdout
    assert "status=5" not in server.output()
