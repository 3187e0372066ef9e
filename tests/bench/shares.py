"""Shares in tokens: tiers 16 : 4 : 1, in each clients of weights 3 : 1, all backlogged; `race.py` says how they run.

Then the neighbour of a flood: a client with one job at a time, alone and beside one with 100,000 queued.
"""

import asyncio

from tests.bench import databases
from tests.bench.backlog import Backlog
from tests.bench.flood import Flood
from tests.bench.ground import Ground
from tests.bench.race import Count, Race
from tests.bench.report import Table, median, progress

MOST_ERROR = {5_000: 0.03, 50_000: 0.01}
JAIN = 0.99
WITHOUT = 5_000  # jobs of the race whose settles correct nothing
FLOOD, TURNS, ROUNDS, MOST_TIMES = 100_000, 20, 3, 1.2


def measure(ground: Ground, *, is_quick: bool) -> Table:
    marks = [200, 400] if is_quick else sorted(MOST_ERROR)
    table = Table(f"Shares in settled tokens: 8 workers, claims of 1, over {marks[-1]:,} jobs")
    progress(f"shares: {marks[-1]:,} jobs")
    race = _race(marks, is_corrected=True)
    for mark in marks:
        _add_shares(table, race.marks[mark], MOST_ERROR.get(mark))
    jain = race.marks[marks[-1]].jain()
    if is_quick:
        table.add("Jain's index of equal clients, the least", f"{jain:.4f}")
    else:
        table.at_least("Jain's index of equal clients, the least", jain, JAIN, digits=4)
    gap = race.gap_over_bound()
    table.at_most("largest gap of two clients, of its bound d(C/w + E/w)", gap, 1.0, "times", digits=2)
    table.add("    d, C, E", f"{race.most_held}, {race.dearest:,.0f}, {race.largest_estimate:,.0f} tokens")
    table.at_most("jobs claimed twice", race.twice, 0, "", digits=0)
    without = marks[-1] if is_quick else WITHOUT
    progress(f"shares: {without:,} jobs without the correction at settle")
    other = _race([without], is_corrected=False)
    table.add("the gap when settle corrects nothing, of its bound", f"{other.gap_over_bound():.2f} times")
    worst = max(map(abs, other.count.tier_errors().values()))
    table.add("    and the worst error of a tier", f"{worst:.1%}")
    _add_flood(table, is_quick=is_quick)
    return table


def _race(marks: list[int], *, is_corrected: bool) -> Race:
    race = Race(Backlog.new(), is_corrected=is_corrected)
    race.fill(marks[-1])
    race.backlog.analyze()
    asyncio.run(race.run(marks))
    race.backlog.drop()
    return race


def _add_shares(table: Table, count: Count, most: float | None) -> None:
    errors = count.tier_errors()
    worst = max(map(abs, errors.values()))
    name = f"worst error of a tier's tokens over {count.jobs:,} jobs"
    if most is None:
        table.add(name, f"{worst:.2%}")
    else:
        table.at_most(name, 100 * worst, 100 * most, "%", digits=2)
    table.add("    by tier", ", ".join(f"{tier} {error:+.2%}" for tier, error in errors.items()))


def _add_flood(table: Table, *, is_quick: bool) -> None:
    flood = Flood(Backlog.new(), 2_000 if is_quick else FLOOD)
    progress(f"shares: one job at a time beside {flood.jobs:,} queued")
    with databases.using(flood.backlog.database):
        flood.prepare()
        times = asyncio.run(flood.run(turns=5 if is_quick else TURNS, rounds=1 if is_quick else ROUNDS))
    flood.backlog.drop()
    alone, beside = times[True], times[False]
    ratio = median(took.answer_ms for took in beside) / median(took.answer_ms for took in alone)
    name = f"one job at a time beside {flood.jobs:,} of another: to its answer, against alone"
    table.at_most(name, ratio, MOST_TIMES, "times", digits=2)
    for words, some in (("alone", alone), ("beside", beside)):
        waited, answered = median(took.wait_ms for took in some), median(took.answer_ms for took in some)
        table.add(f"    {words}, until its start and until its answer, p50", f"{waited:.1f}, {answered:.1f} ms")
