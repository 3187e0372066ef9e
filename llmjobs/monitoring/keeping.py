"""An answer that is worked out once for all who ask within some seconds: a flood of questions costs one reading."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """`read` raises nothing: a failure is an answer too, and kept like one.

    Who asks while another reads gets the answer of before; only where there is none it waits.
    """

    def __init__(self, read: Callable[[], T], *, for_s: float) -> None:
        self._read, self._for_s = read, for_s
        self._reading = threading.Lock()
        self._kept: tuple[T, float] | None = None

    def fresh(self) -> T | None:
        """What is kept, if it is young enough; never waits."""
        kept = self._kept
        return kept[0] if kept is not None and time.monotonic() - kept[1] < self._for_s else None

    def get(self) -> T:
        answer = self.fresh()
        if answer is not None:
            return answer
        kept = self._kept
        if not self._reading.acquire(blocking=kept is None) and kept is not None:
            return kept[0]
        try:
            answer = self.fresh()
            if answer is None:
                answer = self._read()
                self._kept = (answer, time.monotonic())
            return answer
        finally:
            self._reading.release()

    def forget(self) -> None:
        self._kept = None
