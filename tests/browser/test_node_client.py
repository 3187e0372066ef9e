"""client.js in Node, as a program would use it, against the real site."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site
from tests.console.javascript import node

pytestmark = pytest.mark.django_db

PROGRAM = Path(__file__).parent / "follow.mjs"
END = {"status": "completed", "isSame": True}


@contextmanager
def follow(site: Site, prompt: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What the program tells, step by step."""
    command = [node(), str(PROGRAM), site.url, site.api_key, site.model.name, prompt]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            yield map(json.loads, program.stdout)
        finally:
            program.kill()


def numbers(steps: list[dict[str, Any]]) -> list[int]:
    return [step["seq"] for step in steps if "seq" in step]


def test_a_program_submits_and_follows_a_job_to_its_end(site: Site) -> None:
    with follow(site, "Count the boats. [[tokens=40]]") as told:
        steps = list(told)
    assert steps[-1] == {**END, "output_tokens": 40}
    assert steps[-2]["type"] == "done"
    assert [step["state"] for step in steps if "state" in step] == ["connecting", "live"]


def test_a_program_follows_on_after_the_web_server_was_killed(site: Site) -> None:
    steps = []
    with follow(site, "Count the boats. [[tokens=240]] [[tokens_per_s=25]]") as told:
        for step in told:
            steps.append(step)
            if step.get("type") == "delta" and len([each for each in steps if each.get("type") == "delta"]) == 3:
                site.stack.server.kill()
            if step.get("state") == "reconnecting" and steps.count(step) == 1:
                site.stack.server.start()
    assert steps[-1] == {**END, "output_tokens": 240}
    assert {"state": "reconnecting"} in steps
    assert numbers(steps) == sorted(set(numbers(steps))), "an event came twice, or out of order"


def test_a_stranger_is_told_so(site: Site) -> None:
    site.api_key = "llmj_nobody"
    with follow(site, "Hello") as told:
        assert list(told) == [{"status": 401, "code": "invalid_api_key"}]
