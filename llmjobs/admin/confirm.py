"""Asked once, done in batches, written down: the road of every action on a selection.

    asked(...)     first time: a page with what would be done, by state, and a field for the reason; nothing is changed
    record(...)    afterwards: who did what to which rows, and why, in the admin's history

A selection is what was ticked, or all that the filter matches, up to `SELECTED_MAX`. Between the question and the
answer more rows may come to match; `up_to` keeps those out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from llmjobs.admin.filters import as_id

SELECTED_MAX = 10_000  # a request of some seconds; the rest by doing it again
LOG_EACH_MAX = 200  # a history entry a row up to here; above, one a batch
REASON_CHARS_MAX = 200


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=REASON_CHARS_MAX,
        required=False,
        help_text="Why; it is kept in the history.",
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )


@dataclass(frozen=True, slots=True)
class Question:
    """`action` is the action's name, `title` and `button` are what people read, `lines` (what, how many selected).

    `hidden`: (name, value) that come back with the answer. `is_idle`: nothing would be done, so it can't be answered.
    """

    action: str
    title: str
    button: str
    lines: Sequence[tuple[str, int | str]]
    notes: Sequence[str] = field(default=())
    up_to: int | None = None
    hidden: Sequence[tuple[str, str]] = field(default=())
    is_idle: bool = False


def is_confirmed(request: HttpRequest) -> bool:
    return "confirmed" in request.POST and ReasonForm(request.POST).is_valid()


def reason(request: HttpRequest) -> str:
    form = ReasonForm(request.POST)
    return form.cleaned_data["reason"] if form.is_valid() else ""


def is_across(request: HttpRequest) -> bool:
    """All that the filter matches, rather than what is ticked."""
    return request.POST.get("select_across") == "1"


def bounded(request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
    """`queryset` without what came to match after the question was asked."""
    up_to = as_id(request.POST.get("up_to", ""))
    return queryset if up_to is None else queryset.filter(pk__lte=up_to)


def asked(
    page: admin.ModelAdmin, request: HttpRequest, question: Question, *, form: forms.Form | None = None, back: str = ""
) -> HttpResponse:
    """`form`: with more to ask than the reason; `back`: where who says no goes, if not where they came from."""
    if form is None:
        form = ReasonForm(request.POST if "confirmed" in request.POST else None)
    context = {
        **page.admin_site.each_context(request),
        "title": question.title,
        "opts": page.opts,
        "media": page.media,
        "question": question,
        "form": form,
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME)[: 1 if is_across(request) else None],
        "checkbox_name": ACTION_CHECKBOX_NAME,
        "select_across": int(is_across(request)),
        "from_page": request.POST.get("from_page", ""),
        "back": back or came_from(page, request),
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/llmjobs/confirm.html", context)


def came_from(page: admin.ModelAdmin, request: HttpRequest) -> str:
    """The row's own page where its button was pressed, else the list with its filter."""
    selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
    if request.POST.get("from_page") and len(selected) == 1:
        return reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_change", args=selected)
    return request.get_full_path()


def back(page: admin.ModelAdmin, request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(came_from(page, request))


def record(request: HttpRequest, rows: Sequence[Model], did: str, *, each: bool = True) -> None:
    """History: "<did>: <reason>" for each row, or in one entry for all of them with their ids."""
    if not rows:
        return
    why = reason(request)
    user_id: Any = request.user.pk  # an int, or what the site's own user model has
    message = f"{did}: {why}" if why else f"{did}."
    if each:
        LogEntry.objects.log_actions(user_id, rows, CHANGE, message)
        return
    LogEntry.objects.create(
        user_id=user_id,
        content_type=ContentType.objects.get_for_model(rows[0]),
        object_repr=f"{len(rows)} {rows[0]._meta.verbose_name_plural}",
        action_flag=CHANGE,
        change_message=f"{message} ids {' '.join(str(row.pk) for row in rows)}",
    )
