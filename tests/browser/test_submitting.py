"""Submits of client.js against the real site, in Node and in a Chromium at the same time: through a server that is
killed and a connection that is cut, and while the server says that it is full. Each makes one job, in order.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from llmjobs.models import Client, Job, Model
from tests.browser.conftest import Site, apart
from tests.cable import Cable, cable
from tests.console.javascript import node
from tests.helpers import eventually

pytestmark = pytest.mark.django_db

HERE = Path(__file__).parent
SCRIPT = (HERE / "submitting.mjs").read_text().replace("export ", "")
START = """
  const { LLMJobs } = await import("/static/llmjobs/client.js");
  window.told = [];
  submitAll({ LLMJobs, tell: (step) => window.told.push(step), ...asked });
"""
IMPATIENT = {"timeoutS": 2, "silenceS": 2, "patienceS": 90}
Told = Callable[[], list[dict[str, Any]]]


@contextmanager
def in_node(url: str, api_key: str, **asked: Any) -> Iterator[Told]:
    """What the program has told so far."""
    asked["options"] = {**asked["options"], "baseUrl": url, "apiKey": api_key}
    command = [node(), str(HERE / "submit_in_node.mjs"), json.dumps(asked)]
    steps: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        lines = program.stdout
        threading.Thread(target=lambda: steps.extend(map(json.loads, lines)), daemon=True).start()
        try:
            yield lambda: list(steps)
        finally:
            program.kill()


def in_page(page: Page, **asked: Any) -> Told:
    page.evaluate(f"async (asked) => {{ {SCRIPT} {START} }}", asked)
    return lambda: page.evaluate("window.told")


def submissions(site: Site, whose: str, count: int, first: str = "", priorities: tuple[int, ...] = (5,)) -> list[Any]:
    """The prompt of the first is `first`."""
    return [
        {
            "model": site.model.name,
            "messages": [{"role": "user", "content": first if first and n == 0 else f"Boat {n}. [[tokens=2]]"}],
            "priority": priorities[n % len(priorities)],
            "metadata": {"name": f"{whose}-{n}"},
        }
        for n in range(count)
    ]


def names_in_database(site: Site, whose: str) -> list[str]:
    """Of the jobs that one of them submitted, in the order in which the server took them."""
    metadata = Job.objects.filter(client=site.client).order_by("id").values_list("request__metadata", flat=True)
    names = apart(lambda: [each.get("name", "") for each in metadata])
    return [name for name in names if name.startswith(whose)]


def url_of(wire: Cable) -> str:
    return f"http://127.0.0.1:{wire.port}"


def landed(told: Told) -> int:
    return sum("landed" in step for step in told())


def by_priority(asked: list[Any]) -> list[str]:
    return [each["metadata"]["name"] for each in sorted(asked, key=lambda each: each["priority"])]  # sorted is stable


def is_over(*all_told: Told) -> None:
    for told in all_told:
        assert told() and told()[-1] == {"isOver": True, "waiting": {"count": 0, "until": None, "reason": None}}, (
            landed(told),
            told()[-3:],
        )


def test_submits_land_once_and_in_order_through_a_killed_server_and_a_cut_connection(site: Site) -> None:
    long = "Count the boats. [[tokens=240]] [[tokens_per_s=20]]"
    of_node, of_page = submissions(site, "node", 24, long), submissions(site, "page", 24, long)
    asked: dict[str, Any] = {"options": IMPATIENT, "follows": True}
    port = site.stack.server.port
    with cable(port) as nodes_wire, cable(port) as pages_wire:
        wires = (nodes_wire, pages_wire)
        for wire in wires:
            wire.freeze_at_post(16)  # of 24: there is always somebody left to be held up
        page = site.tab()
        page.context.add_cookies([{"name": "sessionid", "value": site.cookie, "url": url_of(pages_wire)}])
        page.goto(url_of(pages_wire))
        with in_node(url_of(nodes_wire), site.api_key, submissions=of_node, **asked) as told_by_node:
            told_by_page = in_page(page, submissions=of_page, **asked)
            both = (told_by_node, told_by_page)

            def have_landed(count: int) -> None:
                assert all(landed(told) >= count for told in both), [told()[-1:] for told in both]

            eventually(lambda: have_landed(2), within_s=30)
            site.stack.server.kill()
            site.stack.server.start()
            eventually(lambda: have_landed(4), within_s=60)
            for wire in wires:
                wire.cut()
            eventually(lambda: _are_held_up(wires, both), within_s=60)
            for wire in wires:
                wire.cut()
                wire.restore()
            eventually(lambda: is_over(*both), within_s=120)
    for whose, told in (("node", told_by_node), ("page", told_by_page)):
        steps = told()
        assert names_in_database(site, whose) == [f"{whose}-{n}" for n in range(24)]
        assert [step["landed"] for step in steps if "landed" in step] == [f"{whose}-{n}" for n in range(24)]
        assert {"followed": "completed", "isWhole": True, "isInOrder": True} in steps
        assert {"state": "reconnecting"} in steps
    _each_was_called_once(site, 48)
    site.forgive()


def _are_held_up(wires: tuple[Cable, ...], both: tuple[Told, ...]) -> None:
    """By an answer that does not come: the latest step of who waits says so."""
    assert all(wire.is_frozen for wire in wires), "what is waited for is still another fault"
    for told in both:
        waits = [step for step in told() if "before" in step]
        assert waits and waits[-1]["reason"] == "connection_error", waits[-2:]


def _each_was_called_once(site: Site, count: int) -> None:
    def all_ended() -> None:
        assert apart(Job.objects.filter(client=site.client, state="completed").count) == count

    eventually(all_ended, within_s=60)
    assert len(site.stack.simulator.ledger()) == count


def test_submits_that_find_the_queue_full_wait_in_line_and_land_by_priority_and_order(site: Site) -> None:
    apart(Client.objects.filter(pk=site.client.pk).update, max_queued=5)
    apart(Model.objects.filter(pk=site.model.pk).update, max_running=1)
    site.stack.simulator.control(ttft_ms=250)
    warm = submissions(site, "warm", 1)  # so that the server knows how fast this client's jobs start
    of_node = submissions(site, "node", 20, priorities=(5, 1, 10))
    of_page = submissions(site, "page", 20, priorities=(8, 5))
    with in_node(site.url, site.api_key, options={}, submissions=warm) as told_of_warm:
        eventually(lambda: is_over(told_of_warm), within_s=30)
        eventually(lambda: _have_started(site, 1), within_s=30)
    page = site.tab()
    too_many = [*of_node, *submissions(site, "late", 1)]
    with in_node(site.url, site.api_key, options={"queueMax": 20}, submissions=too_many) as told_by_node:
        told_by_page = in_page(page, options={}, submissions=of_page)
        eventually(lambda: is_over(told_by_node, told_by_page), within_s=120)
    for whose, asked, told in (("node", of_node, told_by_node), ("page", of_page, told_by_page)):
        steps = told()
        assert names_in_database(site, whose) == by_priority(asked)
        assert [step["landed"] for step in steps if "landed" in step] == by_priority(asked)
        assert any(step.get("isClosed") and step["reason"] == "queue_full" for step in steps), steps
    assert {"refused": "late-0", "code": "client_queue_full"} in told_by_node()
    _each_was_called_once(site, 41)
    site.forgive()


def _have_started(site: Site, count: int) -> None:
    assert apart(Job.objects.filter(client=site.client, attempt__gt=0).count) >= count
