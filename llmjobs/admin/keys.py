"""API keys: issued, shown once, rotated (key_rotation.py), revoked.

The key itself exists in one answer, to the POST that made it: it is not stored, not in a message, not in a URL, and
the answer may not be cached. Afterwards there is its prefix. A key that can steer every client's jobs is issued only
by those who may.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Case, Q, QuerySet, Value, When
from django.db.models.functions import Now
from django.forms import Script
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from llmjobs.admin import confirm, key_rotation
from llmjobs.admin.cells import badge, moment
from llmjobs.admin.filters import ChoiceFilter
from llmjobs.admin.pages import SEE_CONTENT, Page
from llmjobs.models import ApiKey, Client
from llmjobs.models.tenants import Scope

# What an operator's key can do, its owner could not grant without being allowed to do it here.
OPERATOR_NEEDS = ("llmjobs.view_job", "llmjobs.requeue_job", "llmjobs.cancel_job", SEE_CONTENT)
NEEDS_OPERATOR = (
    "An operator's key needs somebody who may see, read, requeue and cancel every job; expected the permissions "
    f"{', '.join(OPERATOR_NEEDS)}"
)
SOON = timedelta(days=7)
SHOWN = ("prefix", "state", "made_by", "created_at", "last_used", "revoked_at")


class KeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=lambda: ApiKey._meta.get_field("scopes").get_default(),
    )
    may_grant_operator = False

    def clean_scopes(self) -> list[str]:
        scopes: list[str] = self.cleaned_data["scopes"]
        had = self.instance.scopes if self.instance.pk else []
        if Scope.OPERATOR in scopes and Scope.OPERATOR not in had and not self.may_grant_operator:
            raise forms.ValidationError(NEEDS_OPERATOR)
        return scopes


class StateFilter(ChoiceFilter):
    title = "state"
    parameters = ("state",)

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [
            ("valid", "valid", Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))),
            ("soon", "expires within a week", Q(revoked_at=None, expires_at__gt=Now(), expires_at__lte=Now() + SOON)),
            ("expired", "expired", Q(revoked_at=None, expires_at__lte=Now())),
            ("revoked", "revoked", Q(revoked_at__isnull=False)),
            ("unused", "never used", Q(last_used_at=None)),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value:
            return queryset
        meaning = {word: condition for word, _, condition in self.options()}
        return queryset.filter(meaning[self.value]) if self.value in meaning else queryset.none()


@admin.register(ApiKey)
class ApiKeyPage(Page):
    form = KeyForm
    list_display = ("prefix", "client", "name", "state", "expires_at", "last_used", "scopes", "made_by", "created_at")
    list_select_related = ("client", "created_by")
    search_fields = ("client__name", "name", "=prefix")
    search_help_text = "A part of the client's or the key's name, or its first characters."
    list_filter = (StateFilter,)
    autocomplete_fields = ("client",)
    fields = ("client", "name", "scopes", "expires_at")
    actions = ("rotate", "revoke")

    class Media:
        js = [Script("llmjobs/admin_labels.js", type="module")]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Django's two fields of one time have one label: each needs a name of its own."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name in ("expires_at", "revoked_at") and field is not None:
            for widget, part in zip(field.widget.widgets, ("date", "time"), strict=True):
                widget.attrs["aria-label"] = f"{db_field.verbose_name.capitalize()}, {part}"
        return field

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return with_expiry(super().get_queryset(request))

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return (*self.fields, *SHOWN) if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ("client", *SHOWN) if obj else ()

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request) and self.has_change_permission(request)

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        form.may_grant_operator = _may_grant_operator(request)  # type: ignore[attr-defined]
        return form

    @admin.display(description="state")
    def state(self, key: ApiKey) -> Any:
        return key_state(key)

    @admin.display(description="made by")
    def made_by(self, key: ApiKey) -> str:
        """A user of the client; of what operators make, the history tells."""
        return str(key.created_by) if key.created_by else "an operator"

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, key: ApiKey) -> Any:
        return moment(key.last_used_at) if key.last_used_at else "never"

    def buttons(self, obj: ApiKey) -> list[tuple[str, str]]:
        return [] if obj.revoked_at else [("rotate", "Rotate"), ("revoke", "Revoke")]

    def save_model(self, request: HttpRequest, obj: ApiKey, form: KeyForm, change: bool) -> None:
        if change:
            return super().save_model(request, obj, form, change)
        row, key = ApiKey.objects.issue(obj.client, name=obj.name, scopes=obj.scopes, expires_at=obj.expires_at)
        obj.pk, obj.prefix, obj.hash = row.pk, row.prefix, row.hash
        obj.issued = key  # type: ignore[attr-defined]
        return None

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "API key issued",
            "opts": self.opts,
            "media": self.media,
            "original": obj,
            "key": obj.issued,  # type: ignore[attr-defined]
        }
        request.current_app = self.admin_site.name
        # Every view of the admin answers with `no-store`.
        return TemplateResponse(request, "admin/llmjobs/apikey/issued.html", context)

    @admin.action(description="Rotate the selected API key", permissions=["rotate"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        if not _may_grant_operator(request) and queryset.filter(scopes__contains=[Scope.OPERATOR]).exists():
            self.message_user(request, NEEDS_OPERATOR, messages.ERROR)
            return confirm.back(self, request)
        return key_rotation.rotate(self, request, queryset)

    @admin.action(description="Revoke selected API keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        queryset = confirm.bounded(request, queryset).order_by("pk")
        if not confirm.is_confirmed(request):
            dates = list(queryset.values_list("revoked_at", flat=True)[: confirm.SELECTED_MAX])
            valid = dates.count(None)
            question = confirm.Question(
                action="revoke",
                title="Revoke API keys",
                button=f"Revoke {valid} of {len(dates)}",
                lines=[("not revoked", valid), ("revoked already", len(dates) - valid)],
                notes=["A revoked key is refused from the next request on, for good. Jobs it submitted go on."],
            )
            return confirm.asked(self, request, question)
        with transaction.atomic():
            chosen = list(queryset.values_list("pk", flat=True)[: confirm.SELECTED_MAX])
            keys = list(ApiKey.objects.select_for_update().filter(pk__in=chosen, revoked_at=None))
            ApiKey.objects.filter(pk__in=[key.pk for key in keys]).update(revoked_at=Now())
            confirm.record(request, keys, "Revoked", each=len(keys) <= confirm.LOG_EACH_MAX)
        level = messages.SUCCESS if keys else messages.WARNING
        self.message_user(request, f"Revoked {len(keys)} of {len(chosen)}.", level)
        return confirm.back(self, request)


def with_expiry(keys: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
    """Each key with `has_expired` and `expires_soon`, by the database's clock."""
    return keys.annotate(
        has_expired=Case(When(expires_at__lte=Now(), then=Value(True)), default=Value(False)),
        expires_soon=Case(When(expires_at__lte=Now() + SOON, then=Value(True)), default=Value(False)),
    )


def _may_grant_operator(request: HttpRequest) -> bool:
    return request.user.has_perms(OPERATOR_NEEDS)


class KeysOfClient(admin.TabularInline):
    model = ApiKey
    verbose_name_plural = "API keys"
    fields = readonly_fields = ("prefix", "name", "scopes", "state", "created_at", "expires_at", "last_used")
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Client | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    @admin.display(description="state")
    def state(self, key: ApiKey) -> SafeString:
        return key_state(key)

    @admin.display(description="last used")
    def last_used(self, key: ApiKey) -> Any:
        return moment(key.last_used_at) if key.last_used_at else "never"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return with_expiry(super().get_queryset(request))


def key_state(key: ApiKey) -> SafeString:
    """`has_expired` and `expires_soon` come with the queryset: the database's clock decides."""
    if key.revoked_at is not None:
        return badge("revoked")
    if key.has_expired:  # type: ignore[attr-defined]
        return badge("expired")
    return badge("expires soon" if key.expires_soon else "valid")  # type: ignore[attr-defined]
