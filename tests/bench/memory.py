"""The resident memory of a worker process with 500 calls in flight, each streaming."""

import time
from pathlib import Path

from llmjobs import queue
from llmjobs.models import Job
from llmjobs.states import State
from tests.bench.ground import Ground, jobs_of, last_job_id
from tests.bench.report import Table, progress

CALLS = 500
MOST_MIB = 300
STREAM_FOR_S = 5.0
PROMPT_CHARS = 4_000


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table(f"A worker with {CALLS} calls in flight")
    prompt = f"[[tokens=20000]] [[tokens_per_s=20]] {'word ' * (PROMPT_CHARS // 5)}"
    before = last_job_id()
    with ground.worker(CALLS) as worker:
        idle_mib = _mib(worker.pid, "VmRSS")
        ground.submit(jobs_of(CALLS, prompt))
        progress(f"memory: {CALLS} calls begin")
        running = Job.objects.filter(id__gt=before, state=State.RUNNING)
        ground.wait_until(lambda: running.count() == CALLS, f"{CALLS} running jobs")
        time.sleep(1 if is_quick else STREAM_FOR_S)
        is_steady = running.count() == CALLS
        table.at_most("resident (VmRSS)", _mib(worker.pid, "VmRSS"), MOST_MIB, "MiB")
        table.at_most("the most it had (VmHWM)", _mib(worker.pid, "VmHWM"), MOST_MIB, "MiB")
        table.add("idle", f"{idle_mib:.1f} MiB")
        table.add("all were running at the end", "yes" if is_steady else "NO")
        worker.kill()
    _cancel_rest(before)
    return table


def _mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"expected {name} in /proc/{pid}/status")


def _cancel_rest(before: int) -> None:
    """The jobs of a worker that was killed would run again in the next part."""
    queue.cancel(list(Job.objects.filter(id__gt=before).values_list("id", flat=True)))
