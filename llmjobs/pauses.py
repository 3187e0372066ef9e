"""Pause and resume of all claims: one switch for all workers, with who threw it, when and why.

Owns the switch (models/pauses.py). Does not own its effect: every claim reads it (sql/fair_order.sql), so that what
begins after the pause has committed takes nothing, and one that is under way ends within milliseconds. Invariant:
nothing is lost or refused; jobs wait, running ones end as they would, and the duties go on.
"""

from django.db import connection, transaction
from django.db.models.functions import Now

from llmjobs.events import WORK_CHANNEL, wake_on_commit
from llmjobs.folding import SHARD
from llmjobs.models.pauses import BY_CHARS_MAX, REASON_CHARS_MAX, ClaimsPause
from llmjobs.sql import load


def pause_claims(*, by: str, reason: str = "") -> ClaimsPause | None:
    """No worker starts anything until `resume_claims`. In the caller's transaction. None: it was so already.

    `by`: who does it, for those who ask why nothing starts.
    """
    found, is_new = ClaimsPause.objects.get_or_create(
        resumed_at=None, defaults={"by": by[:BY_CHARS_MAX], "reason": reason[:REASON_CHARS_MAX]}
    )
    return found if is_new else None


def resume_claims(*, by: str) -> ClaimsPause | None:
    """Go on at once: workers are woken when the caller's transaction has committed. None: nothing was paused."""
    with transaction.atomic():
        pause = ClaimsPause.objects.select_for_update().filter(resumed_at=None).first()
        if pause is None:
            return None
        ClaimsPause.objects.filter(pk=pause.pk).update(resumed_at=Now(), resumed_by=by[:BY_CHARS_MAX])
        with connection.cursor() as cursor:
            cursor.execute(load("ready_pools"), {"shard": SHARD})
            pools = [pool_id for [pool_id] in cursor.fetchall()]
        wake_on_commit((WORK_CHANNEL, [f"pool:{pool_id}" for pool_id in pools]))
    pause.refresh_from_db()
    return pause


def open_pause() -> ClaimsPause | None:
    """The pause that holds now. One probe of an index with one entry at most."""
    return ClaimsPause.objects.filter(resumed_at=None).first()
