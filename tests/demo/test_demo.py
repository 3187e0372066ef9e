"""The demo as people and programs use it: real processes, real kills, one data folder for all of this file."""

import contextlib
import http.client
import http.cookiejar
import os
import re
import shutil
import signal
import socket
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmjobs.demo.client import Api, ApiError
from llmjobs.testing import SimulatorProcess
from tests.demo.demo_process import Demo, nothing_is_left, processes_of
from tests.helpers import eventually

SAMPLE = Path(__file__).resolve().parents[1] / "bench" / "data" / "azure_llm_2023_conv_sample.csv"
HELLO = {"model": "sim-small", "messages": [{"role": "user", "content": "Hello. [[tokens=20]]"}]}

Start = Callable[..., Demo]
Caller = Callable[..., Api]


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Open to the user that Postgres drops to, and kept from test to test, as a person's is."""
    folder = Path(tempfile.mkdtemp(prefix="llmjobs-demo-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    started: list[Demo] = []

    def start_one(*arguments: str, **options: Any) -> Demo:
        started.append(Demo(data_dir, *arguments, **options))
        return started[-1]

    yield start_one
    try:
        for demo in started:
            demo.process.kill()
        nothing_is_left(data_dir)
    finally:
        for demo in started:
            demo.close()


@pytest.fixture
def caller() -> Iterator[Caller]:
    """The API as a client of a demo that is ready."""
    with contextlib.ExitStack() as opened:

        def caller_of(ready: dict[str, Any], client: str = "acme") -> Api:
            api = Api(ready["url"], ready["api_keys"][client])
            opened.callback(api.close)
            return api

        yield caller_of


def completed(api: Api, job_id: str) -> dict[str, Any]:
    job = api.get(f"/api/jobs/{job_id}?wait=30")
    assert job["status"] == "completed", job
    return job


def test_what_a_demo_says_when_it_is_ready_is_true_and_a_second_demo_keeps_it_all(start: Start, caller: Caller) -> None:
    demo = start("--json")
    ready = demo.ready()
    api = caller(ready)
    job = completed(api, api.submit(HELLO, "a-key")["id"])
    assert job["output_text"]
    assert job["tier"] == "enterprise"
    assert set(ready["api_keys"]) == {"acme", "globex", "initech", "hooli"}
    with pytest.raises(ApiError, match="no such job"):
        caller(ready, "globex").get(f"/api/jobs/{job['id']}")
    assert_logs_in(ready)
    assert f"{job['id']}.1" in [call["client_request_id"] for call in ledger_of(ready)]
    status, _, _ = demo.finish(signal.SIGINT)
    assert status == 0
    nothing_is_left(demo.data_dir)

    second = start("--json")
    again = second.ready()
    assert (again["admin"], again["api_keys"]) == (ready["admin"], ready["api_keys"])
    assert completed(caller(again), job["id"])["output"] == job["output"]
    assert (second.data_dir / "demo" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert second.finish(signal.SIGTERM)[0] == 0


def test_a_taken_port_is_said_and_the_next_one_used(start: Start, caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        demo = start("--json", "--port", str(taken))
        ready = demo.ready()
        port = urllib.parse.urlsplit(ready["url"]).port
        assert port is not None and port > taken
        assert_second_demo_is_refused(start)
        assert caller(ready).get("/api/models")["data"]
        _, _, err = demo.finish(signal.SIGINT)
        assert f"Port {taken} is taken: this is {port}." in err


def assert_second_demo_is_refused(start: Start) -> None:
    """On the same data, while the first runs."""
    status, out, err = start("--json").finish()
    assert (status, out) == (1, "")
    assert "another demo runs on" in err


def test_a_worker_that_is_killed_is_started_again_and_its_job_completes(start: Start, caller: Caller) -> None:
    demo = start("--json", LLMJOBS_LEASE_S="2", LLMJOBS_HEARTBEAT_S="0.5", LLMJOBS_RECLAIM_EVERY_S="0.5")
    ready = demo.ready()
    api = caller(ready)
    prompt = [{"role": "user", "content": "Hello. [[tokens=60]]"}]
    job = api.submit({"model": "sim-small", "messages": prompt}, "b-key")
    eventually(lambda: assert_is_running(api, job["id"]))
    [worker] = demo.children("runworker")
    os.kill(worker, signal.SIGKILL)
    assert completed(api, job["id"])["attempt"] == 2
    assert worker not in demo.children("runworker")


@pytest.mark.parametrize("whose", ["its own", "its parent's"])
def test_a_kill_leaves_no_process_behind(start: Start, caller: Caller, whose: str) -> None:
    demo = start("--json", under_shell=whose == "its parent's")
    ready = demo.ready()
    prompt = [{"role": "user", "content": "Hello. [[tokens=2000]]"}]
    api = caller(ready)
    job = api.submit({"model": "sim-small", "messages": prompt}, f"kill-{whose}")
    eventually(lambda: assert_is_running(api, job["id"]))
    assert len(processes_of(demo.data_dir)) > 6
    demo.process.kill()
    nothing_is_left(demo.data_dir)


def test_a_mixed_load_ends_with_a_table_and_status_0(start: Start) -> None:
    status, out, err = start("--once").finish()
    assert status == 0, err
    assert "every job completed" in out
    assert re.search(
        r"page +http://\S+/ +acme / \S+\n +admin +http://\S+/admin/ +admin / \S+\n +docs +http://\S+/docs/\n", out
    ), out
    rows = dict(re.findall(r"^  (enterprise|pro|free|all) +\d+ +(\d+) ", out, re.MULTILINE))
    assert rows == {"enterprise": "24", "pro": "24", "free": "24", "all": "72"}
    assert "what was streamed is what is stored for 72 of 72 jobs" in out


def test_a_load_of_which_a_job_did_not_complete_ends_with_status_1(start: Start, caller: Caller) -> None:
    demo = start("--once", "--json")
    ready = demo.ready()
    api = caller(ready, "initech")
    eventually(lambda: cancel_one(api, ready, "initech"))
    status, _, err = demo.finish()
    assert status == 1
    assert "1 of 72 jobs did not complete" in err


def test_a_trace_is_replayed_and_nothing_is_paid_for(start: Start) -> None:
    with SimulatorProcess() as paid:
        arguments = ["--once", "--trace", str(SAMPLE), "--speed", "10", "--limit", "30"]
        demo = start(*arguments, OPENAI_API_KEY="sk-dear", OPENAI_BASE_URL=paid.url)
        status, out, err = demo.finish()
        assert status == 0, err
        assert re.search(r"^  all +30 +30 +30 ", out, re.MULTILINE), out
        assert "ideal, each call begun as it arrives" in out
        assert paid.ledger() == []


def test_a_paid_provider_is_called_when_it_is_asked_for_and_only_then(start: Start, caller: Caller) -> None:
    with SimulatorProcess() as paid:
        environment = {"OPENAI_API_KEY": "sk-dear", "OPENAI_BASE_URL": paid.url}
        status, out, err = start("--once", "--provider", "openai", **environment).finish()
        assert status == 0, out + err
        assert [call["model"] for call in paid.ledger()] == ["gpt-4.1-mini"] * 3
        demo = start("--json", **environment)
        ready = demo.ready()
        for pid in [*demo.children("runworker"), *demo.children("daphne")]:
            assert b"sk-dear" not in Path(f"/proc/{pid}/environ").read_bytes()
        api = caller(ready)
        left = api.submit({"model": "gpt-4.1-mini", "messages": HELLO["messages"]}, "paid")
        completed(api, api.submit(HELLO, "free")["id"])
        assert api.get(f"/api/jobs/{left['id']}")["status"] == "queued"
        assert len(paid.ledger()) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--trace", "x.csv"], "expected --once"),
        (["--once", "--speed", "2"], "expected --trace"),
        (["--once", "--trace", "no/such.csv"], "No such file"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--provider", "openai"], "expected OPENAI_API_KEY"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_anything_starts(
    start: Start, arguments: list[str], expected: str
) -> None:
    status, out, err = start(*arguments).finish()
    assert status != 0
    assert out == ""
    assert expected in err


def assert_is_running(api: Api, job_id: str) -> None:
    assert api.get(f"/api/jobs/{job_id}")["status"] == "running"


def cancel_one(api: Api, ready: dict[str, Any], client: str) -> None:
    """Cancels a job that has not ended; a load is running."""
    jobs = [job for job in api.get("/api/jobs")["data"] if job["status"] in ("queued", "scheduled", "running")]
    assert jobs
    with contextlib.closing(http.client.HTTPConnection(urllib.parse.urlsplit(ready["url"]).netloc)) as connection:
        path = urllib.parse.urlsplit(jobs[0]["links"]["cancel"]).path
        headers = {"Authorization": f"Bearer {ready['api_keys'][client]}"}
        connection.request("POST", path, headers=headers)
        assert connection.getresponse().status == 200


def ledger_of(ready: dict[str, Any]) -> list[dict[str, Any]]:
    with contextlib.closing(Api(ready["simulator_url"], "")) as simulator:
        calls: list[dict[str, Any]] = simulator.get("/_ledger")["calls"]
        return calls


def assert_logs_in(ready: dict[str, Any]) -> None:
    """The admin's password opens the admin."""
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    login = f"{ready['url']}/admin/login/?next=/admin/"
    browser.open(login, timeout=20).read()
    token = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = {"username": ready["admin"]["user"], "password": ready["admin"]["password"], "csrfmiddlewaretoken": token}
    with browser.open(login, urllib.parse.urlencode(form).encode(), timeout=20) as page:
        assert page.url == f"{ready['url']}/admin/"
