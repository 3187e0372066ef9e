"""The list of operations, and the page of one: how far it is, what it left alone and why; stop, go on, undo.

Owns what is shown and asked; what is done is `operations.py`. A page that is looked at asks anew each second, by POST:
where no worker works the operation off, that carries it on. Who began an operation may see it; to stop, resume, undo
or help it takes the permission of its verb.
"""

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import DateTimeField, ExpressionWrapper, QuerySet
from django.db.models.functions import Now
from django.forms import Script
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from llmjobs import operation_history, operations
from llmjobs.admin import confirm, exports
from llmjobs.admin.cells import NOTHING, badge, duration, link_to, moment
from llmjobs.admin.filters import ChoiceFilter, as_id
from llmjobs.admin.job_actions import report
from llmjobs.admin.pages import ViewOnlyPage, may_see_content
from llmjobs.admin.usage import jobs_url
from llmjobs.errors import NotAllowed
from llmjobs.models import Operation, OperationState
from llmjobs.operation_history import done_word
from llmjobs.operation_verbs import VERBS
from llmjobs.states import Priority

FIELDS = ("what", "who", "reason", "chosen", "pace", "begun", "history_of_undo")
SEARCHED = "search "  # of `selection`: what an operator typed, who may know words of errors


class VerbFilter(ChoiceFilter):
    title = "what"
    parameters = ("verb",)
    column = "verb"

    def options(self) -> Any:
        return [(name, name, name) for name in VERBS]


class StateFilter(ChoiceFilter):
    title = "state"
    parameters = ("state",)
    column = "state"

    def options(self) -> Any:
        return [(state.value, state.value, state.value) for state in OperationState]


@admin.register(Operation)
class OperationPage(ViewOnlyPage):
    list_display = ("id", "what", "status", "changed_jobs", "left_alone", "begun", "took", "who", "reason")
    list_display_links = ("id", "what")
    list_filter = (StateFilter, VerbFilter)
    fields = FIELDS
    change_form_template = "admin/llmjobs/operation/change_form.html"

    class Media:
        css = {"all": ["llmjobs/admin_operations.css"]}
        js = [Script("llmjobs/admin_operations.js", type="module")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Operation]:
        related = super().get_queryset(request).select_related("undoes", "undone_by")
        return related.annotate(read_at=ExpressionWrapper(Now(), output_field=DateTimeField()))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_own = obj is not None and obj.user_id == request.user.pk
        return is_own or super().has_view_permission(request, obj)

    def get_fields(self, request: HttpRequest, obj: Operation | None = None) -> Any:
        if obj is None or SEARCHED not in obj.selection or obj.user_id == request.user.pk or may_see_content(request):
            return FIELDS
        return ["chosen_by_search" if name == "chosen" else name for name in FIELDS]

    def details(self, request: HttpRequest, obj: Operation) -> dict[str, Any]:
        return {"may_act": may_act(request, obj), **progress(obj)}

    # Cells.

    @admin.display(description="what")
    def what(self, operation: Operation) -> str:
        return title(operation)

    @admin.display(description="changed")
    def changed_jobs(self, operation: Operation) -> str:
        return f"{operation.changed:,} of {operation.total:,}"

    @admin.display(description="left alone")
    def left_alone(self, operation: Operation) -> str:
        return f"{operation.skipped_count:,}"

    @admin.display(description="state")
    def status(self, operation: Operation) -> SafeString:
        return badge(operation.state)

    @admin.display(description="who")
    def who(self, operation: Operation) -> str:
        return operation.username or NOTHING

    @admin.display(description="which jobs")
    def chosen(self, operation: Operation) -> str:
        return operation.selection or NOTHING

    @admin.display(description="which jobs")
    def chosen_by_search(self, operation: Operation) -> str:
        return "what a search found; its words need the permission to see prompts and outputs"

    @admin.display(description="pace")
    def pace(self, operation: Operation) -> str:
        jobs = "job" if operation.rate_per_s == 1 else "jobs"
        return f"{operation.rate_per_s:g} {jobs} a second" if operation.rate_per_s else "as fast as it goes"

    @admin.display(description="begun")
    def begun(self, operation: Operation) -> str | SafeString:
        return moment(operation.created_at)

    @admin.display(description="took")
    def took(self, operation: Operation) -> str:
        return duration(_took(operation))

    @admin.display(description="undo")
    def history_of_undo(self, operation: Operation) -> str | SafeString:
        if operation.undoes:
            return format_html("undoes {}", link_to(operation.undoes))
        if hasattr(operation, "undone_by"):
            return format_html("undone by {}", link_to(operation.undone_by))
        return VERBS[operation.verb].undo_note if operation.verb in VERBS else NOTHING

    # What can be done: by POST alone.

    def get_urls(self) -> list[URLPattern]:
        views = {
            "progress": self.progress_view, "stop": self.stop_view, "resume": self.resume_view, "undo": self.undo_view,
            "download": self.download_view,
        }  # fmt: skip
        mine = [
            path(f"<path:object_id>/{name}/", self.admin_site.admin_view(view), name=f"llmjobs_operation_{name}")
            for name, view in views.items()
        ]
        return mine + super().get_urls()

    @method_decorator(require_POST)
    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The parts of the page that change. It helps, where nobody else carries it out."""
        operation = self._found(request, object_id)
        if may_act(request, operation):
            operations.help_along(operation.pk)
            operation = self._found(request, object_id)
        if request.headers.get("X-Requested-With") != "fetch":  # without a script: a button
            return HttpResponseRedirect(_page(operation))
        context = {"original": operation, "may_act": may_act(request, operation), **progress(operation)}
        return TemplateResponse(request, "admin/llmjobs/operation/progress.html", context)

    @method_decorator(require_POST)
    def stop_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        operation = self._acted_on(request, object_id)
        if operations.stop(operation.pk, user=request.user):
            messages.success(request, "Stopped. What was done stays done; it can go on, or be undone.")
        else:
            messages.warning(request, "It was over already.")
        return HttpResponseRedirect(_page(operation))

    @method_decorator(require_POST)
    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        operation = self._acted_on(request, object_id)
        if not operations.resume(operation.pk, user=request.user):
            messages.warning(request, "It can't go on: it runs, or is done, or was undone.")
        return HttpResponseRedirect(_page(operation))

    @method_decorator(require_POST)
    def undo_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        operation = self._acted_on(request, object_id)
        if why := operations.undo_refused(operation):
            messages.warning(request, why)
            return HttpResponseRedirect(_page(operation))
        if not confirm.is_confirmed(request):
            return confirm.asked(self, request, _undo_question(operation), back=_page(operation))
        try:
            undoing = operations.undo(operation.pk, user=request.user, reason=confirm.reason(request))
        except NotAllowed as error:  # a second click
            messages.warning(request, str(error))
            return HttpResponseRedirect(_page(operation))
        if undoing.is_over:
            messages.add_message(request, messages.SUCCESS if undoing.changed else messages.WARNING, report(undoing))
        return HttpResponseRedirect(_page(undoing))

    @method_decorator(require_POST)
    def download_view(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        operation = self._acted_on(request, object_id)
        if operation.verb != "export" or operation.is_forgotten:
            raise Http404
        response = exports.download(request, operation)
        operation_history.note(operation, request.user, "Downloaded again")
        return response

    def _found(self, request: HttpRequest, object_id: str) -> Operation:
        key = as_id(object_id)
        operation = self.get_queryset(request).filter(pk=key).first() if key is not None else None
        if operation is None:
            raise Http404
        if not self.has_view_permission(request, operation):
            raise PermissionDenied
        return operation

    def _acted_on(self, request: HttpRequest, object_id: str) -> Operation:
        operation = self._found(request, object_id)
        if not may_act(request, operation):
            raise PermissionDenied
        return operation


def may_act(request: HttpRequest, operation: Operation) -> bool:
    verb = VERBS.get(operation.verb)
    return verb is not None and request.user.has_perm(verb.permission)


def title(operation: Operation) -> str:
    """ "Change the priority to high", "Undo: requeue", "Move to gpt-4.1"."""
    verb, params = VERBS.get(operation.verb), operation.params
    words = {
        "reprioritize": lambda: f"Change the priority to {Priority(params['priority']).word}",
        "move": lambda: f"Move to {params['model']}",
        "export": lambda: f"Export as {params['format']}{', with content' if params.get('content') else ''}",
        "requeue": lambda: f"Requeue at {params['model']}" if params.get("model") else "Requeue",
        "cancel": lambda: "Cancel, dead letters too" if params.get("even_dead") else "Cancel",
    }
    plain = words[operation.verb]() if operation.verb in words else verb.title if verb else operation.verb
    return f"Undo: {plain[0].lower()}{plain[1:]}" if operation.undoes_id else plain


def progress(operation: Operation) -> dict[str, Any]:
    """What the parts that change show. The rate is of what was done so far, by the database's clock."""
    done = operation.total - operation.left
    is_stream = operation.verb in VERBS and VERBS[operation.verb].kind == "stream"
    return {
        "done": done,
        "percent": 100 * done // operation.total if operation.total else 100,
        "skipped": sorted(operation.skipped.items(), key=lambda item: (-item[1], item[0])),
        "speed": _speed(operation, done),
        "status": badge(operation.state),
        "ended": moment(operation.finished_at) if operation.is_over else "",
        "took": duration(_took(operation)),
        "changed_url": jobs_url(operation=str(operation.pk))
        if operation.changed and not operation.is_forgotten
        else "",
        "undo_refused": operations.undo_refused(operation),
        "may_resume": operations.may_resume(operation),
        "is_stream": is_stream,
        "done_word": done_word(operation),
    }


def _took(operation: Operation) -> timedelta:
    until = operation.finished_at or operation.read_at  # type: ignore[attr-defined]
    return until - operation.created_at


def _speed(operation: Operation, done: int) -> str:
    if operation.is_over or not operation.started_at or not operation.last_step_at:
        return ""
    if operation.rate_per_s:
        rate = operation.rate_per_s
    else:
        took_s = (operation.last_step_at - operation.started_at).total_seconds()
        if took_s < 1:
            return ""
        rate = done / took_s
    if not rate:
        return ""
    shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{shown} a second, about {duration(timedelta(seconds=operation.left / rate))} to go"


def _undo_question(operation: Operation) -> confirm.Question:
    verb = VERBS[operation.verb]
    return confirm.Question(
        action="undo",
        title=f"Undo: {title(operation)}",
        button="Undo it",
        lines=[("jobs that it changed", f"{operation.changed:,}")],
        notes=[verb.undo_note, "What has moved on since is left alone, and told."],
    )


def _page(operation: Operation) -> str:
    return reverse("admin:llmjobs_operation_change", args=[operation.pk])
