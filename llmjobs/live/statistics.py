"""The live statistics of `/ws/queue/`: computed once a second for all operators of a process, and only while somebody
looks."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from weakref import WeakKeyDictionary

from django.core.serializers.json import DjangoJSONEncoder

from llmjobs.live.alarms import keep_watch
from llmjobs.live.reading import DATABASE_ERRORS
from llmjobs.live.threads import in_slow_thread
from llmjobs.models import Incident
from llmjobs.stats import queue_stats
from llmjobs.tallies import tiers_now

logger = logging.getLogger(__name__)

EVERY_S = 1.0
INCIDENTS_MAX = 100
TIER = ("name", "queued", "running", "scheduled", "oldest_s")


async def follow_statistics() -> AsyncGenerator[str, None]:
    """The statistics as JSON: at once, and then whenever they have changed. While they can't be had, nothing."""
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared())
    shown = ""
    while True:
        keep_watch()  # who looks shall see what is wrong, even where no worker lives
        latest = await shared.latest()
        if latest != shown:
            shown = latest
            yield shown
        await asyncio.sleep(EVERY_S)


class _Shared:
    """The first who asks in a second computes; the others wait for what it finds."""

    def __init__(self) -> None:
        self._text = ""
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def latest(self) -> str:
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if clock() >= self._until:
                try:
                    self._text = await in_slow_thread(_render)
                except DATABASE_ERRORS as error:
                    logger.warning("event=statistics_failed error=%r", str(error).strip().partition("\n")[0])
                self._until = clock() + EVERY_S * 0.9
        return self._text


def _render() -> str:
    """As GET /api/stats has them, and what the admin's overview shows besides: tiers, and which incidents are open."""
    found = Incident.objects.filter(closed_at=None).order_by("-id").values_list("id", flat=True)
    tiers = [{name: getattr(tier, name) for name in TIER} for tier in tiers_now()]
    besides = {"tiers": tiers, "incidents": list(found[:INCIDENTS_MAX])}
    return json.dumps({**queue_stats(), **besides}, cls=DjangoJSONEncoder)


_shared: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared]" = WeakKeyDictionary()
