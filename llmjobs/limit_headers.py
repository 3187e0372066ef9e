"""`x-ratelimit-*`: what a client's own limits a minute leave it, in the forms of OpenAI's headers.

Owns the look. Does not own the figures: `limits.py` and the claim's buckets do. What waits counts as used, since it
comes first; nothing else is refused for these limits than what asked for it.
"""

import math

from django.db import Error

from llmjobs import limits
from llmjobs.models import Client


def of(client: Client, *, can_ask: bool = True) -> dict[str, str]:
    """None for a client without such limits; what is left only where the database can be asked."""
    found = {}
    for name, kind in limits.RATES.items():
        if (limit := limits.own(client, name)) is not None:
            found[f"x-ratelimit-limit-{kind}"] = str(limit)
    if not found or not can_ask:
        return found
    try:
        taken = limits.taken(client)
    except Error:  # an answer that is there shall not fail for its headers
        return found
    for name, kind in limits.RATES.items():
        limit, used = limits.own(client, name), getattr(taken, kind)
        if limit is not None and used is not None:
            found[f"x-ratelimit-remaining-{kind}"] = str(max(math.floor(limit - used), 0))
            found[f"x-ratelimit-reset-{kind}"] = duration(used * 60 / limit)
    return found


def duration(seconds: float) -> str:
    """As Go writes it, to the millisecond: "0s", "17ms", "1s", "59.951s", "6m0s", "1h0m0.5s"."""
    ms = math.ceil(max(seconds, 0) * 1000)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    larger = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{larger}{ms / 1000:g}s"
