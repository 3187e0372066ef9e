"""Providers and models: who answers, within which limits, at which price, and how the last hour went.

A provider names the environment variable that holds its key. This page says whether that variable is set in the web
process that shows it, never what it holds; the workers have an environment of their own.
"""

import os
import time
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.forms import Script
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from llmjobs.admin import last_hour, pausing, unblocking, usage
from llmjobs.admin.buckets import known_of, samples_of, state_badge, with_block
from llmjobs.admin.limits_picture import clock, figures
from llmjobs.admin.pages import Page
from llmjobs.admin.usage import jobs_url
from llmjobs.incidents import REASONS
from llmjobs.models import BucketKind, Model, Provider
from llmjobs.models.pools import validate_key_env


@admin.register(Provider)
class ProviderPage(Page):
    list_display = ("name", "base_url", "api_key_env", "key_in_this_process", "any_model", "state", "created_at")
    list_filter = ("is_paused", "any_model")
    search_fields = ("name", "base_url")
    readonly_fields = ("key_in_this_process", "state", "created_at")
    fieldsets = (
        (None, {"fields": ("name", "base_url", "state", "created_at")}),
        ("Key", {"fields": ("api_key_env", "key_in_this_process")}),
        (
            "Limits of the account",
            {"fields": ("rpm", "tpm", "max_running"), "description": "Of all its models together; empty: none."},
        ),
        ("When a worker is lost", {"fields": ("has_background",)}),
        ("Models made on first use", {"fields": ("any_model", "default_rpm", "default_tpm")}),
    )
    actions = (pausing.pause, pausing.resume, unblocking.try_again)
    change_form_template = "admin/llmjobs/provider/change_form.html"

    class Media:
        css = {"all": ["llmjobs/admin_configuration.css"]}

    def details(self, request: HttpRequest, obj: Provider) -> dict[str, Any]:
        return usage.of_provider(obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return with_block(super().get_queryset(request), BucketKind.ACCOUNT)

    @admin.display(description="key in this process")
    def key_in_this_process(self, provider: Provider) -> str:
        """Whether the variable is set where this page is made: "yes", "no", "needs none", "not allowed"."""
        if not provider.api_key_env:
            return "needs none"
        try:
            validate_key_env(provider.api_key_env)
        except ValidationError:
            return "not allowed: see LLMJOBS_PROVIDER_KEYS_ENV"
        return "yes" if os.environ.get(provider.api_key_env) else "no"

    @admin.display(description="state", ordering="is_paused")
    def state(self, provider: Provider) -> SafeString:
        return state_badge(provider)

    def buttons(self, obj: Provider) -> list[tuple[str, str]]:
        return [*pausing.buttons(obj), *unblocking.buttons(obj)]

    def links(self, obj: Provider) -> list[tuple[str, str]]:
        return [(f"{reverse('admin:llmjobs_model_changelist')}?{urlencode({'provider__id__exact': obj.pk})}", "Models")]


@admin.register(Model)
class ModelPage(Page):
    list_display = (
        "name", "provider", "state", "rpm", "tpm", "max_running", "input_usd_per_mtok", "output_usd_per_mtok",
        "fallback",
    )  # fmt: skip
    list_filter = ("is_paused", "provider")
    list_select_related = ("provider", "fallback")
    search_fields = ("name", "upstream_name")
    autocomplete_fields = ("fallback",)
    readonly_fields = ("state", "created_at")
    fieldsets = (
        (None, {"fields": ("name", "provider", "upstream_name", "state", "created_at")}),
        (
            "Limits",
            {
                "fields": ("rpm", "tpm", "window", "token_policy", "max_running", "context_window"),
                "description": "As the provider has them. Empty: the default a minute, no limit of the others.",
            },
        ),
        ("Prices", {"fields": ("input_usd_per_mtok", "output_usd_per_mtok")}),
        ("When it is blocked", {"fields": ("fallback",)}),
    )
    actions = (pausing.pause, pausing.resume, unblocking.try_again)
    change_form_template = "admin/llmjobs/model/change_form.html"

    class Media:
        css = {"all": ["llmjobs/admin_configuration.css"]}
        js = [Script(f"llmjobs/admin_{name}.js", type="module") for name in ("limits", "labels")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        models = with_block(super().get_queryset(request), BucketKind.POOL)
        return with_block(models, BucketKind.ACCOUNT, of_id="provider_id", name="account")

    @admin.display(description="state", ordering="is_paused")
    def state(self, model: Model) -> SafeString:
        return state_badge(model)

    def buttons(self, obj: Model) -> list[tuple[str, str]]:
        return [*pausing.buttons(obj), *unblocking.buttons(obj)]

    def links(self, obj: Model) -> list[tuple[str, str]]:
        flows = f"{reverse('admin:llmjobs_flow_changelist')}?{urlencode({'model': obj.name})}"
        return [(jobs_url(model=obj.name), "Jobs"), (flows, "Flows")]

    def details(self, request: HttpRequest, obj: Model) -> dict[str, Any]:
        return {**limits_of(obj), **usage.of_model(obj)}

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.limits)
        return [path("<int:pk>/limits/", view, name="llmjobs_model_limits"), *super().get_urls()]

    def limits(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The part of a model's page that changes by itself; the page asks for it every 15 seconds."""
        model = Model.objects.filter(pk=pk).first()
        if not self.has_view_permission(request, model):
            raise PermissionDenied
        if model is None:
            raise Http404
        return render(request, "admin/llmjobs/model/limits.html", {"original": model, **limits_of(model)})


def limits_of(model: Model) -> dict[str, Any]:
    """The last hour as pictures and as a table, and what is known of the model's limits."""
    now_s = time.time()
    moments = last_hour.last_hour(samples_of(model), now_s)
    rows = [
        (row, clock(row.at_s), ", ".join(REASONS.get(reason, reason) for reason in row.blocked_by))
        for row in last_hour.table(moments)
    ]
    return {"figures": figures(model.name, moments) if moments else [], "minutes": rows, "known": known_of(model)}
