"""`python -m tests.chaos.shifted_clock SECONDS manage.py runworker …`: a Python whose wall clock is off by so much.

What tells how late it is, is shifted: `time.time`, `time.time_ns`, `datetime.now`, `utcnow`, `today`. Monotonic clocks
stay, as they do where an administrator sets a clock. Loaded before anything that could have kept the true functions.
"""

import datetime
import runpy
import sys
import time
from typing import Any


def shift(by_s: float) -> None:
    true_time, true_time_ns, true_datetime = time.time, time.time_ns, datetime.datetime
    by = datetime.timedelta(seconds=by_s)

    class _Kind(type(true_datetime)):  # type: ignore[misc]
        """What others made is a datetime too."""

        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, true_datetime)

        def __subclasscheck__(cls, kind: type) -> bool:
            return issubclass(kind, true_datetime)

    class Shifted(true_datetime, metaclass=_Kind):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return true_datetime.now(tz) + by

        @classmethod
        def utcnow(cls) -> Any:
            return true_datetime.now(datetime.UTC).replace(tzinfo=None) + by

        @classmethod
        def today(cls) -> Any:
            return true_datetime.now() + by

    time.time = lambda: true_time() + by_s
    time.time_ns = lambda: true_time_ns() + int(by_s * 1_000_000_000)
    datetime.datetime = Shifted  # type: ignore[misc]


def main() -> None:
    shift(float(sys.argv[1]))
    sys.argv = sys.argv[2:]
    sys.path.insert(0, ".")
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
