"""The simulator as a process: started, asked, stopped, killed, and gone with whoever started it."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmjobs.testing import SimulatorProcess
from tests.helpers import eventually

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "llmjobs.providers.simulator"]


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as process:
        yield process


def ask(simulator: SimulatorProcess, text: str = "[[tokens=4]]", **headers: str) -> Any:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    sent = {"Authorization": "Bearer sk-test", **headers}
    call = urllib.request.Request(f"{simulator.url}/chat/completions", body, sent)  # noqa: S310, http on loopback
    with urllib.request.urlopen(call, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def test_it_answers_as_soon_as_it_is_started(simulator: SimulatorProcess) -> None:
    assert ask(simulator)["usage"]["completion_tokens"] == 4
    assert [call["outcome"] for call in simulator.ledger()] == ["completed"]
    assert simulator.ledger(after=1) == []


def test_it_is_controlled_and_reset(simulator: SimulatorProcess) -> None:
    assert simulator.control(fault="server_error")["fault"] == "server_error"
    with pytest.raises(urllib.error.HTTPError) as raised:
        ask(simulator)
    raised.value.close()
    with pytest.raises(ValueError, match=r"^rpm: expected "):
        simulator.control(rpm=0)
    simulator.reset()
    assert simulator.ledger() == []
    ask(simulator)


def test_options_are_those_of_the_command_line() -> None:
    with SimulatorProcess(rpm=7, tpm=8, window="fixed", ttft_ms=1.5, count_max_tokens=True, fail_rate=0.0) as simulator:
        state = simulator.control()
    assert (state["rpm"], state["tpm"], state["window"], state["ttft_ms"]) == (7, 8, "fixed", 1.5)
    assert (state["count_max_tokens"], state["fail_rate"]) == (True, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_quietly(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (0, "")


def test_its_ledger_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    simulator = SimulatorProcess(ledger=path)
    simulator.start()
    ask(simulator, **{"X-Client-Request-Id": "job.1"})
    simulator.kill()
    simulator.start()
    ask(simulator, **{"X-Client-Request-Id": "job.2"})
    calls = simulator.ledger()
    simulator.stop()
    assert [(call["n"], call["client_request_id"], call["outcome"]) for call in calls] == [
        (1, "job.1", "completed"),
        (2, "job.2", "completed"),
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rpm", "0"], "--rpm: expected a whole number from 1"),
        (["--fail-rate", "2"], "--fail-rate: expected a number from 0 to 1"),
        (["--fault", "typo"], "--fault: expected "),
        (["--host", "0.0.0.0"], "host: expected a loopback address"),  # noqa: S104
        (["--window", "rolling"], "invalid choice"),
        (["--ledger", "/nowhere/ledger.jsonl"], "No such file or directory"),
    ],
)
def test_a_wrong_option_ends_it_with_what_was_expected(arguments: list[str], complaint: str) -> None:
    ended = subprocess.run([*COMMAND, "--port", "0", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=10)
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_it_dies_with_its_parent() -> None:
    script = (
        "import time; from llmjobs.testing import SimulatorProcess\n"
        "simulator = SimulatorProcess(); simulator.start(); print(simulator.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def gone() -> None:
        assert not _is_alive(pid)

    eventually(gone)


def test_it_loads_neither_django_nor_the_sdk() -> None:
    """Benchmarks share two cores with it, and tests start many: what it imports is what it costs (0.1 s now)."""
    listing = (
        "import sys; import llmjobs.providers.simulator.command; print([name for name in sys.modules if "
        "name.split('.')[0] in ('django', 'openai', 'httpx2', 'pydantic', 'psycopg')])"
    )
    heavy = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert heavy.stdout.strip() == "[]"


def test_the_management_command_starts_it() -> None:
    """The settings are bare: the command asks neither for a database nor for an app's models."""
    script = (
        "from django.conf import settings; settings.configure(DATABASES={}); import django; django.setup()\n"
        "from llmjobs.management.commands.simulateprovider import Command\n"
        "Command().run_from_argv(['manage.py', 'simulateprovider', '--port', '0', '--rpm', '9'])"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().removeprefix("listening on ").strip().removesuffix("/v1")
        with urllib.request.urlopen(f"{url}/_control", timeout=10) as answer:  # noqa: S310
            assert json.load(answer)["rpm"] == 9
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 0


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
