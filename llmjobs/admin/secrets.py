"""A client's webhook secret: rotated, and the new one shown once.

The secret exists in one answer, to the POST that made it, which may not be cached. The one before signs beside it for a
day, so that the receiver can be changed meanwhile.
"""

from datetime import timedelta

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from llmjobs import webhooks
from llmjobs.admin import confirm
from llmjobs.admin.cells import duration
from llmjobs.conf import conf
from llmjobs.models import Client

JUST_NOW = timedelta(minutes=1)  # within it a page that is loaded again must not end the secret that receivers have


@admin.action(description="Rotate the webhook secret", permissions=["change"])
def rotate_secret(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[Client]) -> HttpResponse:
    clients = list(queryset.order_by("pk")[:2])
    if len(clients) != 1:
        page.message_user(request, "Select one client: each has a secret to be copied.", messages.ERROR)
        return confirm.back(page, request)
    [client] = clients
    if not confirm.is_confirmed(request):
        return confirm.asked(page, request, _question(client))
    with transaction.atomic():
        client = Client.objects.select_for_update(no_key=True).get(pk=client.pk)
        if _was_rotated_just_now(client):
            page.message_user(request, "It was rotated just now: wait a minute.", messages.WARNING)
            return confirm.back(page, request)
        secret = webhooks.rotate_secret(client)
        confirm.record(request, [client], "Rotated the webhook secret")
    context = {
        **page.admin_site.each_context(request),
        "title": "Webhook secret rotated",
        "opts": page.opts,
        "media": page.media,
        "original": client,
        "secret": secret,
        "overlap": _overlap(),
    }
    request.current_app = page.admin_site.name
    # Every view of the admin answers with `no-store`.
    return TemplateResponse(request, "admin/llmjobs/client/secret.html", context)


def secrets_text(client: Client) -> str:
    until = client.old_webhook_secret_until
    if client.old_webhook_secret is None or until is None or until <= timezone.now():
        return "one secret signs"
    return f"two secrets sign: the one before the present one until {timezone.localtime(until):%Y-%m-%d %H:%M:%S}"


def _question(client: Client) -> confirm.Question:
    notes = [f"The new secret is shown once. The present one signs beside it for {_overlap()}."]
    if secrets_text(client) != "one secret signs":
        notes.append("The one before the present one still signs; it ends at once.")
    return confirm.Question(
        action="rotate_secret",
        title="Rotate the webhook secret",
        button=f"Rotate the secret of {client.name}",
        lines=[("client", 1)],
        notes=notes,
    )


def _was_rotated_just_now(client: Client) -> bool:
    overlap = timedelta(seconds=conf.webhook_secret_overlap_s)
    until = client.old_webhook_secret_until
    return until is not None and until - overlap > timezone.now() - JUST_NOW


def _overlap() -> str:
    return duration(timedelta(seconds=conf.webhook_secret_overlap_s))
