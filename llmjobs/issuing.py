"""API keys that a client's users make for it, and revoke, without an operator.

Owns what such a key may be and how many there may be. Does not own who belongs to a client (`access.py`), nor the keys
that operators make (admin/keys.py). Invariant: no key of a user's makes its holder an operator, and whatever is done
here stands in the admin's history, for operators to see.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from llmjobs.conf import conf
from llmjobs.errors import NotAllowed
from llmjobs.models import ApiKey, Client
from llmjobs.models.tenants import Scope

GRANTABLE = (Scope.SUBMIT.value, Scope.READ.value, Scope.CANCEL.value)
SHOWN_MAX = 200
RECENT = timedelta(days=1)  # who revokes as fast as he makes does not fill the table
ADDED, CHANGED = 1, 2  # of the admin's history
VALID = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))


def keys_of(client: Client) -> list[ApiKey]:
    """The valid ones first, then those that are not, each the newest first; SHOWN_MAX at most."""
    keys = client.api_keys.select_related("created_by")
    valid = list(keys.filter(VALID).order_by("-id")[:SHOWN_MAX])
    return valid + list(keys.exclude(VALID).order_by("-id")[: SHOWN_MAX - len(valid)])


def issue(
    client: Client, user_id: Any, *, name: str, scopes: Sequence[str], expires_in_s: float | None
) -> tuple[ApiKey, str]:
    """The row and the key itself, which can't be read again. Raises NotAllowed where there are too many.

    `scopes`: of GRANTABLE. `expires_in_s` None: as long as may be.
    """
    if conf.users_key_max_s:
        expires_in_s = min(expires_in_s or conf.users_key_max_s, conf.users_key_max_s)
    with transaction.atomic():
        Client.objects.select_for_update(no_key=True).only("pk").get(pk=client.pk)  # who else makes one waits
        if client.api_keys.filter(VALID | Q(created_at__gt=Now() - RECENT)).count() >= conf.keys_per_client_max:
            raise NotAllowed(
                f"expected fewer than {conf.keys_per_client_max} keys of {client.name} that are valid or were made "
                "within a day: revoke one that is not used, or come again tomorrow"
            )
        row, key = ApiKey.objects.issue(
            client,
            name=name,
            scopes=sorted(set(scopes) & set(GRANTABLE), key=GRANTABLE.index),
            expires_at=None if expires_in_s is None else Now() + timedelta(seconds=expires_in_s),
            created_by_id=user_id,
        )
        row.refresh_from_db()
        _note(row, user_id, ADDED, f"Made by a user of {client.name}: {', '.join(row.scopes)}.")
    return row, key


def revoke(key: ApiKey, user_id: Any) -> ApiKey:
    """Idempotent. Raises NotAllowed for a key that only operators made, and revoke."""
    if Scope.OPERATOR in key.scopes:
        raise NotAllowed("expected a key of the client's own work, got an operator's: an operator revokes that")
    with transaction.atomic():
        if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()):
            _note(key, user_id, CHANGED, f"Revoked by a user of {key.client.name}.")
    key.refresh_from_db(fields=["revoked_at"])
    return key


def _note(key: ApiKey, user_id: Any, action: int, words: str) -> None:
    """Where the site has the admin."""
    if apps.is_installed("django.contrib.admin"):
        log: Any = apps.get_model("admin", "LogEntry")
        log.objects.log_actions(user_id, [key], action, words, single_object=True)
