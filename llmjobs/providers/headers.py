"""What the headers of an answer say of the provider's limits, in OpenAI's and Anthropic's forms. Pure.

Owns how each form is read, and what is no sane value. Does not know what follows: that is for `signals.py` to say.
Invariant: a header that makes no sense is counted, and changes nothing else; no header whatever raises.
"""

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import datetime

from llmjobs.outcomes import Told

COUNT_MAX = 1_000_000_000
WAIT_MAX_S = 86_400.0
SKEW_S = 5.0  # a date that is past by no more is "now": dates have whole seconds, and clocks differ

PREFIXES = ("retry-after", "x-ratelimit-", "anthropic-ratelimit-")
# For each dimension the headers that tell it, {} being limit, remaining or reset: the first that are there.
FORMS = {
    "requests": ("x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"),
    "tokens": ("x-ratelimit-{}-tokens", "anthropic-ratelimit-tokens-{}", "anthropic-ratelimit-input-tokens-{}"),
}

NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)
PART = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(d|h|ms|m|s|us|µs|ns)", re.ASCII)
UNIT_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

NOTHING = Told()


def told(headers: Mapping[str, str], *, status: int = 200, now: float | None = None) -> Told:
    """`now` is seconds of the Unix clock, which dates are compared with. Of a 429, `wait_s` is never left open
    where the other headers imply it."""
    # In one pass: a look-up in the transport's headers walks them all.
    found = {name: value for key, value in headers.items() if (name := key.lower()).startswith(PREFIXES)}
    if not found:
        return NOTHING
    reading = _Reading(found, time.time() if now is None else now)
    wait_s = reading.retry_after_s()
    requests_limit, requests_left, requests_wait_s = reading.dimension("requests")
    tokens_limit, tokens_left, tokens_wait_s = reading.dimension("tokens")
    if wait_s is None and status == 429:
        dimensions = ((requests_limit, requests_left, requests_wait_s), (tokens_limit, tokens_left, tokens_wait_s))
        wait_s = _implied_wait_s(*dimensions)
    return Told(requests_limit, requests_left, tokens_limit, tokens_left, wait_s, reading.lies)


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds from retry-after-ms or Retry-After (seconds, or a date); None for what is no sane wait."""
    found = {key.lower(): value for key, value in headers.items()}
    return _Reading(found, time.time() if now is None else now).retry_after_s()


class _Reading:
    """Reads one answer's headers, and counts those that make no sense."""

    def __init__(self, headers: Mapping[str, str], now: float) -> None:
        self._headers, self._now = headers, now
        self.lies = 0

    def retry_after_s(self) -> float | None:
        in_ms = self._wait_s("retry-after-ms", unit_s=1e-3)
        in_s = self._wait_s("retry-after")
        return in_s if in_ms is None else in_ms

    def dimension(self, name: str) -> tuple[int | None, int | None, float | None]:
        """(limit a minute, what is left of it, seconds until all of it is there again)"""
        form = next((form for form in FORMS[name] if self._is_there(form)), None)
        if form is None:
            return None, None, None
        limit, left = self._count(form.format("limit")), self._count(form.format("remaining"))
        full_in_s = self._wait_s(form.format("reset"))
        if limit == 0:  # who allows nothing does not answer
            self.lies += 1
            return None, None, full_in_s
        if limit is not None and left is not None and left > limit:
            self.lies += 1  # nobody knows which of the two is wrong
            return None, None, full_in_s
        return limit, left, full_in_s

    def _is_there(self, form: str) -> bool:
        return any(form.format(word) in self._headers for word in ("limit", "remaining", "reset"))

    def _count(self, name: str) -> int | None:
        text = self._headers.get(name)
        if text is None:
            return None
        count = float(text) if NUMBER.fullmatch(text.strip()) else None
        if count is None or count > COUNT_MAX:
            self.lies += 1
            return None
        return int(count)

    def _wait_s(self, name: str, *, unit_s: float = 1.0) -> float | None:
        text = self._headers.get(name)
        if text is None:
            return None
        wait_s = self._read_wait_s(text.strip(), unit_s)
        if wait_s is None or not -SKEW_S <= wait_s <= WAIT_MAX_S:
            self.lies += 1
            return None
        return max(0.0, wait_s)

    def _read_wait_s(self, text: str, unit_s: float) -> float | None:
        """A number, "1h0m2.5s", a date of HTTP or of RFC 3339. Only a date can come to less than zero."""
        if NUMBER.fullmatch(text):
            return float(text) * unit_s
        parts = PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return float(sum(float(number) * UNIT_S[unit] for number, unit in parts))
        try:
            if RFC_3339.fullmatch(text):
                return datetime.fromisoformat(text.upper()).timestamp() - self._now
            moment = email.utils.parsedate_tz(text)
            return None if moment is None else email.utils.mktime_tz(moment) - self._now
        except (ValueError, OverflowError):
            return None


def _implied_wait_s(*dimensions: tuple[int | None, int | None, float | None]) -> float | None:
    """Seconds until one more fits into the dimension that is nearest to its end, the longer where both are.

    What is missing comes back at an even rate (OpenAI's and Anthropic's way): one in reset / (limit - left).
    """
    implied = [
        (left / limit, -full_in_s / (limit - left))
        for limit, left, full_in_s in dimensions
        if limit is not None and left is not None and full_in_s is not None and left < limit
    ]
    return -min(implied)[1] if implied else None
