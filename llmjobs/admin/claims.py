"""Pause and resume of all claims: a button on the workers' list, asked once, and a list of the pauses that were.

Owns the question and the history; the verbs are `queue.pause_claims` and `queue.resume_claims`.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from llmjobs import queue
from llmjobs.admin import confirm
from llmjobs.admin.cells import badge, moment
from llmjobs.admin.pages import ViewOnlyPage
from llmjobs.models import ClaimsPause
from llmjobs.pauses import open_pause

MAY_PAUSE = "llmjobs.pause_claims"
PAUSE_NOTES = (
    "No worker starts anything until claims are resumed. Jobs are still accepted and wait; calls in flight end as they "
    "would, and their answers are kept.",
    "It can be undone at any time: resume.",
)
RESUME_NOTES = ("Workers go on at once, in fair order and inside the limits.",)


def state(request: HttpRequest) -> dict[str, Any]:
    """For the workers' list: the pause that holds, and what the reader may do about it."""
    return {
        "claims_pause": open_pause(),
        "may_pause_claims": request.user.has_perm(MAY_PAUSE),
        "may_view_pauses": request.user.has_perm("llmjobs.view_claimspause"),
    }


def switch(page: admin.ModelAdmin, request: HttpRequest) -> HttpResponse:
    """POST `do`: pause or resume. First a question, then the deed; what others did meanwhile is said."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not request.user.has_perm(MAY_PAUSE):
        raise PermissionDenied
    do = request.POST.get("do")
    if do not in ("pause", "resume"):
        return HttpResponseBadRequest("expected do=pause or do=resume")
    is_pause = do == "pause"
    if not confirm.is_confirmed(request):
        return _asked(page, request, is_pause)
    by = str(request.user)
    with transaction.atomic():
        changed = queue.pause_claims(by=by, reason=confirm.reason(request)) if is_pause else queue.resume_claims(by=by)
        confirm.record(request, [changed] if changed else [], "Paused all claims" if is_pause else "Resumed all claims")
    if changed is None:
        page.message_user(request, f"All claims were {'paused' if is_pause else 'resumed'} already.", messages.WARNING)
    else:
        page.message_user(request, "All claims are paused." if is_pause else "Claims go on.", messages.SUCCESS)
    return HttpResponseRedirect(_list())


def _list() -> str:
    return reverse("admin:llmjobs_worker_changelist")


def _asked(page: admin.ModelAdmin, request: HttpRequest, is_pause: bool) -> HttpResponse:
    word = "Pause" if is_pause else "Resume"
    context = {
        **page.admin_site.each_context(request),
        "title": f"{word} all claims",
        "opts": page.opts,
        "media": page.media,
        "hidden": [("do", "pause" if is_pause else "resume")],
        "button": f"{word} all claims",
        "notes": PAUSE_NOTES if is_pause else RESUME_NOTES,
        "form": confirm.ReasonForm(request.POST if "confirmed" in request.POST else None),
        "back": _list(),
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/llmjobs/ask.html", context)


@admin.register(ClaimsPause)
class ClaimsPausePage(ViewOnlyPage):
    list_display = ("id", "state", "began", "by", "reason", "until", "resumed_by")
    fields = ("state", "began", "by", "reason", "until", "resumed_by")

    @admin.display(description="state")
    def state(self, pause: ClaimsPause) -> SafeString:
        return badge("paused" if pause.resumed_at is None else "over")

    @admin.display(description="since")
    def began(self, pause: ClaimsPause) -> str | SafeString:
        return moment(pause.since)

    @admin.display(description="until")
    def until(self, pause: ClaimsPause) -> str | SafeString:
        return moment(pause.resumed_at)
