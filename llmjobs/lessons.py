"""What a client's completed jobs taught about its next ones, for the estimate at submit. The fold learns, this reads.

Kept in the process for some seconds: an estimate may be that old, and a submit shall not pay a round trip for it. What
is charged follows the latest lessons all the same: a claim multiplies the estimate by the flow's `cost_ratio`.
"""

import time

from llmjobs.conf import conf
from llmjobs.database import prepared_cursor
from llmjobs.models import Client, Model
from llmjobs.sql import load

KEPT_S = 10.0
KEPT_MAX = 10_000
FIRST_GUESS_JOBS = 4  # what the first guess weighs beside lessons; as FlowTurn.learned begins

_kept: dict[tuple[int, int], tuple[float, int]] = {}  # by pool and client: until when, tokens


def output_tokens(pool: Model, client: Client) -> int:
    """How many output tokens to expect of a job that does not say: the default, moved towards what came before."""
    until, tokens = _kept.get((pool.id, client.id), (0.0, 0))
    if until > time.monotonic():
        return tokens
    if len(_kept) >= KEPT_MAX:
        _kept.clear()
    tokens = _learned(pool.id, client.id)
    _kept[pool.id, client.id] = time.monotonic() + KEPT_S, tokens
    return tokens


def _learned(pool_id: int, client_id: int) -> int:
    with prepared_cursor() as cursor:
        cursor.execute(load("lessons"), {"pool": pool_id, "client": client_id})
        row = cursor.fetchone()
    guess = conf.default_output_tokens
    if row is None:
        return int(guess)
    learned, mean = row
    return max(1, round(mean + (guess - mean) * FIRST_GUESS_JOBS / learned))
