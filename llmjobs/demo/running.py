"""A load on its way: each job submitted at its time, all followed live over the feed of its client, to the last end.

Owns the threads that do it and what they saw. Does not own what a job cost or how long it waited: `summary.py` reads
the ledger. Invariant: a job that was accepted is counted until it has ended; what the feed should miss is asked for.
"""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from llmjobs.demo.client import Api, Event
from llmjobs.demo.load import Arrival
from llmjobs.models import Job
from llmjobs.states import TERMINAL, EventType, State

SUBMITTERS = 8
LOOK_EVERY_S = 0.1
SILENCE_S = 3.0  # without news for so long, the database is asked


@dataclass(slots=True)
class Seen:
    """What was submitted and seen so far, by job. `late_s`: how much later than its time each was taken in."""

    clients: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)  # of the last event by job: a feed that is resumed repeats some
    late_s: list[float] = field(default_factory=list)
    event_count: int = 0
    differing: int = 0  # jobs whose streamed text is not the one that is stored
    news_at: float = field(default_factory=time.monotonic)

    def counts(self) -> dict[str, Counter[str]]:
        """By client, how many jobs are in each state; one of which nothing was heard is queued."""
        found: dict[str, Counter[str]] = {}
        for job, client in self.clients.items():
            found.setdefault(client, Counter())[self.states.get(job, State.QUEUED)] += 1
        return found

    def left(self) -> list[str]:
        return [job for job in self.clients if self.states.get(job) not in TERMINAL]


class Run:
    """`keys` has an API key for each client of the arrivals."""

    def __init__(self, url: str, keys: Mapping[str, str], arrivals: Sequence[Arrival]) -> None:
        self._url, self._keys, self._arrivals = url, keys, sorted(arrivals, key=lambda arrival: arrival.at_s)
        self._lock = threading.Lock()
        self._seen = Seen()
        self._todo: SimpleQueue[tuple[int, Arrival]] = SimpleQueue()
        self._errors: SimpleQueue[Exception] = SimpleQueue()
        self._name = secrets.token_hex(8)  # of this run, for idempotency keys
        self.planned = Counter(arrival.client for arrival in arrivals)
        self.took_s = 0.0

    def run(self, show: Callable[[float, dict[str, Counter[str]]], None]) -> Seen:
        """Until every job has ended. `show` is told now and then how it stands. Raises ApiError, OSError."""
        since_ms = int(time.time() * 1000) - 1000
        for client in self.planned:
            self._thread(self._follow, client, since_ms)
        for numbered in enumerate(self._arrivals):
            self._todo.put(numbered)
        self._began_at = time.monotonic()
        submitters = [self._thread(self._submit) for _ in range(SUBMITTERS)]
        while True:
            is_submitted = not any(thread.is_alive() for thread in submitters)
            if not self._errors.empty():
                raise self._errors.get()
            with self._lock:
                counts, left, silent_s = self._seen.counts(), self._seen.left(), time.monotonic() - self._seen.news_at
            self.took_s = time.monotonic() - self._began_at
            show(self.took_s, counts)
            if is_submitted and not left:
                return self._seen
            if silent_s > SILENCE_S:
                self._ask(left)
            time.sleep(LOOK_EVERY_S)

    def _submit(self) -> None:
        apis = {client: Api(self._url, self._keys[client]) for client in self.planned}
        try:
            while True:
                number, arrival = self._todo.get_nowait()
                time.sleep(max(0.0, self._began_at + arrival.at_s - time.monotonic()))
                job = apis[arrival.client].submit(arrival.job, f"demo-{self._name}-{number}")
                late_s = time.monotonic() - self._began_at - arrival.at_s
                with self._lock:
                    self._seen.clients[job["id"]] = arrival.client
                    self._seen.late_s.append(late_s)
        except Empty:
            pass
        finally:
            for api in apis.values():
                api.close()

    def _follow(self, client: str, since_ms: int) -> None:
        for event in Api(self._url, self._keys[client]).follow(f"/api/events?since={since_ms}"):
            with self._lock:
                self._note(event)

    def _note(self, event: Event) -> None:
        seen, job, data = self._seen, event.data["job"], event.data["data"]
        if event.data["seq"] <= seen.seqs.get(job, -1):
            return
        seen.seqs[job] = event.data["seq"]
        seen.event_count += 1
        seen.news_at = time.monotonic()
        match event.type:
            case EventType.STATUS:
                seen.states[job] = data["status"]
            case EventType.DELTA:
                seen.texts[job] = seen.texts.get(job, "") + data["text"]
            case EventType.RESET:
                seen.texts[job] = ""
            case EventType.DONE:
                seen.states[job] = data["status"]
                seen.differing += seen.texts.pop(job, "") != data.get("output_text", "")

    def _ask(self, jobs: Sequence[str]) -> None:
        found = Job.objects.filter(public_id__in=jobs).values_list("public_id", "state")
        with self._lock:
            self._seen.news_at = time.monotonic()
            self._seen.states.update({str(public_id): state for public_id, state in found})

    def _thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        def work() -> None:
            try:
                target(*arguments)
            except Exception as error:  # told to the main thread, which ends the run
                self._errors.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread
