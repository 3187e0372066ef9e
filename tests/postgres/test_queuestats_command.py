"""manage.py queuestats."""

import json
from io import StringIO

import pytest
from django.core.management import call_command

from llmjobs.states import State
from llmjobs.stats import queue_stats
from tests.factories import make_client, make_job

pytestmark = pytest.mark.django_db


def queuestats(*arguments: str) -> str:
    out = StringIO()
    call_command("queuestats", *arguments, stdout=out)
    return out.getvalue()


def test_it_prints_the_statistics_of_all_clients_as_json():
    make_job(client=make_client("acme"))
    make_job(State.RUNNING, client=make_client("other"))

    printed = json.loads(queuestats("--json"))

    assert (printed["total"], printed["queued"], printed["running"]) == (2, 1, 1)
    assert printed["by_client"] == {"acme": 1, "other": 1}
    assert set(printed) == set(queue_stats())


def test_people_read_a_line_a_number():
    make_job(client=make_client("acme"))

    lines = [line.split() for line in queuestats().splitlines()]

    assert ["total", "1"] in lines
    assert ["acme", "1"] in lines
    assert ["p95", "-"] in lines
