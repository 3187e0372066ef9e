"""Jobs as lines of JSON (JSON Lines): each line the fields of POST /api/jobs, and an `idempotency_key` of its own.

Owns what a line is: where it ends, how long it may be, what stands in it. Does not own what becomes of it (intake.py).
Invariant: a line that is none is an error of its own, with its number, and no other line's; and no more of a file is
held than one line of at most `conf.body_max_bytes`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from llmjobs import strict_json, submissions
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, RequestTooLarge
from llmjobs.submissions import Submission

BOM = b"\xef\xbb\xbf"
BATCH_BYTES = 1024 * 1024  # of lines that are held at once, and one more
SKIPPED_BYTES = 65_536  # of a line that is too long, at once


@dataclass(frozen=True, slots=True)
class JobLine:
    """`number`: in its file, from 1. `size`: in bytes."""

    number: int
    asked: Submission | InvalidRequest
    key: str | None
    size: int


def read(file: IO[bytes], defaults: Mapping[str, Any] | None = None) -> Iterator[JobLine]:
    """The lines from where the file stands, without blank ones, which count. `defaults`: of fields left out."""
    for number, raw, is_cut in _numbered(file):
        text = (raw.removeprefix(BOM) if number == 1 else raw).strip(b" \t\r\n")
        if is_cut or len(text) > conf.body_max_bytes:
            yield JobLine(number, _too_long(), None, len(raw))
        elif text:
            yield _parsed(number, text, defaults or {})


def batch(lines: Iterator[JobLine], *, most: int) -> list[JobLine]:
    """The next lines, up to `most`, or until they have passed BATCH_BYTES. Empty: there are no more."""
    taken, size = list[JobLine](), 0
    while len(taken) < most and size <= BATCH_BYTES and (line := next(lines, None)) is not None:
        taken.append(line)
        size += line.size
    return taken


def _numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Of a line that is too long its beginning, and that it was cut."""
    most = int(conf.body_max_bytes) + len(BOM) + len(b"\r\n")
    number = 0
    while raw := file.readline(most):
        number += 1
        is_cut = len(raw) == most and not raw.endswith(b"\n")
        yield number, raw, is_cut
        while is_cut and raw and not raw.endswith(b"\n"):
            raw = file.readline(SKIPPED_BYTES)


def _parsed(number: int, text: bytes, defaults: Mapping[str, Any]) -> JobLine:
    key = None
    try:
        fields = strict_json.parse_object(text, "line")
        fields |= {name: value for name, value in defaults.items() if fields.get(name) is None}
        key = fields.pop("idempotency_key", None)
        if key is not None:
            submissions.check_idempotency_key(key)
        return JobLine(number, submissions.parse(fields), key, len(text))
    except InvalidRequest as error:
        return JobLine(number, error, None, len(text))


def _too_long() -> RequestTooLarge:
    return RequestTooLarge(f"The line may have {conf.body_max_bytes} bytes, and has more.", code="request_too_large")
