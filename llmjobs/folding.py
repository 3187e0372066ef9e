"""The fold: what everybody appended to the inbox becomes turns, under the turnstile. First in every claim.

Who only looks at the order folds too, where no claim does: while all slots are busy, or no worker is there.
"""

from typing import Any

from django.db import connection, transaction
from psycopg import AsyncConnection

from llmjobs.conf import conf
from llmjobs.sql import load

SHARD = 1


async def fold(
    conn: AsyncConnection[Any], *, is_grown: bool = True, is_sweep: bool = False, is_full: bool = False
) -> Any:
    """The statements before the claim proper: lock the turnstile, grow where it is needed, fold. Returns its cursor."""
    params = _params(is_grown=is_grown, is_sweep=is_sweep, is_full=is_full)
    await conn.execute(load("lock"), params)
    if is_grown:
        await conn.execute(load("grow", rows=conf.fold_rows_max), params)
    return await conn.execute(load("fold", rows=conf.fold_rows_max), params)


def help_fold() -> None:
    """Fold over Django's connection, unless there is nothing to fold, or a claim is at it.

    Not in a caller's transaction, which would keep the turnstile until its end.
    """
    if connection.in_atomic_block:
        return
    params = _params(is_grown=True, is_sweep=False, is_full=False)
    with transaction.atomic(), connection.cursor() as cursor:
        # Whatever the host's default: who waited for nobody must still see what was committed before it had the lock.
        cursor.execute("set transaction isolation level read committed")
        cursor.execute(load("fold_is_due"), params)
        if cursor.fetchone() is None:
            return
        cursor.execute(load("pin"))
        cursor.execute(load("grow", rows=conf.fold_rows_max), params)
        cursor.execute(load("fold", rows=conf.fold_rows_max), params)


def _params(*, is_grown: bool, is_sweep: bool, is_full: bool) -> dict[str, Any]:
    return {
        "shard": SHARD, "is_grown": is_grown, "is_sweep": is_sweep, "is_full": is_full, "lag_tokens": conf.lag_tokens,
        "breaker_strikes": conf.breaker_strikes, "down_strikes": conf.down_strikes, "probe_s": conf.probe_s,
        "probe_max_s": conf.probe_max_s, "slow_down_ramp_s": conf.slow_down_ramp_s,
    }  # fmt: skip
