"""Who asks, and what they may do: API keys, sessions, scopes, and the jobs that a caller can see.

Owns authentication by key, and the tenant's boundary (`Caller.jobs`). Does not own how HTTP or a WebSocket
carries a key, nor their answers: api/, live/ and console/ do. Invariant: nobody reaches a job but through
`Caller.jobs`, so that another's job is no job.

A key is looked up by its SHA-256 in an index: what the time of that look-up tells is about the hash, of which
nobody can choose a prefix for a key of 256 random bits. The database's clock decides about expiry.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from django.contrib.auth.models import AbstractUser
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from llmjobs.database import prepared_cursor, rows_of
from llmjobs.errors import ClientNotFound, LlmjobsError
from llmjobs.models import ApiKey, Client, Job, Tier
from llmjobs.models.tenants import Scope, hash_key
from llmjobs.sql import load

LAST_USED_PRECISION = timedelta(minutes=1)  # a write at every request would make a hot row of every key
OWN_SCOPES = frozenset({Scope.SUBMIT.value, Scope.READ.value, Scope.CANCEL.value})


class KeyRefused(LlmjobsError):
    """No such key, or one that is no longer valid. Only who holds a key is told why it is refused."""


def check_key(key: str) -> ApiKey:
    """The key's row, with its client and tier. Raises KeyRefused. One query; two more once a minute."""
    found, checked_at = _find(key)
    if found.revoked_at is not None:
        raise KeyRefused(f"This API key was revoked on {found.revoked_at:%Y-%m-%d %H:%M} UTC.")
    if found.expires_at is not None and found.expires_at <= checked_at:
        raise KeyRefused(f"This API key expired on {found.expires_at:%Y-%m-%d %H:%M} UTC.")
    if found.last_used_at is None or found.last_used_at <= checked_at - LAST_USED_PRECISION:
        _note_use(found)
    return found


def authenticate_key(key: str) -> ApiKey | None:
    """`check_key` for those who tell a stranger nothing."""
    try:
        return check_key(key)
    except KeyRefused:
        return None


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key or user. `client` is whose its submitted jobs are; None: it has none, or has not chosen."""

    label: str  # for logs: a key's prefix or a user's id
    client_ids: tuple[int, ...]
    client: Client | None
    scopes: frozenset[str]
    is_operator: bool  # sees every client's jobs
    steers_all: bool  # may also cancel and erase them
    api_key_id: int | None = None  # None: a session
    sees_statistics: bool = False  # of all clients: numbers alone, so who may read no prompt may have it
    clients: tuple[Client, ...] = ()  # its own, by name, with their tiers
    user_id: int | None = None  # of a session

    @classmethod
    def from_key(cls, key: ApiKey) -> Self:
        """`key` as `check_key` returns it: with its client and tier."""
        is_operator = Scope.OPERATOR in key.scopes
        return cls(
            label=key.prefix,
            client_ids=(key.client_id,),
            client=key.client,
            scopes=frozenset(key.scopes),
            is_operator=is_operator,
            steers_all=is_operator,
            api_key_id=key.pk,
            sees_statistics=is_operator,
            clients=(key.client,),
        )

    @classmethod
    def from_user(cls, user: AbstractUser) -> Self:
        """A user of several clients reads the jobs of all, and submits for the one that it chooses."""
        clients = tuple(user.llmjobs_clients.select_related("tier"))  # type: ignore[attr-defined]
        is_operator = user.is_staff and user.has_perms(("llmjobs.view_job", "llmjobs.view_job_content"))
        return cls(
            label=f"user:{user.pk}",
            client_ids=tuple(client.pk for client in clients),
            client=clients[0] if len(clients) == 1 else None,
            scopes=OWN_SCOPES | ({Scope.OPERATOR.value} if is_operator else set()),
            is_operator=is_operator,
            steers_all=is_operator and user.has_perm("llmjobs.cancel_job"),
            sees_statistics=user.is_staff and user.has_perm("llmjobs.view_job"),
            clients=clients,
            user_id=user.pk,
        )

    def choose(self, name: str) -> Self:
        """The same caller, who acts for this client of its own. It sees the jobs of all its clients as before.

        Raises ClientNotFound.
        """
        for client in self.clients:
            if client.name == name:
                return replace(self, client=client)
        raise ClientNotFound("There is no such client, or it is not the caller's.")

    def can(self, scope: str) -> bool:
        """An operator reads and cancels, but submits only with that scope too."""
        return scope in self.scopes or (self.is_operator and scope != Scope.SUBMIT)

    def may_steer(self, job: Job) -> bool:
        """Cancel or erase this job, which it sees."""
        return self.steers_all or (Scope.CANCEL in self.scopes and job.client_id in self.client_ids)

    def jobs(self) -> QuerySet[Job]:
        """The jobs that exist for this caller."""
        if self.is_operator:
            return Job.objects.all()
        return Job.objects.filter(client_id__in=self.client_ids)


def _find(key: str) -> tuple[ApiKey, datetime]:
    """The row, with its client and tier, and the database's time. Raises KeyRefused."""
    with prepared_cursor() as cursor:
        cursor.execute(load("find_key"), {"hash": hash_key(key)})
        row = cursor.fetchone()
        if row is None:
            raise KeyRefused("There is no such API key.")
        made = rows_of(cursor, row, {"key": ApiKey, "client": Client, "tier": Tier})
    made["client"].tier, made["key"].client = made["tier"], made["client"]
    return made["key"], row[0]


def _note_use(key: ApiKey) -> None:
    """Skips a row that somebody holds: an admin's open transaction must not stop the key's requests."""
    with transaction.atomic():
        if ApiKey.objects.select_for_update(skip_locked=True, no_key=True, of=("self",)).filter(pk=key.pk).exists():
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=Now())
