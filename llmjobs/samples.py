"""What a pool's bucket was like, every 15 seconds, for two hours: what the picture on a model's page is drawn from.

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
DELETED_ROWS = 20  # of a pool at once: one comes a time, so a backlog of them is soon gone


async def sample(conn: AsyncConnection[Any]) -> int:
    """Take a sample of each pool that needs one, unless another worker does. Returns how many were taken."""
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
    return int(taken)
