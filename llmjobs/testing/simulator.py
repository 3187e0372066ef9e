"""For tests of programs that call a provider, ours and others': a simulator in a process of its own.

    with SimulatorProcess(rpm=60, ttft_ms=50) as simulator:
        client = OpenAI(base_url=simulator.url, api_key="any", max_retries=0)
        simulator.control(faults={"server_error": 0.1})
        ...
        paid = [call for call in simulator.ledger() if call["outcome"] == "completed"]

Owns the process. What it can do is told in `llmjobs/providers/simulator/`: control.py names the settings,
faults.py the faults, ledger.py the fields of a call.
Invariant: when `start` returns, the simulator answers; when the thread that started it ends, it ends too.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import llmjobs

CONTROL_TIMEOUT_S = 30
LEDGER_PAGE_CALLS = 10_000  # a page is written in 0.1 s, during which no call is answered
STOP_TIMEOUT_S = 10


class SimulatorProcess:
    """Options are those of the command line, with underscores: `rpm`, `window`, `ttft_ms`, `ledger`, …"""

    def __init__(self, *, port: int = 0, **options: Any) -> None:
        self._arguments = ["--port", str(port), "--die-with-parent", *_arguments(options)]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""  # the provider's base URL, as an OpenAI client wants it
        self.control_url = ""  # answers also while the provider refuses connections

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Raises RuntimeError if it does not come up; why is on stderr."""
        if self._process is not None:
            raise RuntimeError(f"expected a simulator that is stopped, process {self._process.pid} runs")
        root = str(Path(llmjobs.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "llmjobs.providers.simulator", *self._arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._process = process
        self.url, self.control_url = self._announced("listening on "), self._announced("control on ")

    def stop(self) -> None:
        """Let it write its ledger and end. Does nothing if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a crash would end it: what it had begun is in the ledger's file, if it has one."""
        self._end(signal.SIGKILL)

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change settings while it runs, and return all of them. Raises ValueError that names a wrong one."""
        return self._ask("POST", "/_control", changes)

    def answers(self, *texts: str, when: str = "") -> None:
        """What it says from now on: to the first job the first text, and so on, and the last one for good.

        `when`: to prompts that have these words, whatever else it was told to say.
        """
        if not texts:
            raise ValueError("expected a text at least, got none")
        self._rehearse({"when": when, "texts": list(texts)})

    def calls_tools(self, *calls: tuple[str, Mapping[str, Any]], when: str = "") -> None:
        """It answers by calling these functions, each a name and its arguments. `when` as in `answers`."""
        if not calls:
            raise ValueError("expected a call at least, got none")
        named = [{"name": name, "arguments": dict(arguments)} for name, arguments in calls]
        self._rehearse({"when": when, "tool_calls": named})

    def fails(self, fault: str, *, times: int | None = None) -> None:
        """With a fault of faults.py, such as "server_error": each job's first `times` calls; None: all of them."""
        self.control(fault=fault if times is None else f"{fault}:{times}")

    def reset(self) -> None:
        """As it was started: no faults but those of its options, words of its own, full limits, an empty ledger."""
        self.control(reset=True, reset_ledger=True)

    def _rehearse(self, line: dict[str, Any]) -> None:
        self.control(answers=[*self.control()["answers"], line])

    def ledger(self, *, after: int = 0) -> list[dict[str, Any]]:
        """Every call that it saw, in the order of arrival; `after` skips those with a number `n` up to it."""
        calls: list[dict[str, Any]] = []
        while page := self._ask("GET", f"/_ledger?after={after}&limit={LEDGER_PAGE_CALLS}")["calls"]:
            calls += page
            after = page[-1]["n"]
        return calls

    def resumes(self) -> list[dict[str, Any]]:
        """Who came back for a response in the background: `what` is get, stream or cancel. Nothing of it is paid."""
        resumes: list[dict[str, Any]] = self._ask("GET", "/_ledger?limit=0")["resumes"]
        return resumes

    def _announced(self, prefix: str) -> str:
        stdout = self._running().stdout
        line = stdout.readline() if stdout else ""
        if not line.startswith(prefix):
            self.kill()
            raise RuntimeError(f"expected {prefix!r} from the simulator's start, got {line!r}")
        return line.removeprefix(prefix).strip()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urlsplit(self.control_url).netloc, timeout=CONTROL_TIMEOUT_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.load(response)
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["error"]["message"])
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("expected a simulator that runs: use it in a `with`, or call start()")
        return self._process

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _arguments(options: Mapping[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        arguments.append("--" + name.replace("_", "-"))
        if value is not True:
            arguments.append(str(value))
    return arguments
