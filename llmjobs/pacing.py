"""When a worker sends: the database's clock told by the worker's own, and how late its calls leave.

Claims give out times to send by the database's clock. Owns how they become moments of this process, and what is known
of its lateness, which the claims take into account for all workers. Pure: monotonic times come in as arguments.
"""

from dataclasses import dataclass

FORGET_S = 60.0  # a clock may drift by some 10 ms in this time
STEP_S = 0.5  # by less it may have been slewed
HALVES_IN_S = 30.0  # as the buckets forget it, in gate.sql


@dataclass(slots=True)
class DatabaseClock:
    """The least time between a moment there and its being heard here, of the last minute or two, is taken for none.

    Invariant: what `here` gives is never earlier than the moment was, but by drift or a clock that was set.
    """

    _lag_s: float | None = None  # here less there
    _earlier_lag_s: float | None = None
    _since: float = 0.0

    def observe(self, there: float, asked_at: float, heard_at: float) -> None:
        """`there`: seconds of the Unix clock, read by a statement that was asked at `asked_at` (monotonic) and answered
        at `heard_at`. An answer that was long on its way says little, and changes nothing.
        """
        lag_s = heard_at - there
        known_s = self._least()
        # Before the question was asked, by what is known: it was set back, and what is known is worth nothing.
        if known_s is not None and asked_at - there > known_s + STEP_S:
            self._lag_s = self._earlier_lag_s = None
        if self._lag_s is None or heard_at - self._since > FORGET_S:
            self._earlier_lag_s, self._lag_s, self._since = self._lag_s, lag_s, heard_at
        self._lag_s = min(self._lag_s, lag_s)

    def here(self, there: float) -> float:
        """The monotonic time of a moment of the database's clock. Only after an `observe`."""
        least_s = self._least()
        if least_s is None:
            raise ValueError("expected an observation of the database's clock first")
        return there + least_s

    def _least(self) -> float | None:
        known = [lag_s for lag_s in (self._lag_s, self._earlier_lag_s) if lag_s is not None]
        return min(known, default=None)


@dataclass(slots=True)
class Lateness:
    """How late calls left lately, at most, beyond what their slots allow for; halves with time."""

    _s: float = 0.0
    _at: float = 0.0

    def note(self, late_s: float, now: float) -> None:
        self._s, self._at = max(self.at(now), late_s), now

    def at(self, now: float) -> float:
        return self._s * 0.5 ** ((now - self._at) / HALVES_IN_S)
