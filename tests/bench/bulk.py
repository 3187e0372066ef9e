"""POST /api/jobs/bulk over HTTP: 10,000 lines, timed from the first byte sent to the last one answered, each with a key
of its own; beside single posts in the same run, over a connection that stays open. And what the web process holds.

A worker of another pool does the duties that a site's workers do, and runs none of the jobs.
"""

import http.client
import json
import time
from urllib.parse import urlsplit

from llmjobs.models import Model
from tests.bench.ground import MODEL, Ground
from tests.bench.memory import _mib
from tests.bench.report import Table, median, progress, rounds

LINES, LINE_BYTES, LONG_LINE_BYTES = 10_000, 500, 6_000
WITHIN_S = 3.0
ELSEWHERE = "elsewhere-of-bulk"
BULK = "application/jsonl"


def measure(ground: Ground, *, is_quick: bool) -> Table:
    lines, round_count, posts = (2_000, 1, 50) if is_quick else (LINES, 5, 500)
    table = Table(f"POST /api/jobs/bulk: {lines:,} lines of {LINE_BYTES} bytes, each with a key")
    Model.objects.create(name=ELSEWHERE, provider=ground.model.provider)
    with ground.worker(1, pools=ELSEWHERE), ground.web_process() as (url, web):
        idle_mib = _mib(web.pid, "VmRSS")
        _send(ground, url, [_line(LINE_BYTES, f"warm-{n}") for n in range(100)])
        taken_s = []
        for number in range(round_count):
            progress(f"bulk: round {number + 1} of {round_count}")
            taken_s.append(_send(ground, url, [_line(LINE_BYTES, f"{number}-{n}") for n in range(lines)]))
        single_s = _posts(ground, url, posts)
        usual_mib = _mib(web.pid, "VmHWM")
        progress("bulk: long lines")
        long_s = _send(ground, url, [_line(LONG_LINE_BYTES, f"long-{n}") for n in range(lines)])
        most_mib = _mib(web.pid, "VmHWM")
    table.at_most("from the first byte to the last answer", median(taken_s), WITHIN_S * lines / LINES, "s", digits=2)
    table.add("    rounds", rounds(taken_s, 2))
    table.add("lines/s", f"{lines / median(taken_s):,.0f}")
    table.add("    single posts/s, one after the other", f"{posts / single_s:,.0f}")
    table.add("the web process idle, at most", f"{idle_mib:.0f}, {usual_mib:.0f} MiB")
    megabytes = lines * LONG_LINE_BYTES / 1_000_000
    table.add(f"    after a body of {megabytes:.0f} MB, in {long_s:.1f} s", f"{most_mib:.0f} MiB")
    return table


def _line(size: int, key: str) -> bytes:
    """A submission of exactly `size` bytes."""
    fields = {"model": MODEL, "messages": [{"role": "user", "content": ""}], "idempotency_key": key}
    empty = json.dumps(fields).encode()
    return empty.replace(b'"content": ""', b'"content": "' + b"x" * (size - len(empty)) + b'"')


def _send(ground: Ground, url: str, lines: list[bytes]) -> float:
    """Seconds. Every line must have been taken."""
    body = b"\n".join(lines) + b"\n"
    began_at = time.perf_counter()
    status, answer = _ask(_connection(url), ground.key, "/api/jobs/bulk", BULK, body)
    took_s = time.perf_counter() - began_at
    if status != 200 or answer.count(b'"status":"queued"') != len(lines):
        raise RuntimeError(f"expected {len(lines)} jobs, got {status}: {answer[-500:]!r}")
    return took_s


def _posts(ground: Ground, url: str, count: int) -> float:
    """Seconds."""
    server = _connection(url)
    fields = {"model": MODEL, "messages": [{"role": "user", "content": "x" * (LINE_BYTES - 100)}]}
    began_at = time.perf_counter()
    for _ in range(count):
        status, answer = _ask(server, ground.key, "/api/jobs", "application/json", json.dumps(fields).encode())
        if status != 202:
            raise RuntimeError(f"expected 202, got {status}: {answer[:500]!r}")
    return time.perf_counter() - began_at


def _connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)


def _ask(server: http.client.HTTPConnection, key: str, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
    server.request("POST", path, body, {"Authorization": f"Bearer {key}", "Content-Type": kind})
    response = server.getresponse()
    return response.status, response.read()
