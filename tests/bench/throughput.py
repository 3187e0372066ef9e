"""Calls of no latency through the whole queue, beside a plain loop of the SDK's client: same simulator, same slots.

Ours counts from before the first row is submitted until the last job has settled: one worker process, 64 slots, jobs
submitted in bulk by a process beside it. The loop is a process too. They run in turns.
"""

import time

from llmjobs.models import Job
from tests.bench.ground import Ground, jobs_of, last_job_id, run_json
from tests.bench.report import Table, median, progress, rounds

SLOTS = 64
TOKENS = 50
CALLS = {"without streaming": 2_000, "streaming 50 tokens": 800}
LEAST = {"without streaming": 0.9, "streaming 50 tokens": 2.0}


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table(f"Calls a second through the queue, beside a plain AsyncOpenAI loop ({SLOTS} at once)")
    round_count = 3 if is_quick else 5
    with ground.worker(SLOTS):
        for name, calls in CALLS.items():
            is_stream, calls = name.startswith("streaming"), calls // 4 if is_quick else calls
            _ours(ground, SLOTS, is_stream=is_stream)  # warm
            ours, loops = [], []
            for number in range(1, round_count + 1):
                progress(f"throughput {name}: round {number} of {round_count}")
                loops.append(_loop(ground, calls, is_stream=is_stream))
                ours.append(_ours(ground, calls, is_stream=is_stream))
            ratios = [mine / theirs for mine, theirs in zip(ours, loops, strict=True)]
            table.at_least(f"{name}: ours / plain loop", median(ratios), LEAST[name])
            table.add("    ours, calls/s", f"{median(ours):,.0f} {rounds(ours)}")
            table.add("    plain loop, calls/s", f"{median(loops):,.0f} {rounds(loops)}")
            table.add("    rounds", rounds(ratios, 2))
    return table


def _prompt() -> str:
    return f"Say something. [[tokens={TOKENS}]]"


def _ours(ground: Ground, calls: int, *, is_stream: bool) -> float:
    jobs, before = jobs_of(calls, _prompt(), stream=is_stream), last_job_id()
    began_at = time.time()
    ground.submit(jobs)
    ground.wait_until_completed(calls, before)
    last = Job.objects.filter(id__gt=before, finished_at__isnull=False).order_by("-finished_at").first()
    if last is None or last.finished_at is None:
        raise RuntimeError("expected finished jobs")
    return calls / (last.finished_at.timestamp() - began_at)


def _loop(ground: Ground, calls: int, *, is_stream: bool) -> float:
    command = ["tests.bench.plain_loop", ground.simulator.url, str(calls), str(SLOTS), _prompt()]
    took_s = run_json([*command, "stream"] if is_stream else command)["took_s"]
    return calls / float(took_s)
