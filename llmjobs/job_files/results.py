"""The results of a run, as JSON Lines: a job a line as `GET /api/jobs/{id}` shows it, with the number of its line.

They come in the order in which the jobs ended. Owns which lines have their result. Invariant: a result is written once,
and whole.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmjobs.job_files.appended import Appended, FileRefused
from llmjobs.job_files.journal import Noted

BEGINS = (b'{"line": ',)
WRITTEN = re.compile(rb'\{"line": (\d+), "id": "([^"]+)", "object": "job", "status": "(\w+)"')
COMPLETED = "completed"


class Results:
    """`failed`: by the line's number, why its job did not complete. Raises FileRefused."""

    def __init__(self, path: Path, noted: Mapping[int, Noted]) -> None:
        self.failed: dict[int, str] = {}
        self.done: set[int] = set()
        self._file = Appended(path, BEGINS)
        try:
            for line in self._file.lines():
                self._read(line, noted)
        except BaseException:
            self._file.close()
            raise

    def add(self, results: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """The line's number, and its job as representation.py shows it."""
        lines = []
        for number, job in results:
            lines.append(_written({"line": number, **job}))
            self._remember(number, job)
        self._file.add(lines)

    def close(self) -> None:
        self._file.close()

    def _read(self, line: bytes, noted: Mapping[int, Noted]) -> None:
        found = WRITTEN.match(line)
        if found is None:
            raise FileRefused(f"{self._file.path} has a line that is no result: {line[:60]!r}")
        number, public_id, status = int(found[1]), found[2].decode(), found[3].decode()
        if number not in noted or noted[number].public_id != public_id:
            raise FileRefused(
                f"{self._file.path} has results of another run: expected another --out, or that it is moved"
            )
        self._remember(number, {"status": status} if status == COMPLETED else json.loads(line))

    def _remember(self, number: int, job: Mapping[str, Any]) -> None:
        self.done.add(number)
        if job["status"] != COMPLETED:
            self.failed[number] = why(job)


def _written(result: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(result, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a model's half of a surrogate pair is no UTF-8
        return json.dumps(result).encode()


def why(job: Mapping[str, Any]) -> str:
    error = job.get("error")
    return f"{job['status']}: {error['code']}: {error['message']}" if error else str(job["status"])
