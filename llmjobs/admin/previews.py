"""Before a weight or a tier is saved: how the shares of what waits now would move, asked once more.

`Previewed` is for pages of rows whose edit moves shares: it says which fields, and what they change. The second form
holds what the first one sent, and what was previewed; where that is no longer what the edit would do, since somebody
else has edited the row meanwhile, the preview is shown anew. Writes nothing itself. Owns no arithmetic: shares.py.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.admin import ModelAdmin
from django.contrib.admin.options import TO_FIELD_VAR
from django.contrib.admin.utils import unquote
from django.db import connection
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from llmjobs import tallies
from llmjobs.admin.bars import bar
from llmjobs.admin.cells import duration
from llmjobs.admin.lists import TooSlow, time_limit
from llmjobs.admin.shares import Change, Move, PoolMoves, Waiting, moves
from llmjobs.folding import help_fold
from llmjobs.models import Tier
from llmjobs.sql import load

PREVIEWED = "_previewed"
WAITING_MAX = 20_000  # clients of models: the smallest backlogs beyond that move nobody's share by much
POOLS_MAX = 5  # shown, those with the most waiting
PREVIEW_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """What the page shows of a Move; `oldest`: how long the first of a tier waits now, of all models together."""

    name: str
    queued: int
    before: str
    after: str
    by: str
    bars: tuple[SafeString, SafeString]
    oldest: str


class Previewed(ModelAdmin):
    """A page whose form is shown with what it would do before it is saved. Not where a row is added: nothing waits."""

    previewed_fields: ClassVar[tuple[str, ...]]

    def change_of(self, obj: Any, form: ModelForm) -> Change:
        raise NotImplementedError

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method == "POST" and object_id is not None:
            form = self._form(request, object_id)
            edits = _edits(form, self.previewed_fields) if form is not None and form.is_valid() else ""
            if form is not None and edits and request.POST.get(PREVIEWED) != edits:
                return self._preview(request, form, edits)
        return super().changeform_view(request, object_id, form_url, extra_context)

    def _form(self, request: HttpRequest, object_id: str) -> ModelForm | None:
        """As Django will make it again to save it; None where Django will refuse."""
        obj = self.get_object(request, unquote(object_id), request.POST.get(TO_FIELD_VAR))
        if obj is None or not self.has_change_permission(request, obj):
            return None
        form: ModelForm = self.get_form(request, obj, change=True)(request.POST, request.FILES, instance=obj)
        return form

    def _preview(self, request: HttpRequest, form: ModelForm, edits: str) -> HttpResponse:
        before = self.model._default_manager.get(pk=form.instance.pk)  # the form has written into its own
        sent = [(name, value) for name, values in request.POST.lists() for value in values if name != PREVIEWED]
        context = {
            **self.admin_site.each_context(request),
            "title": f"What changes: {before}",
            "opts": self.opts,
            "media": self.media,
            "original": before,
            "edits": [
                (str(form.fields[name].label).lower(), getattr(before, name), form.cleaned_data[name])
                for name in self.previewed_fields
                if name in form.changed_data
            ],
            "hidden": [*((name, value) for name, value in sent if name != "csrfmiddlewaretoken"), (PREVIEWED, edits)],
            "back": reverse(f"admin:llmjobs_{self.opts.model_name}_change", args=[before.pk]),
            **_shown(self.change_of(before, form)),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/llmjobs/preview.html", context)


def _edits(form: ModelForm, fields: tuple[str, ...]) -> str:
    """What of `fields` the form changes, from what to what; "": nothing."""
    return "; ".join(
        f"{name}: {form.initial.get(name)} → {getattr(form.cleaned_data[name], 'pk', form.cleaned_data[name])}"
        for name in fields
        if name in form.changed_data
    )


def _shown(change: Change) -> dict[str, Any]:
    help_fold()  # what was submitted since the last claim
    tiers = dict(Tier.objects.values_list("name", "weight"))
    try:
        found = [pool for pool in moves(_waiting(), tiers, change) if pool.is_moved or _has(pool, change)]
    except TooSlow:
        return {"is_too_slow": True}
    oldest_s = {tier.name: tier.oldest_s for tier in tallies.tiers_now()}
    return {
        "pools": [_pool(pool, oldest_s) for pool in found[:POOLS_MAX]],
        "more_pools": max(0, len(found) - POOLS_MAX),
    }


def _has(pool: PoolMoves, change: Change) -> bool:
    """Whether the changed client waits there, even if its share stays."""
    return any(move.name == change.client for move in pool.clients)


def _waiting() -> list[Waiting]:
    with time_limit(PREVIEW_TIMEOUT_S, using=connection.alias), connection.cursor() as cursor:
        cursor.execute(load("backlog_shares"), {"most": WAITING_MAX})
        return [Waiting(*row) for row in cursor.fetchall()]


def _pool(pool: PoolMoves, oldest_s: dict[str, float | None]) -> dict[str, Any]:
    others = None if pool.others is None else _row(pool.others)
    return {
        "name": pool.pool,
        "queued": pool.queued,
        "tiers": [_row(move, oldest_s.get(move.name)) for move in pool.tiers],
        "clients": [_row(move) for move in pool.clients],
        "others": others,
        "others_name": f"{pool.others_count:,} others",
    }


def _row(move: Move, oldest_s: float | None = None) -> Row:
    kind = "good" if move.by > 0 else "waiting" if move.by < 0 else "quiet"
    by = f"{move.by * 100:+.1f}" if abs(move.by) >= 0.0005 else "="
    return Row(
        move.name,
        move.queued,
        f"{move.before:.1%}",
        f"{move.after:.1%}",
        by,
        (bar(move.before, 1, kind="quiet"), bar(move.after, 1, kind=kind)),
        "" if oldest_s is None else duration(timedelta(seconds=oldest_s)),
    )
