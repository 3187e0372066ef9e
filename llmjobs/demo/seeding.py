"""Who and what is there in a demo: clients of three tiers, their users, an operator, an administrator; models, keys.

Owns these rows, which it makes once and leaves as people changed them, and the file with their secrets: the database
has only hashes, and a second demo shall show the same. Invariant: the secrets are made at random on this machine, and
the file has mode 0600.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, User
from django.db import transaction

from llmjobs.models import ApiKey, Client, Model, Provider, Tier
from llmjobs.models.tenants import KEY_PREFIX_CHARS, hash_key

CLIENTS = {"acme": "enterprise", "globex": "pro", "initech": "free", "hooli": "free"}
ADMIN, OPERATOR = "admin", "operator"
KEY_NAME = "demo"
MARK = "@demo.invalid"  # in the e-mail address of users that a demo made
OPERATORS = "llmjobs operator"  # the group that migrations make
SIMULATOR, OPENAI = "simulator", "openai"
OPENAI_URL = "https://api.openai.com/v1"
AMPLE = {"rpm": 60_000, "tpm": 60_000_000, "context_window": 128_000}  # a replay at a hundred times its speed fits

# Prices are those of a small, a large and an embedding model of 2025, in dollars a million tokens.
MODELS: dict[str, dict[str, Any]] = {
    "sim-small": {"input_usd_per_mtok": Decimal("0.15"), "output_usd_per_mtok": Decimal("0.60")},
    "sim-large": {"input_usd_per_mtok": Decimal("2.50"), "output_usd_per_mtok": Decimal("10")},
    "sim-slow": {  # five seconds to the first token
        "input_usd_per_mtok": Decimal("0.15"),
        "output_usd_per_mtok": Decimal("0.60"),
        "upstream_name": "sim-slow@slow_first_token::5",
    },
    "sim-vectors": {"input_usd_per_mtok": Decimal("0.02"), "output_usd_per_mtok": Decimal(0)},
}


class NotOurs(Exception):
    """The database has a user of a demo's name that no demo made."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """`password` is that of all users of the demo; `api_keys` are by client."""

    password: str
    api_keys: Mapping[str, str]


def seed(secrets_file: Path) -> Secrets:
    """Make what is missing. Raises NotOurs."""
    kept = _read(secrets_file)
    with transaction.atomic():
        clients = {name: _client(name, tier) for name, tier in CLIENTS.items()}
        keys = {name: _key(client, kept.api_keys.get(name)) for name, client in clients.items()}
        password = kept.password or secrets.token_urlsafe(9)
        _users(clients, password, is_new=not kept.password)
    found = Secrets(password, keys)
    if found != kept:
        _write(secrets_file, found)
    return found


def seed_models(base_url: str) -> None:
    """The simulator's models; its port is another in each demo. A provider that costs money stands still meanwhile."""
    with transaction.atomic():
        provider, is_new = Provider.objects.get_or_create(name=SIMULATOR, defaults={"base_url": base_url})
        if not is_new:
            Provider.objects.filter(pk=provider.pk).update(base_url=base_url)
        known = set(Model.objects.values_list("name", flat=True))
        for name, fields in MODELS.items():
            if name not in known:
                Model.objects.create(name=name, provider=provider, **AMPLE, **fields)
        Provider.objects.filter(name=OPENAI, is_paused=False).update(is_paused=True)


def seed_openai(model: str) -> None:
    """OpenAI, or what OPENAI_BASE_URL names, and one of its models, with the limits that are the default."""
    base_url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    with transaction.atomic():
        provider, _ = Provider.objects.update_or_create(
            name=OPENAI, defaults={"base_url": base_url, "api_key_env": "OPENAI_API_KEY", "is_paused": False}
        )
        Model.objects.get_or_create(name=model, defaults={"provider": provider})


def _client(name: str, tier: str) -> Client:
    found = Client.objects.select_related("tier").filter(name=name).first()
    return found or Client.objects.create(name=name, tier=Tier.objects.get_or_create(name=tier)[0])


def _key(client: Client, kept: str | None) -> str:
    """The kept key if it is still good (its row is made anew in another database), else a new one."""
    if kept is not None:
        row = ApiKey.objects.filter(hash=hash_key(kept)).first()
        if row is None:
            ApiKey.objects.create(client=client, name=KEY_NAME, prefix=kept[:KEY_PREFIX_CHARS], hash=hash_key(kept))
            return kept
        if row.revoked_at is None and row.expires_at is None and row.client_id == client.pk:
            return kept
    return ApiKey.objects.issue(client, name=KEY_NAME)[1]


def _users(clients: Mapping[str, Client], password: str, *, is_new: bool) -> None:
    """A new password reaches all users of a demo; otherwise those that are there keep theirs."""
    names = [ADMIN, OPERATOR, *clients]
    known = {user.username: user for user in User.objects.filter(username__in=names)}
    for user in known.values():
        if not user.email.endswith(MARK):
            raise NotOurs(
                f"the database has a user {user.username!r} that no demo made: use another database (DATABASE_URL)"
            )
    if len(known) < len(names) or is_new:
        _save_users(names, known, clients, password, is_new=is_new)
    User.objects.get(username=OPERATOR).groups.add(*Group.objects.filter(name=OPERATORS))


def _save_users(
    names: list[str], known: Mapping[str, User], clients: Mapping[str, Client], password: str, *, is_new: bool
) -> None:
    encoded = make_password(password)
    for name in names:
        staff = {"is_staff": name in (ADMIN, OPERATOR), "is_superuser": name == ADMIN}
        user = known.get(name) or User(username=name, email=name + MARK, **staff)
        if user.pk is None or is_new:
            user.password = encoded
            user.save()
        if name in clients:
            clients[name].users.add(user)


def _read(path: Path) -> Secrets:
    """Empty where there is no file, or none that can be read."""
    try:
        kept = json.loads(path.read_text())
        return Secrets(str(kept["password"]), {str(name): str(key) for name, key in kept["api_keys"].items()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return Secrets("", {})


def _write(path: Path, found: Secrets) -> None:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"password": found.password, "api_keys": dict(found.api_keys)}, file, indent=2)
    fresh.replace(path)
