"""What the clients of a run ask for: a seeded mixture of jobs, so that every road through the queue is in use.

Pure. Owns the mixture. The text of every prompt begins with SECRET_WORDS, which no log may have.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MODEL = "chaos"
SECRET_WORDS = "The cellar key is under the third stone"
CLIENTS = {"atlas": "free", "boreas": "pro", "castor": "enterprise"}
TIMEOUT_S = 60
MAX_ATTEMPTS = 20  # the most that there may be: who is killed twenty times is no poison here
HTTP_SHARE = 0.15  # by POST; the others from Python, in batches
LONG_SHARE = 0.15  # of streams that last for seconds, so that each fault meets some in the middle


@dataclass(frozen=True, slots=True)
class Asked:
    """`payload` is of POST /api/jobs. `is_watched`: a viewer follows it. `cancel_after_s`: its client cancels then."""

    number: int
    client: str
    payload: dict[str, Any]
    is_by_http: bool
    is_watched: bool
    cancel_after_s: float | None


def jobs(seed: int, *, webhook_url: str, webhook_share: float, watched_share: float) -> Iterator[Asked]:
    """As many as are wanted: the next one is made when it is asked for."""
    dice = random.Random(seed)
    for number in itertools.count():
        is_long = dice.random() < LONG_SHARE
        payload = _payload(dice, number, is_long=is_long)
        if dice.random() < webhook_share:
            payload["webhook_url"] = webhook_url
        yield Asked(
            number,
            dice.choice(list(CLIENTS)),
            payload,
            is_by_http=dice.random() < HTTP_SHARE,
            is_watched=dice.random() < (watched_share * 3 if is_long else watched_share / 2),
            cancel_after_s=dice.uniform(0, 4) if dice.random() < 0.02 else None,
        )


def _payload(dice: random.Random, number: int, *, is_long: bool) -> dict[str, Any]:
    tokens, pace = (dice.randint(40, 120), 20) if is_long else (dice.randint(3, 20), dice.choice([0, 0, 0, 20]))
    words = f"{SECRET_WORDS}, number {number}. [[tokens={tokens}]] [[tokens_per_s={pace}]]"
    payload: dict[str, Any] = {
        "model": MODEL, "timeout_s": TIMEOUT_S, "max_attempts": MAX_ATTEMPTS,
        "priority": dice.choice(["normal", "normal", "low", "background"]),
    }  # fmt: skip
    kind = dice.random()
    if kind < 0.1:
        payload["input"] = words
    elif kind < 0.25 and not is_long:
        payload["body"] = {"messages": [{"role": "user", "content": words}], "stream": False}
    else:
        payload["messages"] = [{"role": "user", "content": words}]
    if dice.random() < 0.1:
        payload["on_interrupt"] = "keep"
    if dice.random() < 0.03:
        payload["delay_s"] = round(dice.uniform(0.5, 3), 1)
    if dice.random() < 0.05:
        payload["expires_in_s"] = 3_600
    return payload
