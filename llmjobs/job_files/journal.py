"""The journal of a run: which line became which job. It stands beside the results, and is what a rerun goes by.

Owns what is remembered, and the keys of lines that have none. Invariant: the run's name is on disk before anything is
submitted under it, and every key of the run holds it. So a line whose job was committed and not noted yet, by whoever
was killed in between, is found by its key, however long ago that was (`began_at`: intake.py's `since`).
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.utils.dateparse import parse_datetime

from llmjobs.job_files.appended import Appended, FileRefused

BEGINS = (b'{"run":', b"[")
FINGERPRINT_CHARS = 16  # of a submission's: enough to see that a line is another


@dataclass(frozen=True, slots=True)
class Noted:
    job_id: int
    public_id: str
    fingerprint: str


class Journal:
    """`now`: the database's time, where this begins a run. Raises FileRefused."""

    def __init__(self, path: Path, *, client: str, now: datetime) -> None:
        self.path = path
        self.lines: dict[int, Noted] = {}
        self._file = Appended(path, BEGINS)
        try:
            head = self._read()
            self.is_new = head is None
            if head is None:
                head = {"run": secrets.token_hex(8), "client": client, "began_at": now.isoformat()}
                self._file.add([json.dumps(head).encode()])
            if head["client"] != client:
                raise FileRefused(f"{path} is of a run for the client {head['client']!r}, not for {client!r}")
        except BaseException:
            self._file.close()
            raise
        self.run: str = head["run"]
        began_at = parse_datetime(head["began_at"])
        if began_at is None:
            raise FileRefused(f"{path} begins with no time: {head['began_at']!r}")
        self.began_at = began_at

    def key(self, number: int) -> str:
        return f"submitjobs:{self.run}:{number}"

    def has(self, number: int, fingerprint: str) -> bool:
        """Whether that line is a job already. Raises FileRefused if it was another line then."""
        noted = self.lines.get(number)
        if noted is not None and noted.fingerprint != fingerprint[:FINGERPRINT_CHARS]:
            self.refuse_changed(number)
        return noted is not None

    def refuse_changed(self, number: int) -> None:
        raise FileRefused(
            f"line {number} is not what was submitted as line {number} (or --model or --priority is another): expected "
            f"the file that {self.path} is of. New lines may follow at its end; for another file give another --state"
        )

    def note(self, taken: Iterable[tuple[int, int, str, str]]) -> None:
        """Number, job's id, its public one, and the submission's fingerprint, a line."""
        rows = [(number, job, public, fingerprint[:FINGERPRINT_CHARS]) for number, job, public, fingerprint in taken]
        self._file.add(json.dumps(row).encode() for row in rows)
        self._remember(rows)

    def close(self) -> None:
        self._file.close()

    def _read(self) -> dict[str, str] | None:
        head: dict[str, str] | None = None
        for line in self._file.lines():
            try:
                found = json.loads(line)
                if isinstance(found, dict):
                    head = found
                else:
                    self._remember([found])
            except ValueError:
                raise FileRefused(f"{self.path} has a line that is no JSON: {line[:40]!r}") from None
        return head

    def _remember(self, rows: Iterable[tuple[int, int, str, str]]) -> None:
        for number, job_id, public_id, fingerprint in rows:
            self.lines[number] = Noted(job_id, public_id, fingerprint)
