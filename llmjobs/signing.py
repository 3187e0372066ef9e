"""Signatures as Standard Webhooks has them (https://www.standardwebhooks.com): who sent it, and that it is as sent.

Owns the three headers and what a secret looks like. Does not own secrets: they stand with the client, or in a setting.
Invariant: what is signed is exactly what is sent, `<id>.<timestamp>.<body>`, by each secret that is valid now.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 (of all such secrets)


def webhook_headers(
    message_id: str, body: bytes, keys: Sequence[str], *, sent_at_s: float | None = None
) -> dict[str, str]:
    """`keys`: secrets, the present one first; none leaves it unsigned. `sent_at_s`: of the Unix clock; None: now.

    Raises ValueError if a secret is none.
    """
    sent_at = str(int(time.time() if sent_at_s is None else sent_at_s))
    headers = {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": sent_at}
    if keys:
        signed = b".".join((message_id.encode(), sent_at.encode(), body))
        headers["webhook-signature"] = " ".join(_signature(key, signed) for key in keys)
    return headers


def webhook_key(secret: str) -> bytes:
    """The bytes that `whsec_…` stands for. Raises binascii.Error, a ValueError."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def _signature(secret: str, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(webhook_key(secret), signed, hashlib.sha256)).decode()
