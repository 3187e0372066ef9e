"""Edit and requeue: a failed, dead, cancelled or expired job again, with a request that an operator has changed.

A form, then what would change, then the reason and the deed. What was typed is checked by `submissions.parse`, as a
submit's is; `queue.requeue_as` does it. Only for who may requeue and see content. Invariant: one form requeues a job
once: it names the epoch that it was made for, and the job's row is locked while that is compared. The history has the
names of what was changed, never a prompt.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from llmjobs import queue, submissions
from llmjobs.admin.confirm import REASON_CHARS_MAX
from llmjobs.admin.pages import may_see_content
from llmjobs.errors import LlmjobsError, NotAllowed
from llmjobs.models import Job, Model
from llmjobs.models.jobs import PRIORITIES
from llmjobs.states import REQUEUEABLE
from llmjobs.submissions import Submission

MODELS_SUGGESTED = 100
LINES_AROUND = 3
DIFF_LINES_MAX = 2_000
LINE_CHARS_MAX = 120  # of a line that can't be read, in its error
BODY_BYTES_MAX = 2_000_000  # of a request in a form; Django takes 2.5 MB of all fields together
FIELDS = ("model", "priority", "max_attempts", "timeout_s")


def may_edit(request: HttpRequest) -> bool:
    return request.user.has_perm("llmjobs.requeue_job") and may_see_content(request)


class EditForm(forms.Form):
    model = forms.CharField(widget=forms.TextInput(attrs={"class": "vTextField", "list": "llmjobs-models"}))
    priority = forms.TypedChoiceField(choices=PRIORITIES, coerce=int)
    max_attempts = forms.IntegerField(help_text="Failures until it is dead; they are counted anew.")
    timeout_s = forms.FloatField(label="Timeout", help_text="Seconds, of an attempt.")
    body = forms.CharField(
        label="Request",
        strip=False,
        help_text="JSON, as the provider gets it, without the model.",
        widget=forms.Textarea(attrs={"class": "vLargeTextField", "rows": 24, "spellcheck": "false"}),
    )
    epoch = forms.IntegerField(widget=forms.HiddenInput)
    reason = forms.CharField(
        max_length=REASON_CHARS_MAX,
        required=False,
        help_text="Why; it is kept in the history.",
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )

    def __init__(self, job: Job, asked: Mapping[str, Any], data: Any = None) -> None:
        """`asked`: of `queue.asked_of`, what stays and what is edited."""
        super().__init__(data, initial=_initial(job, asked))
        self.job, self.asked = job, asked
        self.submission: Submission | None = None

    def clean_body(self) -> Any:
        text = self.cleaned_data["body"]
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            line = text.split("\n")[error.lineno - 1].strip()[:LINE_CHARS_MAX]
            raise forms.ValidationError(f"Expected JSON; {where}: {error.msg}. The line is: {line}") from None
        except RecursionError:
            raise forms.ValidationError("Expected JSON that is nested less deeply.") from None
        except ValueError:  # Python reads no longer ones
            raise forms.ValidationError("Expected JSON with numbers of fewer digits.") from None

    def clean(self) -> dict[str, Any]:
        if not self.errors:
            try:
                edited = {name: self.cleaned_data[name] for name in (*FIELDS, "body")}
                self.submission = submissions.parse({**self.asked, **edited})
            except LlmjobsError as error:
                self.refuse(error)
        return self.cleaned_data

    def refuse(self, error: LlmjobsError) -> None:
        """Beside the field that it names; a part of the request by its path."""
        param = getattr(error, "param", None)
        if param in FIELDS:
            self.add_error(param, str(error))
        elif param:
            self.add_error("body", f"{param}: {error}")
        else:
            self.add_error(None, str(error))


def _initial(job: Job, asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": asked["model"], "priority": job.priority, "max_attempts": job.max_attempts,
        "timeout_s": f"{job.timeout_s:g}", "body": _pretty(_without_model(asked["body"])), "epoch": job.epoch,
    }  # fmt: skip


def _without_model(body: Any) -> Any:
    """The model is a field of its own."""
    return {key: value for key, value in body.items() if key != "model"} if isinstance(body, Mapping) else body


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


# What would change.


@dataclass(frozen=True, slots=True)
class Line:
    """`kind` is "in", "out", or "" for a line that stays."""

    kind: str
    text: str


def changed_fields(form: EditForm) -> list[tuple[Any, Any, Any]]:
    """(label, before, after) of those beside the request."""
    words = dict(PRIORITIES)
    before = {**form.initial, "priority": words[form.initial["priority"]]}
    after = {**form.cleaned_data, "timeout_s": f"{form.cleaned_data['timeout_s']:g}"}
    after["priority"] = words[after["priority"]]
    return [
        (form.fields[name].label or name.replace("_", " "), before[name], after[name])
        for name in FIELDS
        if before[name] != after[name]
    ]


def changed_lines(form: EditForm) -> list[Line]:
    """Of the request, line by line; empty where it stays as it is."""
    before, after = form.initial["body"], _pretty(form.cleaned_data["body"])
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), n=LINES_AROUND, lineterm="")
    kinds = {"+": "in", "-": "out"}
    return [Line(kinds.get(line[:1], ""), line) for line in list(found)[2:]][:DIFF_LINES_MAX]


def changed_names(form: EditForm) -> Iterator[str]:
    """For the history: fields, and the top keys of the request that differ."""
    yield from (str(label) for label, _, _ in changed_fields(form))
    before, after = _without_model(form.asked["body"]), form.cleaned_data["body"]
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        if before != after:
            yield "request"
        return
    for key in sorted({*before, *after}):
        if before.get(key, form) != after.get(key, form):
            yield f"request.{key}"[:100]


# The page.


def answer(page: admin.ModelAdmin, request: HttpRequest, job: Job) -> HttpResponse:
    if job.state not in REQUEUEABLE:
        return _to_job(page, request, job, f"This job can't be requeued: it is {job.state}.")
    try:
        asked = queue.asked_of(job)
    except NotAllowed:
        return _to_job(page, request, job, "This job can't be requeued: its request was erased.")
    except (ValueError, RecursionError):
        return _to_job(page, request, job, "This job's request can't be edited: it is no JSON.")
    if len(_pretty(asked["body"]).encode()) > BODY_BYTES_MAX:
        said = "This job's request is too long for a form: fetch it, edit it, and submit it anew."
        return _to_job(page, request, job, said)
    if request.method != "POST":
        return _asked(page, request, EditForm(job, asked))
    form = EditForm(job, asked, request.POST)
    if not form.is_valid() or "again" in request.POST:
        return _asked(page, request, form)
    if "confirmed" not in request.POST:
        return _reviewed(page, request, form)
    try:
        is_done = _carry_out(request, form)
    except LlmjobsError as error:
        form.refuse(error)
        return _asked(page, request, form)
    if is_done:
        return _to_job(page, request, job, "Requeued with the edited request.", messages.SUCCESS)
    return _to_job(page, request, job, "Not requeued: the job has moved on since the form was opened.")


def _carry_out(request: HttpRequest, form: EditForm) -> bool:
    """False where the job is not as the form knew it: another tab, or a second click, was first."""
    if form.submission is None:
        raise TypeError("expected a form that is valid, got one without a submission")
    with transaction.atomic():
        epoch = (
            Job.objects.select_for_update(no_key=True).filter(pk=form.job.pk).values_list("epoch", flat=True).first()
        )
        if epoch != form.cleaned_data["epoch"] or not queue.requeue_as(form.job.pk, form.submission):
            return False
        names = ", ".join(changed_names(form)) or "nothing"
        why = form.cleaned_data["reason"]
        user_id: Any = request.user.pk
        message = f"Requeued with an edited request (changed: {names})"
        LogEntry.objects.log_actions(
            user_id, [form.job], CHANGE, f"{message}: {why}" if why else f"{message}.", single_object=True
        )
    return True


def _asked(page: admin.ModelAdmin, request: HttpRequest, form: EditForm) -> HttpResponse:
    models = Model.objects.order_by("name").values_list("name", flat=True)[:MODELS_SUGGESTED]
    return _shown(page, request, form, "admin/llmjobs/job/edit.html", "Edit and requeue", models=models)


def _reviewed(page: admin.ModelAdmin, request: HttpRequest, form: EditForm) -> HttpResponse:
    return _shown(
        page, request, form, "admin/llmjobs/job/edit_review.html", "Requeue with these changes?",
        fields=changed_fields(form), lines=changed_lines(form),
        kept=[(name, form.data.get(name, "")) for name in (*FIELDS, "body", "epoch")],
    )  # fmt: skip


def _shown(
    page: admin.ModelAdmin, request: HttpRequest, form: EditForm, template: str, title: str, **more: Any
) -> HttpResponse:
    context = {
        **page.admin_site.each_context(request), "title": title, "opts": page.opts, "media": page.media,
        "original": form.job, "form": form, "back": _url(form.job), **more,
    }  # fmt: skip
    request.current_app = page.admin_site.name
    return TemplateResponse(request, template, context)


def _to_job(
    page: admin.ModelAdmin, request: HttpRequest, job: Job, said: str, level: int = messages.WARNING
) -> HttpResponse:
    page.message_user(request, said, level)
    return HttpResponseRedirect(_url(job))


def _url(job: Job) -> str:
    return reverse("admin:llmjobs_job_change", args=[job.pk])
