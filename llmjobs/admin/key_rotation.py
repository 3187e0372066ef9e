"""Rotate an API key: a new one, shown once, and the old one ends some hours later, so that callers can be changed.

Owns the question and the history. Invariant: the new key can do what the old one could, no more; who may not grant
that, may not rotate it. The key itself exists in the one answer to the POST that made it.
"""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Least, Now
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from llmjobs.admin import confirm
from llmjobs.models import ApiKey

JUST_NOW = timedelta(minutes=1)  # within it a second click must not make a second key
DID = "Rotated"
OVERLAPS_H = {0: "at once", 1: "in an hour", 24: "in a day", 72: "in three days", 168: "in a week"}


class OverlapForm(confirm.ReasonForm):
    overlap_h = forms.TypedChoiceField(
        choices=list(OVERLAPS_H.items()),
        coerce=int,
        initial=24,
        label="The old key ends",
        help_text="Until then both work: change the callers meanwhile.",
    )
    field_order = ("overlap_h", "reason")


def rotate(page: admin.ModelAdmin, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
    """The action; the page says who may."""
    keys = list(queryset.order_by("pk")[:2])
    if len(keys) != 1:
        return _refused(page, request, "Select one key: each new one has to be copied.")
    [key] = keys
    if key.revoked_at is not None:
        return _refused(page, request, "It is revoked: issue a new one.")
    form = OverlapForm(request.POST if "confirmed" in request.POST else None)
    if not form.is_valid():
        return _asked(page, request, key, form)
    with transaction.atomic():
        old = ApiKey.objects.select_for_update().get(pk=key.pk)
        if old.revoked_at is not None or _was_rotated_just_now(old):
            return _refused(page, request, "It was rotated or revoked just now: look again.")
        new, secret = _successor(old)
        ApiKey.objects.filter(pk=old.pk).update(
            expires_at=Least("expires_at", Now() + timedelta(hours=form.cleaned_data["overlap_h"]))
        )
        confirm.record(request, [old], f"{DID}, followed by {new.prefix}…")
        confirm.record(request, [new], f"Made to follow {old.prefix}…")
    return _shown(page, request, new, secret, OVERLAPS_H[form.cleaned_data["overlap_h"]])


def _refused(page: admin.ModelAdmin, request: HttpRequest, words: str) -> HttpResponse:
    page.message_user(request, words, messages.WARNING)
    return confirm.back(page, request)


def _successor(old: ApiKey) -> tuple[ApiKey, str]:
    """Of one that expires: as long after its making as the old one was to."""
    lifetime = None if old.expires_at is None else old.expires_at - old.created_at
    expires_at = None if lifetime is None else timezone.now() + lifetime
    return ApiKey.objects.issue(old.client, name=old.name, scopes=old.scopes, expires_at=expires_at)


def _was_rotated_just_now(key: ApiKey) -> bool:
    """By the history, which is written under the same lock."""
    return LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(ApiKey),
        object_id=str(key.pk),
        action_flag=CHANGE,
        change_message__startswith=DID,
        action_time__gt=timezone.now() - JUST_NOW,
    ).exists()


def _asked(page: admin.ModelAdmin, request: HttpRequest, key: ApiKey, form: forms.Form) -> HttpResponse:
    hidden: list[tuple[str, Any]] = [("action", "rotate"), (ACTION_CHECKBOX_NAME, key.pk), ("select_across", 0)]
    context = {
        **page.admin_site.each_context(request),
        "title": "Rotate an API key",
        "opts": page.opts,
        "media": page.media,
        "form": form,
        "hidden": [*hidden, ("from_page", request.POST.get("from_page", ""))],
        "notes": [
            f"A new key of {key.client} takes the place of {key.prefix}…, with the same scopes. It is shown once.",
            "The end of the old key can be changed on its page until it has come.",
        ],
        "button": "Rotate the key",
        "back": confirm.came_from(page, request),
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/llmjobs/ask.html", context)


def _shown(page: admin.ModelAdmin, request: HttpRequest, key: ApiKey, secret: str, ends: str) -> HttpResponse:
    context = {
        **page.admin_site.each_context(request),
        "title": "API key rotated",
        "opts": page.opts,
        "media": page.media,
        "original": key,
        "key": secret,
        "old_ends": ends,
    }
    request.current_app = page.admin_site.name
    # Every view of the admin answers with `no-store`.
    return TemplateResponse(request, "admin/llmjobs/apikey/issued.html", context)
