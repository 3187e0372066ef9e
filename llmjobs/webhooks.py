"""What a client is told of a job's end: the event, its id, its signature; and what people do about it.

Owns the event's form, redelivery, and the rotation of a client's secret. Does not own delivery (`deliveries.py`), nor
the rows: a trigger on Job writes one with each end.

Invariant: an end has one id for ever, so that a receiver that got it twice can tell. The event's type and time are the
end's; the job in it is as it is when it is sent, which may be later: requeued, or erased.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from llmjobs.conf import conf
from llmjobs.models import Client, Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.models.tenants import new_webhook_secret
from llmjobs.representation import job_json, time_json
from llmjobs.signing import webhook_headers
from llmjobs.sql import load


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try of one delivery, as take_deliveries.sql gives it. `tries` counts this one, `tried_at` names it.

    `public_id` is None if the job is gone, `secret` if the client is; `old_secret` unless one still signs.
    """

    id: int
    job_id: int
    epoch: int
    type: str
    url: str
    receiver: str
    client_id: int
    created_at: datetime
    tries: int
    tried_at: datetime
    public_id: UUID | None
    secret: str | None
    old_secret: str | None

    @property
    def message_id(self) -> str:
        """Of the end, the same at every try and redelivery."""
        return f"msg_{self.public_id}_{self.epoch}"


def body_of(delivery: Delivery) -> bytes | None:
    """The event as JSON; None: its job is gone. Over Django's connection."""
    job = Job.objects.select_related(*JOB_RELATED).filter(pk=delivery.job_id).first()
    if job is None:
        return None
    event = {
        "id": delivery.message_id,
        "object": "event",
        "type": delivery.type,
        "created_at": time_json(delivery.created_at),
        "data": job_json(job, with_place=False),
    }
    return json.dumps(event, separators=(",", ":")).encode()  # in ASCII: a model's half of a surrogate pair is no UTF-8


def headers_of(delivery: Delivery, body: bytes) -> dict[str, str]:
    """Signed by the client's secret, and by the one before for as long as that is valid.

    Raises ValueError if a secret is none.
    """
    keys = [key for key in (delivery.secret, delivery.old_secret) if key]
    if not keys:
        raise ValueError("expected a client with a webhook secret, found none")
    # The database's time: a worker's clock may be an hour off, and receivers refuse what is five minutes old.
    return webhook_headers(delivery.message_id, body, keys, sent_at_s=delivery.tried_at.timestamp())


def redeliver(delivery_ids: Sequence[int]) -> list[int]:
    """Send these again at once, whatever became of them, in the caller's transaction. Returns the ids it found."""
    with connection.cursor() as cursor:
        cursor.execute(load("redeliver"), {"ids": sorted(delivery_ids)})
        return sorted(row[0] for row in cursor.fetchall())


def rotate_secret(client: Client) -> str:
    """A new secret, which nobody can read again. The one before signs beside it for `conf.webhook_secret_overlap_s`.

    Of two rotations within that time the first one's old secret ends: two are valid at a time.
    """
    secret = new_webhook_secret()
    Client.objects.filter(pk=client.pk).update(
        old_webhook_secret=F("webhook_secret"),
        old_webhook_secret_until=Now() + timedelta(seconds=conf.webhook_secret_overlap_s),
        webhook_secret=secret,
    )
    client.webhook_secret = secret
    return secret
