"""What a pool's bucket was like, and how a tier's queue stood, every 15 seconds: what pictures are drawn from.

One worker at a time takes samples, the others skip their turn. Owns the samples and how long they are kept; a pool that
nobody uses gets none, since its last one says how it was left.
"""

from typing import Any

from psycopg import AsyncConnection

from llmjobs.conf import conf
from llmjobs.sql import load

SAMPLE_EVERY_S = 15.0
KEEP_S = 2 * 3600.0  # an hour is shown; what was before its first sample is read from the one before
TOLD_S = 600.0  # a limit that a provider's headers told holds so long
TIERS_KEPT_S = 26 * 3600.0  # a day is shown; of what is older than KEEP_S the last of each minute stays
DELETED_ROWS = 20  # of a pool or tier at once: one comes a time, so a backlog of them is soon gone


async def sample(conn: AsyncConnection[Any]) -> int:
    """Take a sample of each pool and tier that needs one, unless another worker does. Returns how many pools did."""
    params = {
        "every_s": SAMPLE_EVERY_S * 0.9,  # who asks every 15 seconds shall not come a moment too early
        "keep_s": KEEP_S, "told_s": TOLD_S, "default_rpm": conf.default_rpm, "default_tpm": conf.default_tpm,
    }  # fmt: skip
    async with conn.transaction():
        due = await conn.execute(load("sample_is_due"))
        is_due, *_ = await due.fetchone() or (False,)
        if not is_due:
            return 0
        cursor = await conn.execute(load("sample", rows=DELETED_ROWS), params)
        taken, _ = await cursor.fetchone() or (0, 0)
        params |= {"keep_s": TIERS_KEPT_S, "thin_s": KEEP_S}
        await conn.execute(load("sample_tiers", rows=DELETED_ROWS), params)
    return int(taken)
