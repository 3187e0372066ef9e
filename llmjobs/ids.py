"""Public ids of jobs: UUIDv7 (RFC 9562), made here because Python before 3.14 and Postgres before 18 have none.

48 bits of milliseconds, then random bits: sorted by time to the millisecond, unguessable in the rest.
"""

import os
import time
import uuid


def uuid7() -> uuid.UUID:
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
    return uuid.UUID(int=value)
