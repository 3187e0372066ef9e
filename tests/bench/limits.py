"""How much of a provider's limits is used, and how often it says no, beside the limiters that people write themselves.

Requests: a saturating load, one call in thirty failing, against each way in which the simulator counts; four worker
processes and one, each with a pool of its own, and then the peers with theirs, at the same simulator. Tokens:
`token_limits.py`. What limits and shares cost a job without a provider: `unlimited.py`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from llmjobs.submissions import Submission, parse
from tests.bench import token_limits, unlimited
from tests.bench.ground import ROOT, Ground
from tests.bench.limited import LimitedSite, Span, limited_site, reading
from tests.bench.report import Table, progress

RPM = 600
TPM = 100_000_000
LEAST = {"sliding": 97, "fixed": 97, "bucket": 97, "second": 88}  # percent
WORKERS = (4, 1)
FAILING = {"fault": "server_error", "fail_rate": 0.03}
PEERS = {
    "window": "a window of a minute from the first call on",
    "bucket": "a token bucket a process",
    "none": "no limiter, retries",
}
SPAN, QUICK_SPAN = Span(5, 180), Span(5, 20)
PEERS_SPAN, PEERS_QUICK_SPAN = Span(5, 120), Span(5, 5)  # whole minutes: one of them sends all at a minute's beginning


def measure(ground: Ground, *, is_quick: bool) -> Table:
    span = QUICK_SPAN if is_quick else SPAN
    table = Table(f"A provider's limits, used and overrun; {span.for_s:g} s each, workers are processes")
    for window in LEAST:
        _add_window(table, ground, window, span, is_quick=is_quick)
    token_limits.add(table, ground, is_quick=is_quick)
    unlimited.add(table, ground, is_quick=is_quick)
    return table


def _add_window(table: Table, ground: Ground, window: str, span: Span, *, is_quick: bool) -> None:
    counts = WORKERS[:1] if is_quick else WORKERS
    with limited_site(ground, window=window, rpm=RPM, tpm=TPM, ttft_ms=300, **FAILING) as site:
        progress(f"limits: {RPM} requests a minute, {window}")
        load = _run_ours(site, window, span, counts)
        _add_ours(table, site, window, span, counts)
        if not is_quick or window == "sliding":
            peers_span = PEERS_QUICK_SPAN if is_quick else PEERS_SPAN
            progress(f"limits: {RPM} requests a minute, {window}, other limiters")
            _run_peers(site, peers_span, counts)
            _add_peers(table, site, peers_span, counts)
    table.add("    load of the machine", f"{load:.1f}")


def _run_ours(site: LimitedSite, window: str, span: Span, counts: Sequence[int]) -> float:
    """The load of the machine at its end."""
    [client] = site.add_clients(["bench"])
    pools = {_ours(count): count for count in counts}
    for pool in pools:
        site.add_pool(pool, rpm=RPM, tpm=TPM, window="second" if window == "second" else "minute")
    with site.workers(pools):
        for pool in pools:
            site.submit(_load(pool, span), client)
        site.wait(span)
        return os.getloadavg()[0]


def _add_ours(table: Table, site: LimitedSite, window: str, span: Span, counts: Sequence[int]) -> None:
    ledger = site.simulator.ledger()
    for count in counts:
        found = reading(ledger, _ours(count), span)
        name = f"{window}, {count} {'worker' if count == 1 else 'workers'}: of {RPM} requests a minute used"
        table.at_least(name, 100 * found.requests_used(RPM), LEAST[window], " %")
        table.at_most(f"    refused (429), of {found.sends:,} sends", found.refusals, 0, "", digits=0)


def _run_peers(site: LimitedSite, span: Span, counts: Sequence[int]) -> None:
    with _peers(site, span, counts) as processes:
        for process in processes:
            if process.stdin is not None:
                process.stdin.write("go\n")
                process.stdin.flush()
        site.wait(span)


def _add_peers(table: Table, site: LimitedSite, span: Span, counts: Sequence[int]) -> None:
    ledger = site.simulator.ledger()
    for kind, words in PEERS.items():
        both = [reading(ledger, _theirs(kind, count), span) for count in counts]
        shown = "; ".join(
            f"{found.requests_used(RPM):.0%}, {found.refusals:,} of {found.sends:,} refused" for found in both
        )
        table.add(f"    {words}, {' and '.join(map(str, counts))}", shown)


def _load(pool: str, span: Span) -> list[Submission]:
    """More than its limit can take."""
    body = {"messages": [{"role": "user", "content": "Say something. [[tokens=20]]"}], "stream": False}
    return [parse({"model": pool, "body": body})] * int(RPM / 60 * (span.after_s + span.for_s) * 1.2)


@contextmanager
def _peers(site: LimitedSite, span: Span, counts: Sequence[int]) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that are ready."""
    with ExitStack() as stack:
        processes = [_peer(site, span, kind, count) for kind in PEERS for count in counts for _ in range(count)]
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        for process in processes:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError(f"expected a limiter to be ready, it ended with {process.wait()}")
        yield processes


def _peer(site: LimitedSite, span: Span, kind: str, count: int) -> "subprocess.Popen[str]":
    """One of so many that share the limit."""
    given = [kind, site.simulator.url, _theirs(kind, count), f"{RPM / count}", f"{span.after_s + span.for_s}"]
    command = [sys.executable, "-m", "tests.bench.limiters", *given]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ours(count: int) -> str:
    return f"ours-{count}"


def _theirs(kind: str, count: int) -> str:
    return f"{kind}-{count}"
