"""Providers and models: who answers, within which limits, at which price.

A provider names the environment variable that holds its key. This page says whether that variable is set in the web
process that shows it, never what it holds; the workers have an environment of their own.
"""

import os

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from llmjobs.admin import pausing
from llmjobs.admin.cells import badge
from llmjobs.admin.pages import Page
from llmjobs.admin.tenants import jobs_url
from llmjobs.models import Model, Provider
from llmjobs.models.pools import validate_key_env


def state_badge(row: Provider | Model) -> SafeString:
    return badge("paused") if row.is_paused else badge("in service")


@admin.register(Provider)
class ProviderPage(Page):
    list_display = ("name", "base_url", "api_key_env", "key_in_this_process", "any_model", "state", "created_at")
    list_filter = ("is_paused", "any_model")
    search_fields = ("name", "base_url")
    readonly_fields = ("key_in_this_process", "state", "created_at")
    fieldsets = (
        (None, {"fields": ("name", "base_url", "state", "created_at")}),
        ("Key", {"fields": ("api_key_env", "key_in_this_process")}),
        ("Models made on first use", {"fields": ("any_model", "default_rpm", "default_tpm")}),
    )
    actions = (pausing.pause, pausing.resume)

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
        return pausing.buttons(obj)

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
        ("Limits", {"fields": ("rpm", "tpm", "max_running", "context_window"), "description": "Empty: the default."}),
        ("Prices", {"fields": ("input_usd_per_mtok", "output_usd_per_mtok")}),
        ("When it is blocked", {"fields": ("fallback",)}),
    )
    actions = (pausing.pause, pausing.resume)

    @admin.display(description="state", ordering="is_paused")
    def state(self, model: Model) -> SafeString:
        return state_badge(model)

    def buttons(self, obj: Model) -> list[tuple[str, str]]:
        return pausing.buttons(obj)

    def links(self, obj: Model) -> list[tuple[str, str]]:
        flows = f"{reverse('admin:llmjobs_flow_changelist')}?{urlencode({'model': obj.name})}"
        return [(jobs_url(model=obj.name), "Jobs"), (flows, "Flows")]
