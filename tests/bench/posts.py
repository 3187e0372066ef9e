"""POST /api/jobs over HTTP, beside a bare DRF view that inserts one row (bare_urls.py): same server, same body.

They are asked in turns, by a process of its own (poster.py), over connections that stay open; a worker of another pool
does the duties that a site's workers do, and runs none of the jobs. Told besides: the same view by the API's own road
(project/one_hop.py), so that what that saves and what POST itself costs are seen apart.
"""

import json

from django.db import connection

from llmjobs.models import Model
from tests.bench.bare_urls import TABLE
from tests.bench.ground import MODEL, Ground, run_json
from tests.bench.report import Table, median, progress, rounds

CONNECTIONS = 8
LEAST = 0.7
PROMPT = "Say something. " * 10
ELSEWHERE = "elsewhere"
ROADS = {"ours": "/api/jobs", "bare": "/bare", "bare, by the API's road": "/api/bare"}
OURS_STATUS, BARE_STATUS = "202", "201"


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table(f"POST /api/jobs beside a bare DRF view that inserts one row ({CONNECTIONS} connections)")
    count, round_count = (150, 3) if is_quick else (1_000, 7)
    with connection.cursor() as cursor:
        cursor.execute(TABLE)
    Model.objects.create(name=ELSEWHERE, provider=ground.model.provider)
    with ground.worker(1, pools=ELSEWHERE):
        for server in ("daphne",) if is_quick else ("daphne", "uvicorn"):
            found = _rounds(ground, server, count, round_count)
            ratios = [ours / bare for ours, bare in zip(found["ours"], found["bare"], strict=True)]
            least = LEAST if server == "daphne" else None
            if least is None:
                table.add(f"{server}: POST /api/jobs / the bare view", f"{median(ratios):.2f}")
            else:
                table.at_least(f"{server}: POST /api/jobs / the bare view", median(ratios), least)
            table.add("    rounds", rounds(ratios, 2))
            for name, rates in found.items():
                table.add(f"    {name}, posts/s", f"{median(rates):,.0f} {rounds(rates)}")
    with connection.cursor() as cursor:
        cursor.execute("drop table bench_row")
    return table


def _rounds(ground: Ground, server: str, count: int, round_count: int) -> dict[str, list[float]]:
    """Posts a second of each road."""
    found: dict[str, list[float]] = {name: [] for name in ROADS}
    with ground.web(server, DJANGO_SETTINGS_MODULE="tests.bench.bare_settings") as url:
        for number in range(round_count + 1):
            progress(f"posts: {server}, round {number} of {round_count}")
            for name in ROADS:
                rate = _posts_per_s(ground, name, url, count if number else 100)
                if number:  # the first warms up
                    found[name].append(rate)
    return found


def _posts_per_s(ground: Ground, name: str, url: str, count: int) -> float:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]})
    command = ["tests.bench.poster", url + ROADS[name], ground.key, str(count), str(CONNECTIONS)]
    done = run_json(command, given=body)
    status = OURS_STATUS if name == "ours" else BARE_STATUS
    if done["statuses"] != {status: count}:
        raise RuntimeError(f"expected {count} answers {status} of {ROADS[name]}, got {done['statuses']}")
    return count / float(done["took_s"])
