"""What a provider says beside its answers, as what `sql/report.sql` appends for the fold. Pure.

Owns which outcomes and headers are worth telling to all workers. Does not own what follows: the fold applies it to the
pool's and the account's bucket (`ratelimits.py` has the arithmetic). Invariant: each outcome is told once, by its
end: `signal_of` tells refusals and lies, `from_headers` only what is left, which can't wait for the end.
"""

import time
from dataclasses import dataclass
from typing import Any

from llmjobs.outcomes import QUOTA_CODES, SLOW_DOWN_CODE, Error, Kind, Outcome, Told, is_rate_limit

COUNTS = ("refusals", "slow_downs", "lies", "auth", "forbidden", "quota", "down")
LIMITS = ("requests_limit", "requests_left", "tokens_limit", "tokens_left")
WORDS_CHARS_MAX = 500

# So little left matters: below it a bucket may hold more than the provider would take.
REQUESTS_LEFT, REQUESTS_SHARE, TOKENS_SHARE = 10, 0.05, 0.1


@dataclass(frozen=True, slots=True)
class Signal:
    """Counts of answers, and what was said. `at` is time.monotonic() of what `wait_s` and the limits refer to."""

    at: float
    refusals: int = 0  # rate limits: 429
    slow_downs: int = 0
    lies: int = 0
    auth: int = 0  # 401, or a key that could not be sent
    forbidden: int = 0  # 403
    quota: int = 0
    down: int = 0  # not reached, overloaded, or a server error
    wait_s: float | None = None
    requests_limit: int | None = None
    requests_left: int | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    words: str = ""

    def json(self, now: float) -> dict[str, Any]:
        """For `report.sql`: what was said, and how long ago (`ago_s`). `now` is time.monotonic()."""
        said: dict[str, Any] = {name: count for name in COUNTS if (count := getattr(self, name))}
        said |= {name: value for name in ("wait_s", *LIMITS) if (value := getattr(self, name)) is not None}
        if self.words:
            said["words"] = self.words
        return said | {"ago_s": max(0.0, now - self.at)}


def signal_of(outcome: Outcome, *, at: float | None = None) -> Signal | None:
    """What the end of a call tells; None: nothing. `at`: when it ended, now if it is not said."""
    told, error = outcome.told, outcome.error
    counts = dict.fromkeys(_tells(outcome), 1)
    lies = told.lies if told else 0
    if not (counts or lies):
        return None
    wait_s = outcome.retry_after_s
    if wait_s is None and told is not None:
        wait_s = told.wait_s
    return Signal(
        time.monotonic() if at is None else at,
        **counts,
        lies=lies,
        wait_s=wait_s if counts else None,
        words=_words(error) if error and counts else "",
    )


def from_headers(
    told: Told, *, rpm: float | None = None, tpm: float | None = None, at: float | None = None
) -> Signal | None:
    """What headers tell of the room that is left, if that is little, or of a limit below the believed `rpm`, `tpm`.

    `at`: when the call was sent, not when its headers came. What is left was counted when it arrived there; calls
    that were sent since are not in it, but in our bucket they are.
    """
    said: dict[str, Any] = {}
    limit, left = told.requests_limit, told.requests_left
    least = max(REQUESTS_LEFT, REQUESTS_SHARE * (limit or rpm or 0))
    if left is not None and left <= least:
        said |= {"requests_limit": limit, "requests_left": left}
    if limit is not None and rpm is not None and limit < rpm:
        said["requests_limit"] = limit
    limit, left = told.tokens_limit, told.tokens_left
    if left is not None and left <= TOKENS_SHARE * (limit or tpm or 0):
        said |= {"tokens_limit": limit, "tokens_left": left}
    if limit is not None and tpm is not None and limit < tpm:
        said["tokens_limit"] = limit
    return Signal(time.monotonic() if at is None else at, **said) if said else None


def merged(a: Signal, b: Signal) -> Signal:
    """Both as one: sums of counts, the longest wait as of the later, the later's limits and words where it has any."""
    earlier, later = (a, b) if a.at <= b.at else (b, a)
    waits_s = [later.wait_s, None if earlier.wait_s is None else max(0.0, earlier.wait_s - (later.at - earlier.at))]
    limits: dict[str, Any] = {name: _later(getattr(earlier, name), getattr(later, name)) for name in LIMITS}
    return Signal(
        later.at,
        **{name: getattr(a, name) + getattr(b, name) for name in COUNTS},
        **limits,
        wait_s=max((wait_s for wait_s in waits_s if wait_s is not None), default=None),
        words=later.words or earlier.words,
    )


def _tells(outcome: Outcome) -> tuple[str, ...]:
    """The counts that an outcome raises by one."""
    error = outcome.error or Error("", "")
    status = error.provider_status
    match outcome.kind:
        case Kind.PROVIDER_REFUSED:
            if error.code in QUOTA_CODES or status == 402:
                return ("quota",)
            return ("forbidden",) if status == 403 else ("auth",)
        case Kind.REJECTED if is_rate_limit(outcome):
            if error.code != SLOW_DOWN_CODE:
                return ("refusals",)
            return ("refusals", "slow_downs") if status == 429 else ("slow_downs",)
        case Kind.REJECTED:
            # 408, 409 and 425 are about one request, not about the provider.
            return ("down",) if status is None or status >= 500 else ()
        case Kind.NOT_SENT:
            return ("down",)
        case Kind.UNKNOWN if status is not None and status >= 500:
            return ("down",)
    return ()


def _later(before: int | None, after: int | None) -> int | None:
    return before if after is None else after


def _words(error: Error) -> str:
    """The code and the words, without what Postgres's JSON can't hold: a NUL, half of a surrogate pair."""
    words = f"{error.code}: {error.message}"[:WORDS_CHARS_MAX].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return words.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
