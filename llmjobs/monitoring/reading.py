"""What a scrape reads, as plain values: a fixed number of statements, each of the same cost at any backlog.

Owns which models get a label of their own. Does not own names (`catalogue.py`) nor formats (`families.py`). Everything
is of the database, so that counters go on where they were when a process starts anew. Raises a database's errors, and
TooSlow.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import connection

from llmjobs import tallies
from llmjobs.conf import conf
from llmjobs.models import Tier
from llmjobs.pinning import pinned
from llmjobs.samples import TOLD_S
from llmjobs.sql import load
from llmjobs.time_limits import time_limit

MODELS_MAX = 50  # by name; what all others do is told together: the histograms of each are some 80 lines a tier
COUNTED_MAX = 100_000
TIMEOUT_S = 5


class Pool(NamedTuple):
    """A model; `name` None: all that have no label together. As of metrics_models.sql."""

    name: str | None
    is_paused: bool | None
    blocked_by: str | None
    rpm: float | None
    tpm: float | None
    used_rpm: float | None
    used_tpm: float | None
    requests: float | None
    queued: float | None
    running: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    tiers: Sequence[tallies.TierNow]
    targets_s: dict[str, float]  # by tier's name
    pools: Sequence[Pool]
    totals: tallies.Totals
    rest: dict[str, Any]  # the columns of metrics_rest.sql
    took_s: float


def read() -> Reading:
    began = time.perf_counter()
    limits = {"default_rpm": conf.default_rpm, "default_tpm": conf.default_tpm, "told_s": TOLD_S}
    with time_limit(TIMEOUT_S, using=connection.alias), pinned():
        targets_s = dict(Tier.objects.values_list("name", "backlog_target_s"))
        pools = [Pool(**row) for row in _rows("metrics_models", limits, rows=MODELS_MAX)]
        [rest] = _rows("metrics_rest", {"lease_s": conf.lease_s}, rows=COUNTED_MAX)
        tiers, totals = tallies.tiers_now(), tallies.totals([pool.name for pool in pools if pool.name])
    return Reading(
        tiers=tiers,
        targets_s={name: target_s or conf.backlog_target_s for name, target_s in targets_s.items()},
        pools=pools,
        totals=totals,
        rest=rest | {"incidents": json.loads(rest["incidents"])},  # Django's connection leaves jsonb as text
        took_s=time.perf_counter() - began,
    )


def _rows(name: str, params: dict[str, Any], **literals: int) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(load(name, **literals), params)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
