"""Requests and tokens a minute, counted as providers count them: a sliding log, a fixed minute, a bucket, or
by the second.

Pure: the time is an argument, in seconds of the Unix clock (a fixed window is a calendar minute), and never
goes back.
Owns what an account has used. Does not know a call; `provider.py` keeps one account for each API key and
model.
Invariant: in no window of its kind does an account admit more than its limit. Requests and tokens are taken
together or not at all; a call that was refused counts as a request all the same (OpenAI: "unsuccessful
requests contribute to your per-minute limit"), so that hammering a full window keeps it full.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

Window = Literal["sliding", "fixed", "bucket", "second"]
WINDOWS: tuple[Window, ...] = ("sliding", "fixed", "bucket", "second")
MINUTE_S = 60.0


class Meter(Protocol):
    """One dimension of one account. `limit` is per minute, whatever the window."""

    limit: int

    def wait_s(self, now: float, amount: int) -> float:
        """0 if `amount` fits now; else seconds until it does, if nobody else comes; inf if it never will."""

    def charge(self, now: float, amount: int) -> None:
        """Take `amount`. The caller has asked `wait_s` first."""

    def charge_refused(self, now: float) -> None:
        """Count a request that was refused, without letting the debt grow beyond one full window."""

    def remaining(self, now: float) -> int: ...

    def reset_s(self, now: float) -> float:
        """Seconds until the whole limit is there again."""


class SlidingLog:
    """At most `limit` in any 60 seconds: every charge is remembered until it is a minute old."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._log: deque[tuple[float, int]] = deque()
        self._used = 0

    def wait_s(self, now: float, amount: int) -> float:
        if amount > self.limit:
            return math.inf
        self._forget(now)
        excess = self._used + amount - self.limit
        if excess <= 0:
            return 0.0
        for at, charged in self._log:
            excess -= charged
            if excess <= 0:
                return at + MINUTE_S - now
        raise AssertionError("the log holds less than what is used")

    def charge(self, now: float, amount: int) -> None:
        if amount:
            self._log.append((now, amount))
            self._used += amount

    def charge_refused(self, now: float) -> None:
        self.charge(now, 1)
        while self._used > self.limit:
            self._used -= self._log.popleft()[1]

    def remaining(self, now: float) -> int:
        self._forget(now)
        return max(0, self.limit - self._used)

    def reset_s(self, now: float) -> float:
        self._forget(now)
        return self._log[-1][0] + MINUTE_S - now if self._log else 0.0

    def _forget(self, now: float) -> None:
        while self._log and self._log[0][0] <= now - MINUTE_S:
            self._used -= self._log.popleft()[1]


class FixedWindow:
    """At most `per_window` in each calendar window (a minute, or a second) of the Unix clock."""

    def __init__(self, limit: int, window_s: float = MINUTE_S) -> None:
        self.limit = limit
        self._window_s = window_s
        self._per_window = math.ceil(limit * window_s / MINUTE_S)
        self._window = -1
        self._used = 0

    def wait_s(self, now: float, amount: int) -> float:
        if amount > self._per_window:
            return math.inf
        self._turn(now)
        return 0.0 if self._used + amount <= self._per_window else self._ends_in_s(now)

    def charge(self, now: float, amount: int) -> None:
        self._turn(now)
        self._used += amount

    def charge_refused(self, now: float) -> None:
        self._turn(now)
        self._used = min(self._used + 1, self._per_window)

    def remaining(self, now: float) -> int:
        self._turn(now)
        return self._per_window - self._used

    def reset_s(self, now: float) -> float:
        self._turn(now)
        return self._ends_in_s(now) if self._used else 0.0

    def _turn(self, now: float) -> None:
        window = int(now // self._window_s)
        if window != self._window:
            self._window, self._used = window, 0

    def _ends_in_s(self, now: float) -> float:
        return (self._window + 1) * self._window_s - now


class TokenBucket:
    """Holds `limit`, refilled evenly: bursts up to the whole limit, then `limit / 60` a second."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rate = limit / MINUTE_S
        self._level = float(limit)
        self._at: float | None = None

    def wait_s(self, now: float, amount: int) -> float:
        if amount > self.limit:
            return math.inf
        self._refill(now)
        # A billionth of tolerance: the level is a sum of fractions, and 0.9999999999 of a request is one.
        return max(0.0, (amount - self._level) / self._rate) if amount > self._level + 1e-9 else 0.0

    def charge(self, now: float, amount: int) -> None:
        self._refill(now)
        self._level = max(0.0, self._level - amount)

    def charge_refused(self, now: float) -> None:
        self.charge(now, 1)

    def remaining(self, now: float) -> int:
        self._refill(now)
        return int(self._level + 1e-9)

    def reset_s(self, now: float) -> float:
        self._refill(now)
        return (self.limit - self._level) / self._rate

    def _refill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(float(self.limit), self._level + (now - self._at) * self._rate)
        self._at = now


def requests_meter(window: Window, limit: int) -> Meter:
    return FixedWindow(limit, window_s=1.0) if window == "second" else _meter(window, limit)


def tokens_meter(window: Window, limit: int) -> Meter:
    """By the second only requests are counted: one call may have more tokens than a second's share."""
    return FixedWindow(limit) if window == "second" else _meter(window, limit)


def _meter(window: Window, limit: int) -> Meter:
    return {"sliding": SlidingLog, "fixed": FixedWindow, "bucket": TokenBucket}[window](limit)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was not admitted. `used` is of the present window; `wait_s` is inf if it never fits."""

    dimension: Literal["requests", "tokens"]
    limit: int
    used: int
    requested: int
    wait_s: float


class Account:
    """What one API key may use of one model. A dimension without a limit is neither counted nor reported."""

    def __init__(self, window: Window, *, rpm: int | None, tpm: int | None) -> None:
        self._requests = None if rpm is None else requests_meter(window, rpm)
        self._tokens = None if tpm is None else tokens_meter(window, tpm)

    def admit(self, now: float, tokens: int) -> Refusal | None:
        """Take one request and `tokens`, or say why not. A refused call costs a request and no tokens."""
        requests_wait_s = self._requests.wait_s(now, 1) if self._requests else 0.0
        tokens_wait_s = self._tokens.wait_s(now, tokens) if self._tokens else 0.0
        if requests_wait_s == 0.0 and tokens_wait_s == 0.0:
            if self._requests:
                self._requests.charge(now, 1)
            if self._tokens:
                self._tokens.charge(now, tokens)
            return None
        refusal = None
        if self._requests and requests_wait_s:
            refusal = _refusal("requests", self._requests, now, 1, requests_wait_s)
        if self._tokens and tokens_wait_s >= requests_wait_s:
            refusal = _refusal("tokens", self._tokens, now, tokens, tokens_wait_s)
        if self._requests:
            self._requests.charge_refused(now)
        return refusal

    def headers(self, now: float) -> str:
        """The `x-ratelimit-*` lines, each with its CRLF."""
        lines = ""
        for name, meter in (("requests", self._requests), ("tokens", self._tokens)):
            if meter:
                lines += (
                    f"x-ratelimit-limit-{name}: {meter.limit}\r\n"
                    f"x-ratelimit-remaining-{name}: {meter.remaining(now)}\r\n"
                    f"x-ratelimit-reset-{name}: {duration(meter.reset_s(now))}\r\n"
                )
        return lines


def duration(seconds: float) -> str:
    """As OpenAI's headers have it: `0s`, `120ms`, `8.64s`, `6m0s`, `1h0m2s`. Rounded up to milliseconds."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms <= 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _refusal(
    dimension: Literal["requests", "tokens"], meter: Meter, now: float, requested: int, wait_s: float
) -> Refusal:
    return Refusal(dimension, meter.limit, meter.limit - meter.remaining(now), requested, wait_s)
