"""What it costs to ask, at 1,000,000 jobs: the statistics of the queue, and where a page of jobs stands."""

import time
from collections.abc import Callable

from llmjobs import places, stats
from llmjobs.models import Client, Job
from tests.bench import databases
from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.ground import Ground
from tests.bench.report import Table, median, percentile, progress

CLIENTS, EACH, PAGE = 1_000, 1_000, 20
STATISTICS_MS = 10.0


def measure(ground: Ground, *, is_quick: bool) -> Table:
    clients, each = (100, 100) if is_quick else (CLIENTS, EACH)
    table = Table(f"Asking, at {clients * each:,} jobs of {clients:,} clients")
    progress(f"asking: filling up to {clients * each:,} jobs")
    backlog = Backlog.new()
    backlog.add_clients(clients_of_all_tiers(clients))
    backlog.fill(each)
    backlog.analyze()
    turns = 5 if is_quick else 20
    with databases.using(backlog.database):
        one = [Client.objects.order_by("id").values_list("id", flat=True)[clients // 2]]
        _add(table, "statistics of all", _ms(stats.queue_stats, turns), STATISTICS_MS)
        _add(table, "statistics of one client", _ms(lambda: stats.queue_stats(one), turns), STATISTICS_MS)
        for name, page in (("newest", Job.objects.order_by("-id")[:PAGE]), ("next", Job.objects.order_by("id")[:PAGE])):
            jobs = list(page.select_related("client", "tier", "pool"))
            _add(table, f"places of the {name} {PAGE} jobs", _ms(lambda j=jobs: places.places(j), turns), None)
            _add(
                table,
                "    the same, with the order of starts asked for anew",
                _ms(lambda j=jobs: _anew(j), turns),
                None,
            )
    backlog.drop()
    return table


def _anew(jobs: list[Job]) -> None:
    places._kept.clear()
    places.places(jobs)


def _add(table: Table, name: str, taken_ms: list[float], most: float | None) -> None:
    if most is None:
        table.add(name, f"{median(taken_ms):.1f} ms")
    else:
        table.at_most(name, median(taken_ms), most, "ms")
    table.add("    p95", f"{percentile(taken_ms, 95):.1f} ms")


def _ms(call: Callable[[], object], turns: int) -> list[float]:
    taken = []
    for _ in range(turns + 1):
        began_at = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began_at) * 1000)
    return taken[1:]
