"""The ledger: every call that the simulator saw, how it ended, and what it cost.

Owns the entries and their file. Does not decide an outcome: who plays an answer closes its entry.
Invariant: an entry is made before the first byte of an answer and closed exactly once. With a file each entry
is written when it is opened and again when it is closed, and flushed, so that a killed simulator leaves what
it had begun: after a restart with the same file those calls say `simulator_killed`.

What is counted as paid: a call that was answered with an error status costs nothing; any other has its input
tokens, and the output tokens that were sent before it ended. A response in the background is one call, which ends when
the response does: what was generated is paid, whoever watched (`generations.py`).
"""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

ENTRIES_MAX = 1_000_000  # some 400 bytes each; beyond it the oldest go, and `dropped` says how many

RUNNING = "running"
COMPLETED = "completed"
CANCELLED = "cancelled"  # of a response in the background
CLIENT_DISCONNECTED = "client_disconnected"
SIMULATOR_STOPPED = "simulator_stopped"
SIMULATOR_KILLED = "simulator_killed"

_FIELDS = (
    "n",  # its number, from 1, in the order of arrival
    "at",  # when it was read, in seconds of the Unix clock; the same as started_at
    "started_at",
    "ended_at",  # when the last byte was written, or the disconnect noticed; null while it runs
    "key",  # a hash of the API key, never the key
    "model",
    "endpoint",
    "stream",
    "outcome",  # completed, the name of a fault, client_disconnected, running, …
    "fault",  # the fault that was ordered for it, whatever became of it
    "status",  # 0: no status line was sent
    "input_tokens",
    "output_tokens",
    "request_id",
    "client_request_id",  # the X-Client-Request-Id header
)


class Entry:
    """One call. Changed in place until it is closed, so that the ledger keeps the order of arrival."""

    __slots__ = _FIELDS

    def __init__(
        self, n: int, at: float, key: str, endpoint: str, request_id: str, client_request_id: str | None
    ) -> None:
        self.n = n
        self.at = self.started_at = at
        self.ended_at: float | None = None
        self.key = key
        self.model = ""
        self.endpoint = endpoint
        self.stream = False
        self.outcome = RUNNING
        self.fault: str | None = None
        self.status = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.request_id = request_id
        self.client_request_id = client_request_id

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}


class Ledger:
    def __init__(self, path: Path | None = None, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: deque[Entry] = deque(maxlen=entries_max)
        self._last_n = 0  # numbers are never given twice, not even after `clear`
        self._cleared_n = 0
        self._file: TextIO | None = None
        if path is not None:
            self._load(path)
            self._file = path.open("a", encoding="utf-8")

    def open_entry(self, at: float, key: str, endpoint: str, request_id: str, client_request_id: str | None) -> Entry:
        self._last_n += 1
        entry = Entry(self._last_n, at, key, endpoint, request_id, client_request_id)
        self._entries.append(entry)
        return entry

    def began(self, entry: Entry) -> None:
        """What is asked for is known now (or that it can't be read): nothing has been sent yet."""
        self._write(entry)

    def close_entry(self, entry: Entry, at: float, outcome: str, output_tokens: int) -> None:
        entry.ended_at, entry.outcome, entry.output_tokens = at, outcome, output_tokens
        self._write(entry)

    def page(self, after: int = 0, limit: int | None = None) -> dict[str, Any]:
        """The calls with a number above `after`, at most `limit` of them, in the order of arrival."""
        calls = list(self._after(after, limit))
        total = self._last_n - self._cleared_n
        return {"calls": calls, "total": total, "dropped": total - len(self._entries)}

    def clear(self) -> None:
        """Forget every call. One that still runs is closed later, but no longer listed."""
        self._entries.clear()
        self._cleared_n = self._last_n
        if self._file:
            self._file.truncate(0)

    def close(self) -> None:
        """Close the file; nothing is written after that."""
        if self._file:
            self._file.close()
            self._file = None

    def _after(self, after: int, limit: int | None) -> Iterator[dict[str, Any]]:
        for entry in self._entries:
            if entry.n > after:
                if limit is not None and limit <= 0:
                    return
                limit = None if limit is None else limit - 1
                yield entry.as_dict()

    def _write(self, entry: Entry) -> None:
        if self._file and entry.n > self._cleared_n:
            self._file.write(json.dumps(entry.as_dict()) + "\n")
            self._file.flush()

    def _load(self, path: Path) -> None:
        """Read what an earlier simulator left. A last line that a kill cut off is no entry, and is ended."""
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        latest: dict[int, Entry] = {}
        for line in text.splitlines():
            try:
                entry = _entry_from(json.loads(line))
            except ValueError:
                continue
            latest[entry.n] = entry
        self._entries.extend(latest[n] for n in sorted(latest))
        self._last_n = max(latest, default=0)
        self._cleared_n = self._last_n - len(latest)


def _entry_from(fields: dict[str, Any]) -> Entry:
    entry = Entry.__new__(Entry)
    for name in _FIELDS:
        setattr(entry, name, fields[name])
    if entry.outcome == RUNNING:
        entry.outcome = SIMULATOR_KILLED
    return entry
