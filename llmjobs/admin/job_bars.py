"""Where an attempt's time went, as a bar: in the queue, until it was sent, at the provider, then back again.

Pure: attempts in, bars out. The SVG has classes and no style; admin_job.css gives them colours, and words beside each
bar say the same. All bars of a job have one scale, the longest one's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llmjobs.admin.cells import badge, duration
from llmjobs.models import Attempt, Job
from llmjobs.states import State

WIDTH, HEIGHT = 600, 14
LEAST = 3.0  # what took any time at all can be seen
BARS_MAX = 20
LEGEND = (
    ("wait", "in the queue"), ("hold", "until sent"), ("first", "until the first token"), ("answer", "answering"),
    ("back", "until it was queued again"),
)  # fmt: skip
WORDS = {
    "wait": "{} in the queue", "hold": "sent {} later", "first": "first token after {}", "answer": "{} of answer",
    "call": "{} at the provider", "back": "queued again after {}", "due": "queued again in {}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    kind: str
    length_s: float


@dataclass(frozen=True, slots=True)
class Bar:
    title: str
    outcome: SafeString
    words: str
    svg: SafeString


def bars(job: Job, attempts: Sequence[Attempt], now: datetime) -> list[Bar]:
    """Of the newest attempts, oldest first, and of what waits now. `now` is the database's."""
    rows = sorted(attempts, key=lambda row: row.number)[-BARS_MAX:]
    followers = [*rows[1:], None][: len(rows)]
    found = [
        (f"Attempt {row.number}", badge(row.outcome or "in flight"), list(_parts(row, after, job, now)))
        for row, after in zip(rows, followers, strict=True)
    ]
    if job.state == State.QUEUED and now > job.available_at:
        found.append(("Now", badge(job.state), [Part("wait", (now - job.available_at).total_seconds())]))
    longest = max((sum(part.length_s for part in parts) for _, _, parts in found), default=0.0) or 1.0
    return [
        Bar(title, outcome, words, _svg(f"{title}: {words}", parts, longest))
        for title, outcome, parts in found
        for words in [", ".join(_words(parts)) or "no time at all"]
    ]


def _parts(row: Attempt, after: Attempt | None, job: Job, now: datetime) -> Iterator[Part]:
    yield Part("wait", row.waited_s)
    until = row.ended_at or now
    if row.sent_at is None:
        yield Part("call", _between(row.claimed_at, until))
    else:
        yield Part("hold", _between(row.claimed_at, row.sent_at))
        if row.first_token_at is None:
            yield Part("call", _between(row.sent_at, until))
        else:
            yield Part("first", _between(row.sent_at, row.first_token_at))
            yield Part("answer", _between(row.first_token_at, until))
    if row.ended_at is None:
        return
    if after is not None:
        yield Part("back", _between(row.ended_at, after.claimed_at - timedelta(seconds=after.waited_s)))
    elif job.state == State.SCHEDULED:
        yield Part("due", _between(row.ended_at, job.available_at))


def _between(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())


def _words(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if part.length_s >= 0.05:
            yield WORDS[part.kind].format(duration(timedelta(seconds=part.length_s)))


def _svg(title: str, parts: Sequence[Part], longest_s: float) -> SafeString:
    shapes, x = [], 0.0
    room = WIDTH - LEAST * len(parts)
    for part in parts:
        if part.length_s > 0:
            width = LEAST + part.length_s / longest_s * room
            shapes.append((f"{x:.1f}", f"{width:.1f}", HEIGHT, part.kind))
            x += width
    return format_html(
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}" class="llmjobs-bar">{}</svg>',
        *(WIDTH, HEIGHT, title),
        format_html_join("", '<rect x="{}" y="0" width="{}" height="{}" class="llmjobs-part-{}"/>', shapes),
    )
