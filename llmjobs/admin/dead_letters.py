"""Dead letters: what waits for an operator, in groups by error and model, and what can be done with a group.

The page counts and links; an action is asked once and then an operation (`operations.py`), which does it in batches, at
a pace if one is given, with a page of its own. Owns the page and the question. Does not own which letters a filter
means (`dead_letter_groups.py`), nor what a verb does. Invariant: what died after the question was asked is not meant.
"""

from dataclasses import replace
from typing import Any
from uuid import uuid4

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from llmjobs import operations
from llmjobs.admin import confirm, job_actions
from llmjobs.admin.cells import badge, moment
from llmjobs.admin.dead_letter_groups import GROUPS_MAX, HOURS, Filter, Group, Groups, groups
from llmjobs.admin.filters import as_uuid
from llmjobs.admin.lists import LIST_TIMEOUT_S, TooSlow, time_limit
from llmjobs.admin.operation_forms import OperationForm
from llmjobs.admin.pages import ViewOnlyPage, may_see_content
from llmjobs.errors import InvalidRequest
from llmjobs.models import DeadLetter, Operation
from llmjobs.models.dead_letters import STATES
from llmjobs.operation_verbs import VERBS, Verb

# By action: its verb, the button's word, what the verb is told, and what else is to know of it.
ACTIONS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "requeue": ("requeue", "Requeue", {}, ""),
    "gradually": ("requeue", "Gradually", {}, ""),
    "cancel": (
        "cancel", "Cancel", {"even_dead": True},
        "Dead and failed jobs are given up: their clients, webhooks and handlers are told that they were cancelled.",
    ),
    "discard": ("discard", "Discard", {}, ""),
}  # fmt: skip
NOTES_OF_THE_VERB = frozenset({"requeue", "gradually", "discard"})  # those of a cancel are of jobs that wait
OF = "of_"  # of the letters that a form is about: a verb has fields of its own, such as another model
SPREAD_S = 600  # the pace that is offered: done in ten minutes
LINES_MAX = 8
SPARK_WIDTH, SPARK_HEIGHT = 144, 28


@admin.register(DeadLetter)
class DeadLetterPage(ViewOnlyPage):
    class Media:
        css = {"all": ["llmjobs/admin_dead_letters.css"]}

    fields = ("job", "state", "error_code", "error_class", "pool", "client", "tier", "since")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return _asked(self, request)
        asked, by_client = Filter.of(request.GET), request.GET.get("by") == "client"
        found = Groups()
        try:
            with time_limit(LIST_TIMEOUT_S, using="default"):
                found = groups(asked, by_client=by_client, with_words=may_see_content(request))
        except TooSlow:
            self.message_user(
                request, "Counting took too long: narrow it by a client, a model or a time.", messages.ERROR
            )
        context = {
            **self.admin_site.each_context(request), "title": "Dead letters", "opts": self.opts, "media": self.media,
            "cl": {"opts": self.opts}, "found": found, "asked": asked, "by_client": by_client, "states": STATES,
            "since": {"1h": "1 hour", "6h": "6 hours", "24h": "24 hours", "7d": "7 days"}, "cut_to": GROUPS_MAX,
            "rows": [_row(group, asked, by_client=by_client) for group in found.shown],
            "errors": sorted({group.error for group in found.shown} - {""}), "whole": asked.query(prefix=OF),
            "buttons": [(name, word) for name, (verb, word, *_) in ACTIONS.items()
                        if request.user.has_perm(VERBS[verb].permission)],
            "all_clients": _here(asked), "each_client": _here(asked, by_client=True), **(extra_context or {}),
        }  # fmt: skip
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/llmjobs/deadletter/change_list.html", context)

    def links(self, obj: DeadLetter) -> list[tuple[str, str]]:
        return [(reverse("admin:llmjobs_job_change", args=[obj.pk]), "The job")]


# The page.


def _row(group: Group, asked: Filter, *, by_client: bool) -> dict[str, Any]:
    narrowed = group.filter(asked)
    return {
        "group": group,
        "number": f"{group.jobs:,}",
        "clients": f"{group.clients:,}",
        "called": f"{group.jobs:,} of {group.error or 'no error code'}",
        "hidden": narrowed.query(prefix=OF),
        "state": badge(group.state),
        "class": badge(group.error_class) if group.error_class else "",
        "first": moment(group.first_at),
        "last": moment(group.last_at),
        "spark": spark(group.hours),
        "of_error": _here(replace(asked, error=narrowed.error), by_client=by_client),
        "of_model": _here(replace(asked, model=group.model), by_client=by_client),
        "of_client": _here(replace(asked, client=group.client)) if group.client else "",
        "by_client": _here(narrowed, by_client=True),
        "jobs": _jobs(group, asked),
        "newest": reverse("admin:llmjobs_job_change", args=[group.newest]),
    }


def _here(asked: Filter, *, by_client: bool = False) -> str:
    return "?" + urlencode([*asked.query(), *([("by", "client")] if by_client else [])])


def _jobs(group: Group, asked: Filter) -> str:
    """The list of jobs that these are among: who was discarded is there too."""
    client = group.client or asked.client
    query = {"status": group.state, "error": group.error, "error_class": group.error_class, "model": group.model}
    query |= {"client": client} if client else {}
    return f"{reverse('admin:llmjobs_job_changelist')}?{urlencode({k: v for k, v in query.items() if v})}"


def spark(hours: tuple[int, ...]) -> SafeString:
    """A bar an hour, the newest at the right. What died at all can be seen."""
    most, step = max(hours, default=0), SPARK_WIDTH / HOURS
    bars = "".join(
        f"M{nth * step + 0.5:.1f} {SPARK_HEIGHT}v-{height:.1f}h{step - 1:.1f}v{height:.1f}z"
        for nth, number in enumerate(hours)
        if number
        for height in [max(2.0, number / most * (SPARK_HEIGHT - 2))]
    )
    said = f"The last 24 hours: {sum(hours):,}, {hours[-1]:,} in the last hour, at most {most:,} an hour"
    return format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="llmjobs-hours"><title>{}</title>'
        '<path d="{}" class="llmjobs-hour"/><path d="M0 {}H{}" class="llmjobs-axis"/></svg>',
        *(SPARK_WIDTH, SPARK_HEIGHT, said, said, bars, SPARK_HEIGHT - 0.5, SPARK_WIDTH),
    )


# The question, and its answer.


def _asked(page: admin.ModelAdmin, request: HttpRequest) -> HttpResponseBase:
    name = request.POST.get("action", "")
    if name not in ACTIONS:
        return HttpResponseRedirect(request.get_full_path())
    verb = VERBS[ACTIONS[name][0]]
    if not request.user.has_perm(verb.permission):
        raise PermissionDenied
    asked, is_answer = Filter.of(request.POST, prefix=OF), "confirmed" in request.POST
    form = OperationForm(verb, request.POST if is_answer else None, may_see_content=may_see_content(request))
    if name == "gradually":
        form.fields["rate_per_s"].required = True
        form.fields["rate_per_s"].help_text = "0.5 is 30 a minute."
    token = as_uuid(request.POST.get("token", ""))
    if is_answer and token and form.is_valid():
        try:
            operation = operations.start(
                verb.name, asked.jobs(), user=request.user, reason=form.cleaned_data["reason"],
                params=form.params() | ACTIONS[name][2], rate_per_s=form.cleaned_data.get("rate_per_s"),
                selection=f"dead letters: {asked.words()}"[: job_actions.SELECTION_CHARS_MAX], token=token,
            )  # fmt: skip
        except InvalidRequest as error:
            form.add_error(error.param if error.param in form.fields else None, str(error))
        else:
            return _answered(page, request, operation)
    return _question(page, request, name, verb, asked, form)


def _answered(page: admin.ModelAdmin, request: HttpRequest, operation: Operation) -> HttpResponseBase:
    if operation.user_id != request.user.pk:  # somebody else's token
        raise PermissionDenied
    return job_actions.answered(page, request, operation)


def _question(
    page: admin.ModelAdmin, request: HttpRequest, name: str, verb: Verb, asked: Filter, form: OperationForm
) -> HttpResponse:
    found = groups(asked, by_client=False, with_words=False)
    if name == "gradually":
        form.initial["rate_per_s"] = max(round(found.jobs / SPREAD_S, 1), 0.1)
    lines = [(_line(group), f"{group.jobs:,}") for group in found.shown[:LINES_MAX]]
    if found.number > len(lines):
        lines.append((f"and {found.number - len(lines):,} more groups", f"{found.jobs - _sum(found):,}"))
    notes = [verb.note, verb.undo_note] if name in NOTES_OF_THE_VERB else []
    until = asked.until or (found.read_at.isoformat() if found.read_at else "")
    question = confirm.Question(
        action=name,
        title=f"{verb.title} dead letters",
        button=f"{verb.title} {found.jobs:,} dead {'letter' if found.jobs == 1 else 'letters'}",
        lines=lines,
        notes=[*notes, *filter(None, [ACTIONS[name][3]])],
        hidden=[*replace(asked, until=until).query(prefix=OF), ("token", str(uuid4()))],
        is_idle=found.jobs == 0,
    )
    return confirm.asked(page, request, question, form=form)


def _line(group: Group) -> str:
    of = f"of {group.client}" if group.client else f"of {group.clients:,} clients"
    return f"{group.state}, {group.error or 'no error code'}, {group.model}, {of}"


def _sum(found: Groups) -> int:
    return sum(group.jobs for group in found.shown[:LINES_MAX])
