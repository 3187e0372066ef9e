"""API keys: issued, shown once, revoked.

The key itself exists in one answer, to the POST that made it: it is not stored, not in a message, not in a URL, and
the answer may not be cached. Afterwards there is its prefix. A key that can steer every client's jobs is issued only
by those who may.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Case, QuerySet, Value, When
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from llmjobs.admin import confirm
from llmjobs.admin.cells import badge
from llmjobs.admin.pages import SEE_CONTENT, Page
from llmjobs.models import ApiKey, Client
from llmjobs.models.tenants import Scope

# What an operator's key can do, its owner could not grant without being allowed to do it here.
OPERATOR_NEEDS = ("llmjobs.view_job", "llmjobs.requeue_job", "llmjobs.cancel_job", SEE_CONTENT)


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
            raise forms.ValidationError(
                "An operator's key needs somebody who may see, read, requeue and cancel every job; expected "
                f"the permissions {', '.join(OPERATOR_NEEDS)}"
            )
        return scopes


@admin.register(ApiKey)
class ApiKeyPage(Page):
    form = KeyForm
    list_display = ("prefix", "client", "name", "scopes", "state", "created_at", "expires_at", "last_used_at")
    list_select_related = ("client",)
    search_fields = ("client__name", "name", "=prefix")
    search_help_text = "A part of the client's or the key's name, or its first characters."
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    autocomplete_fields = ("client",)
    fields = ("client", "name", "scopes", "expires_at")
    actions = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return with_expiry(super().get_queryset(request))

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        shown = ("prefix", "state", "created_at", "last_used_at", "revoked_at")
        return (*self.fields, *shown) if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ("client", "prefix", "state", "created_at", "last_used_at", "revoked_at") if obj else ()

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        form.may_grant_operator = request.user.has_perms(OPERATOR_NEEDS)  # type: ignore[attr-defined]
        return form

    @admin.display(description="state")
    def state(self, key: ApiKey) -> Any:
        return key_state(key)

    def buttons(self, obj: ApiKey) -> list[tuple[str, str]]:
        return [] if obj.revoked_at else [("revoke", "Revoke")]

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
    """Each key with `has_expired`, by the database's clock."""
    return keys.annotate(has_expired=Case(When(expires_at__lte=Now(), then=Value(True)), default=Value(False)))


class KeysOfClient(admin.TabularInline):
    model = ApiKey
    verbose_name_plural = "API keys"
    fields = readonly_fields = ("prefix", "name", "scopes", "state", "created_at", "expires_at", "last_used_at")
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return with_expiry(super().get_queryset(request))


def key_state(key: ApiKey) -> SafeString:
    """`has_expired` comes with the queryset: the database's clock decides."""
    if key.revoked_at is not None:
        return badge("revoked")
    return badge("expired") if key.has_expired else badge("valid")  # type: ignore[attr-defined]
