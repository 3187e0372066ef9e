"""`manage.py createclient`: a client to begin with, and a key for it, which is shown this once.

A client that exists is found, and stays as it is: the admin and `configure` change tiers and limits. With
`--rotate-webhook-secret` it gets a new secret, and no key.
"""

import argparse
import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from llmjobs.checks import require_supported_server
from llmjobs.models import ApiKey, Client, Tier
from llmjobs.models.tenants import DEFAULT_SCOPES, Scope
from llmjobs.webhooks import rotate_secret

DEFAULT_TIER = "free"


class Command(BaseCommand):
    help = "Make a client (or find it) and print a new API key for it, once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--tier", help=f"of a new client; by default {DEFAULT_TIER}")
        parser.add_argument(
            "--scopes",
            default=",".join(DEFAULT_SCOPES),
            help=f"of the key, separated by commas: {', '.join(Scope.values)}; by default %(default)s",
        )
        parser.add_argument(
            "--rotate-webhook-secret",
            action="store_true",
            help="of a client that exists: a new secret and no key; the old secret signs beside it for a day",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *, name: str, tier: str | None, scopes: str, **options: Any) -> None:
        require_supported_server()
        with transaction.atomic():
            if options["rotate_webhook_secret"]:
                client, key, is_secret_new = _rotated(name), None, True
            else:
                client, is_secret_new = _find_or_make(name, tier)
                _, key = ApiKey.objects.issue(client, scopes=_parsed(scopes))
        made = {
            "client": client.name,
            "tier": client.tier.name,
            "api_key": key,
            "webhook_secret": client.webhook_secret if is_secret_new else None,
        }
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for label, value in made.items():
            if value is not None:
                self.stdout.write(f"{label.replace('_', ' ') + ':':16}{value}")
        if key is not None:
            self.stdout.write("The key is not stored and can't be shown again.")
        if not is_secret_new:
            self.stdout.write("The webhook secret was shown once; --rotate-webhook-secret makes a new one.")


def _rotated(name: str) -> Client:
    client = (
        Client.objects.select_for_update(no_key=True, of=("self",)).select_related("tier").filter(name=name).first()
    )
    if client is None:
        raise CommandError(f"Expected a client that exists, got {name!r}: a new one has a new secret")
    rotate_secret(client)
    return client


def _find_or_make(name: str, tier_name: str | None) -> tuple[Client, bool]:
    """The client, and whether it was made now."""
    client = Client.objects.select_related("tier").filter(name=name).first()
    if client is not None:
        if tier_name not in (None, client.tier.name):
            raise CommandError(
                f"--tier: expected {client.tier.name!r}, which the client {name!r} is in, or nothing; got {tier_name!r}"
            )
        return client, False
    tier_name = tier_name or DEFAULT_TIER
    tier = Tier.objects.filter(name=tier_name).first()
    if tier is None:
        known = ", ".join(Tier.objects.values_list("name", flat=True)) or "none"
        raise CommandError(f"--tier: expected one of {known}; got {tier_name!r}")
    client = Client(name=name, tier=tier)
    try:
        client.full_clean()
    except ValidationError as error:
        raise CommandError(f"{name!r} can't be a client's name: {' '.join(error.messages)}") from None
    client.save()
    return client, True


def _parsed(scopes: str) -> list[str]:
    found = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if not found or not set(found) <= set(Scope.values):
        raise CommandError(f"--scopes: expected some of {', '.join(Scope.values)}; got {scopes!r}")
    return found
