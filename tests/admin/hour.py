"""An hour of a pool as its samples would tell it, for pictures of it: load that rises, a 429 now and then, a breaker
that opened for some minutes, and a pause in which nobody asked."""

import math
from datetime import timedelta

from django.utils import timezone

from llmjobs.models import Model, PoolSample

QUIET_MIN = range(20, 26)
STOPPED_MIN = range(38, 42)
REFUSED_MIN = (31, 33, 55)


def make_hour(model: Model, *, rpm: int = 600, tpm: int = 200_000) -> list[PoolSample]:
    """What is told halves the limit for the last quarter."""
    now = timezone.now()
    requests = refusals = 0
    tokens = 0.0
    rows = []
    for step in range(-8, 241):
        minute = step // 4
        is_stopped, is_quiet = minute in STOPPED_MIN, minute in QUIET_MIN
        allowed = rpm if minute < 45 else rpm // 2
        if not is_stopped and not is_quiet:
            rate = min(allowed * 0.98, rpm * (0.3 + 0.9 * (0.5 - 0.5 * math.cos(step / 18))))
            requests += round(rate / 4)
            tokens += rate / 4 * tpm / rpm * (0.7 + 0.2 * math.sin(step / 5))
        refusals += 1 if minute in REFUSED_MIN and step % 4 == 1 else 0
        if is_quiet and step % 4:
            continue  # nothing changed: no sample
        queued = 0 if is_quiet else max(0, round(900 * math.sin(step / 40))) + (700 if is_stopped else 0)
        rows.append(
            PoolSample(
                pool=model, at=now - timedelta(seconds=(240 - step) * 15 + 3), requests=requests, tokens=tokens,
                refusals=refusals, queued=queued, running=0 if is_quiet or is_stopped else 40 + step % 23,
                rpm=allowed, tpm=tpm, blocked_by="provider_down" if is_stopped else None,
            )
        )  # fmt: skip
    return PoolSample.objects.bulk_create(rows)
