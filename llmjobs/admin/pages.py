"""What every page of this app shares: the style sheet, no deleting, and the buttons above a row's page.

Nothing is deleted here: the ledger refers to clients, tiers, models and providers for as long as it is kept, and
Django would read all of it first. They are paused instead; `manage.py configure --prune` removes what nothing refers
to.
"""

from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from llmjobs.admin.lists import KeysetChangeList

SEE_CONTENT = "llmjobs.view_job_content"


def may_see_content(request: HttpRequest) -> bool:
    """Prompts and outputs are people's words: seeing a job is one permission, reading it another."""
    return request.user.has_perm(SEE_CONTENT)


class Page(admin.ModelAdmin):
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # a count for each choice of each filter
    actions_on_top = True  # Django's list has an inline style where there are no actions

    class Media:
        css = {"all": ["llmjobs/admin.css"]}

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Of clients, models, providers: who may edit them may pause them, and there is a permission for that alone."""
        name = self.opts.model_name
        return any(request.user.has_perm(f"llmjobs.{verb}_{name}") for verb in ("pause", "change"))

    def buttons(self, obj: Any) -> list[tuple[str, str]]:
        """(action, label) of the actions that the state of `obj` allows."""
        return []

    def links(self, obj: Any) -> list[tuple[str, str]]:
        """(URL, label) of what belongs to `obj`."""
        return []

    def details(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What the page's template shows of `obj` beside its fields."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            allowed = self.get_actions(request)
            context["buttons"] = [button for button in self.buttons(obj) if button[0] in allowed]
            context["links"] = self.links(obj)
            context.update(self.details(request, obj))
        return super().render_change_form(request, context, add=add, change=change, form_url=form_url, obj=obj)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what the filters offer.

        Django allows any local column: `?body__contains=` would be an oracle on prompts, and
        `?webhook_secret__startswith=` tell a secret, a letter at a time.
        """
        names = self._filter_names()
        return any(lookup in (name, f"{name}__exact", f"{name}__id__exact") for name in names)

    def _filter_names(self) -> list[str]:
        return [
            name
            for item in self.list_filter
            for name in ([item] if isinstance(item, str) else item.names())  # type: ignore[union-attr]
        ]

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any) -> HttpResponse | None:
        """Keys that can be none come from a forged form, which Django would fail on: nothing is selected then."""
        try:
            for key in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.clean(key, None)
        except ValidationError:
            return None
        return super().response_action(request, queryset, *args)


class ViewOnlyPage(Page):
    """A table that programs write: read here, changed by verbs alone. May be large, so its list pages by key."""

    list_per_page = 100
    sortable_by = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList
