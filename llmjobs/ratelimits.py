"""Rate limits: how fast calls may be sent, and how many tokens are set aside for them. Pure: the time is an argument.

Owns the arithmetic. The claim, the fold and settle follow it in SQL (`sql/gate.sql`, `claim.sql`, `fold.sql`,
`settle.sql`), over turns of buckets; property tests hold that against this. Does not own who is next: `fairness.py`.

Pacing is GCRA, the leaky bucket as a meter (ITU-T I.371, Annex A, "virtual scheduling"). A bucket that holds b and
drains at r a second is known by one number, `at`, when it will have drained:

    earliest  s   = max(now, at + (e - b) / r)     when a call of e may be sent
    reserve   at' = max(at, s) + e / r
    correct   at' = at + d / r                     what was used less what was reserved, once it is known

Invariant: between any two sends, both and all corrections in between included, at most b + r * t was reserved, t being
the seconds between them; also where some e > b, which waits until the bucket has drained deep enough. A call that lies
in several buckets (requests and tokens, of pool and account) is sent when all have room, and all take it in then.

From it follow the rates. A provider counts N in windows of W seconds, and a call arrives up to J seconds after its
time. What arrives within a window was sent within W + J, so b + r * (W + J) must not be more than N: for requests, of
which only whole ones count, not as much as N + 1.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MINUTE_S = 60.0
REQUESTS_SPARE = 0.01  # of the limit: what may be sent at once beside the even pace, after a pause
TOKENS_BURST_MIN, TOKENS_BURST_MAX = 0.02, 0.1  # of the limit
TOKENS_BURST_MOST = 0.5  # where calls are usually so large
TOKENS_RATE_MIN = 0.1  # of the even pace: an uncertainty that takes all the room must not stop the pool
TOLD_FOR_S = 600.0  # so long a limit holds that the provider's headers told
SLOWEST, SLOW_DOWN_EVERY_S = 1 / 64, 5.0
GUESS_JOBS, LESSONS_MAX = 4, 64  # as in fairness.py
GUESS_ERROR_VAR = 256.0**2  # an answer is a few hundred tokens longer or shorter than expected
RATIO_MIN, RATIO_MAX = 0.01, 100


@dataclass(frozen=True, slots=True)
class Bucket:
    """One dimension of one limit. `at` in seconds of the clock that claims have; 0: it is empty.

    A call may leave late by `slack_s` and do no harm: what it reserves drains no sooner. Where the bucket is fuller
    than that, it may be as late as the bucket takes to drain so far (`allowed_s`).
    """

    burst: float
    rate_per_s: float
    at: float = 0.0
    slack_s: float = 0

    def earliest(self, amount: float, now: float) -> float:
        return max(now, self.at + (amount - self.burst) / self.rate_per_s)

    def reserve(self, amount: float, sent_at: float) -> "Bucket":
        """`sent_at` is not before `earliest`."""
        return replace(self, at=max(self.at, sent_at + self.slack_s) + amount / self.rate_per_s)

    def allowed_s(self, sent_at: float) -> float:
        """How late, beside the jitter, a call may leave that has not been reserved yet."""
        return max(self.at - sent_at, self.slack_s)

    def draining_at(self, rate_per_s: float, now: float) -> "Bucket":
        """At another rate; what is in it stays in it."""
        ahead_s = max(self.at - now, 0.0) * self.rate_per_s / rate_per_s
        return replace(self, rate_per_s=rate_per_s, at=now + ahead_s if self.at > now else self.at)

    def grown(self, burst: float) -> "Bucket":
        """Holds more from now on, and is not emptier for it: else a jump would come on top of what was just sent."""
        return replace(self, burst=burst, at=self.at + max(burst - self.burst, 0.0) / self.rate_per_s)

    def correct(self, amount: float) -> "Bucket":
        """`amount`: what was used less what was reserved. A crashed call has none: its reservation simply drains."""
        return replace(self, at=self.at + amount / self.rate_per_s)

    def told(self, left: float, told_at: float) -> "Bucket":
        """The provider counted when a call arrived that was sent at `told_at`, and said how much is left.

        It never raises what the bucket holds. What was sent since is not in `left`; with the time of the answer
        instead, each answer of a full bucket would put the next send off.
        """
        return replace(self, at=max(self.at, told_at + (self.burst - left) / self.rate_per_s))

    def blocked(self, until: float, *, first: float) -> "Bucket":
        """Opens at `until` with no more room than `first`: one request, no tokens. What was saved up is forgotten."""
        return replace(self, at=max(self.at, until + (self.burst - first) / self.rate_per_s))

    def room(self, now: float, ahead_s: float = 0) -> float:
        """How much may be reserved now for sends up to `ahead_s` from now; not above 0: nothing."""
        return (now + ahead_s - max(self.at, now)) * self.rate_per_s + self.burst

    def remaining(self, now: float) -> float:
        return max(0.0, self.room(now))

    def reset_s(self, now: float) -> float:
        """Seconds until all of it is there again."""
        return max(0.0, self.at - now)


def together(buckets: Sequence[Bucket], amounts: Sequence[float], now: float) -> tuple[float, list[Bucket]]:
    """The first moment at which all have room, and all of them once they took it in then."""
    pairs = list(zip(buckets, amounts, strict=True))
    sent_at = max((bucket.earliest(amount, now) for bucket, amount in pairs), default=now)
    return sent_at, [bucket.reserve(amount, sent_at) for bucket, amount in pairs]


# How fast a bucket drains, and what it holds.


def requests_bucket(limit: float, window_s: float, jitter_s: float, at: float = 0.0) -> Bucket:
    """`limit` is a minute's, `window_s` what the provider counts by: 60, or 1 for one that counts by the second."""
    per_window = limit * window_s / MINUTE_S
    if per_window >= 1:
        per_window = math.floor(per_window)  # of eight and a third a second, eight is what is sure
    spare = math.floor(per_window * REQUESTS_SPARE)
    rate_per_s = (per_window - spare) / (window_s + jitter_s)
    return Bucket(1 + spare, rate_per_s, at, slack_s=spare / 2 / rate_per_s)  # half of it is for calls that leave late


def tokens_bucket(
    limit: float, largest: float, margin: float, jitter_s: float, at: float = 0.0, *, mean: float = 0.0
) -> Bucket:
    """`largest` reservation of late, `mean` of what calls use. What is larger than the burst waits for the bucket to
    drain below empty, and as much goes unused; a burst is not used either, but once in a window and not once a call.
    """
    burst = max(min(largest, TOKENS_BURST_MAX * limit), min(mean, TOKENS_BURST_MOST * limit), TOKENS_BURST_MIN * limit)
    per_window = max(limit - burst - margin, TOKENS_RATE_MIN * limit)
    return Bucket(burst, per_window / (MINUTE_S + jitter_s), at)


def client_bucket(limit: float, at: float = 0.0) -> Bucket:
    """A minute's worth at once, then evenly: nobody is harmed by a client's burst, the pools pace it."""
    return Bucket(limit, limit / MINUTE_S, at)


def slower(bucket: Bucket, factor: float) -> Bucket:
    return replace(bucket, rate_per_s=bucket.rate_per_s * factor)


def limit_of(own: float, told: float | None, told_at: float, now: float) -> float:
    """An operator's limit, or what the provider's headers told, if that is less and not long ago."""
    return own if told is None or now - told_at >= TOLD_FOR_S else min(own, told)


@dataclass(frozen=True, slots=True)
class Slowness:
    """What `slow_down` does to all rates of a pool: `factor` of them as of `since`, doubling each `ramp_s`."""

    ramp_s: float
    factor: float = 1.0
    since: float = 0.0

    def at(self, now: float) -> float:
        doublings = min((now - self.since) / self.ramp_s, 60.0)
        return min(1.0, self.factor * 2.0**doublings)

    def halved(self, now: float) -> "Slowness":
        """Many calls are told at once: that is one wish."""
        if now - self.since < SLOW_DOWN_EVERY_S:
            return self
        return Slowness(self.ramp_s, max(self.at(now) / 2, SLOWEST), now)


# What is set aside for a call, and what is put right once it has ended.


def reservation(
    policy: str, est_input: float, est_output: float, *, max_output: float | None, tokens_ratio: float = 1.0
) -> float:
    """`max_output`: what the request allows at most, where it says so; `tokens_ratio`: as learned of the client."""
    if policy == "max_tokens":
        return est_input + (est_output if max_output is None else max_output)
    return (est_input + est_output) * tokens_ratio


def correction(policy: str, reserved: float, used: float | None, *, sent_ago_s: float | None) -> float:
    """What settle adds. `used` None: nobody knows; `sent_ago_s` None: it never was sent.

    A call that was sent a window ago has left the provider's count: what is given back for it would be given twice.
    """
    if sent_ago_s is None:
        return -reserved
    if policy == "max_tokens" or sent_ago_s > MINUTE_S or used is None:
        return 0.0
    return used - reserved


def margin(z: float, error_var: float, running: int) -> float:
    """What must stay free for calls in flight to be longer than expected, all together: z standard deviations.

    Errors of different calls are taken as independent, so that their variances add (H. Markowitz, "Portfolio
    Selection", The Journal of Finance, 1952); of one kind of call, n of them err by sqrt(n), not by n.
    """
    return z * math.sqrt(error_var * max(0, running))


@dataclass(frozen=True, slots=True)
class Lesson:
    """A completed call: tokens as estimated, as reserved, as used, input and output together."""

    estimated: float
    reserved: float
    used: float


@dataclass(frozen=True, slots=True)
class Lessons:
    """What completed calls taught, of a pool and of a client there. `weight` is in calls.

    `error_var` is about 0, not about the mean of the errors: an estimate that is always too low is an error too.
    """

    weight: float = GUESS_JOBS
    mean_tokens: float = 0.0
    tokens_ratio: float = 1.0
    error_var: float = GUESS_ERROR_VAR

    def after(self, lessons: Iterable[Lesson]) -> "Lessons":
        """Those of one fold, together. A mean while there are few, then one that forgets (see `fairness.Lessons`)."""
        taught = list(lessons)
        if not taught:
            return self
        count, used = len(taught), sum(lesson.used for lesson in taught)
        estimated = sum(lesson.estimated for lesson in taught)
        sq_error = sum((lesson.used - lesson.reserved) ** 2 for lesson in taught)
        share = count / (self.weight + count)
        ratio = self.tokens_ratio if estimated <= 0 else min(max(used / estimated, RATIO_MIN), RATIO_MAX)
        return Lessons(
            min(self.weight + count, LESSONS_MAX),
            self.mean_tokens + (used / count - self.mean_tokens) * share,
            self.tokens_ratio + (ratio - self.tokens_ratio) * share,
            self.error_var + (sq_error / count - self.error_var) * share,
        )
