"""On the page of a job: the links that show it to whoever has them, and revoking one.

Reading, but for `revoke`. A link's token is not known here either: who made it, until when it is valid, and when it was
opened last is all there is to see. To revoke one is to cancel: whoever may cancel the job may end what shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Case, Value, When
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString

from llmjobs import sharing
from llmjobs.admin.cells import badge, link_to, moment
from llmjobs.admin.filters import as_id
from llmjobs.models import ApiKey, Job, SharedLink

SHOWN_MAX = 50


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link as cells of a table. `is_valid`: it can be revoked."""

    id: int
    made: str | SafeString
    made_by: str | SafeString
    state: SafeString
    expires: str | SafeString
    seen: str | SafeString
    is_valid: bool


def rows(job: Job) -> list[LinkRow]:
    """The newest first. One query, and another where keys made them."""
    links = SharedLink.objects.filter(job=job).select_related("created_by").order_by("-id")
    found = list(links.annotate(is_valid=_valid())[:SHOWN_MAX])
    keys = ApiKey.objects.select_related("client").in_bulk({link.api_key_id for link in found if link.api_key_id})
    return [_row(link, keys.get(link.api_key_id or 0)) for link in found]


def revoke(page: admin.ModelAdmin, request: HttpRequest, job: Job | None) -> HttpResponse:
    """The button of one link. What was asked for twice is done once."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not page.has_view_permission(request, job) or not page.has_cancel_permission(request):  # type: ignore[attr-defined]
        raise PermissionDenied
    if job is None:
        raise Http404
    with transaction.atomic():
        chosen = SharedLink.objects.filter(job=job, pk=as_id(request.POST.get("link", "")) or 0)
        number = sharing.revoke(chosen.values_list("pk", flat=True))
        if number:
            user_id: Any = request.user.pk
            LogEntry.objects.log_actions(user_id, [job], CHANGE, "Revoked a link that showed it.", single_object=True)
    if number:
        page.message_user(request, "The link is revoked: it shows nothing any more.", messages.SUCCESS)
    else:
        page.message_user(request, "There is no such link, or it was revoked before.", messages.WARNING)
    return HttpResponseRedirect(reverse("admin:llmjobs_job_change", args=[job.pk]))


def _valid() -> Case:
    """By the database's clock."""
    return Case(When(sharing.VALID, then=Value(True)), default=Value(False))


def _row(link: Any, key: ApiKey | None) -> LinkRow:
    made_by: str | SafeString = "somebody who is gone"
    if link.created_by is not None:
        made_by = link.created_by.get_username()
    elif key is not None:
        made_by = link_to(key, f"the key {key.prefix}…")
    return LinkRow(
        id=link.pk,
        made=moment(link.created_at),
        made_by=made_by,
        state=badge("valid" if link.is_valid else "revoked" if link.revoked_at else "expired"),
        expires=moment(link.expires_at),
        seen=moment(link.last_seen_at) if link.last_seen_at else "never",
        is_valid=link.is_valid,
    )


def shown(job: Job, *, may_revoke: bool) -> dict[str, Sequence[LinkRow] | bool]:
    """What the section's template reads."""
    return {"shared_links": rows(job), "may_revoke_links": may_revoke}
