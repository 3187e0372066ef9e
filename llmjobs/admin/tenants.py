"""Tiers and clients: people edit their limits and weights here, and an edit acts on the backlog at the next claim.

A client's webhook secret is shown once, by what made it: `createclient`, or a rotation. Pausing is an action with a
reason, not a field of the form: a form that was left open would undo what somebody else has paused meanwhile.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.forms import ModelForm, Script
from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from llmjobs import limits
from llmjobs.admin import pausing, secrets, usage
from llmjobs.admin.cells import NOTHING, badge
from llmjobs.admin.keys import KeysOfClient
from llmjobs.admin.pages import Page
from llmjobs.admin.previews import Previewed
from llmjobs.admin.shares import Change
from llmjobs.admin.usage import jobs_url as jobs_url
from llmjobs.models import Client, Tier

LIMITS = ("max_queued", "max_queued_tokens", "max_running", "rpm", "tpm")


@admin.register(Tier)
class TierPage(Previewed, Page):
    previewed_fields = ("weight",)
    list_display = ("name", "weight", "max_priority", "aging_s", "backlog_target_s", *LIMITS)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "weight", "max_priority", "aging_s", "backlog_target_s")}),
        (
            "Limits",
            {"fields": LIMITS, "description": "Of each client of this tier that has no limit of its own; empty: none."},
        ),
    )

    class Media:
        css = {"all": ["llmjobs/admin_configuration.css"]}

    change_form_template = "admin/llmjobs/tier/change_form.html"

    def details(self, request: HttpRequest, obj: Tier) -> dict[str, Any]:
        return usage.of_tier(obj)

    def change_of(self, obj: Tier, form: ModelForm) -> Change:
        return Change(tier=obj.name, tier_weight=form.cleaned_data["weight"])

    def links(self, obj: Tier) -> list[tuple[str, str]]:
        clients = f"{reverse('admin:llmjobs_client_changelist')}?{urlencode({'tier__id__exact': obj.pk})}"
        return [(clients, "Clients"), (jobs_url(tier=obj.name), "Jobs")]


@admin.register(Client)
class ClientPage(Previewed, Page):
    previewed_fields = ("tier", "weight")
    list_display = ("name", "tier", "weight", "state", *LIMITS, "monthly_budget_usd", "created_at")
    list_filter = ("is_paused", "tier")
    list_select_related = ("tier",)
    search_fields = ("name",)
    search_help_text = "A part of the name."
    raw_id_fields = ("users",)  # where users can't be searched: see get_autocomplete_fields
    readonly_fields = ("state", "spent", "secrets", "created_at")
    fieldsets = (
        (None, {"fields": ("name", "tier", "weight", "state", "created_at")}),
        ("Limits", {"fields": LIMITS, "description": "Empty: as its tier has it."}),
        (
            "Money",
            {
                "fields": ("monthly_budget_usd", "spent"),
                "description": "Over it new jobs are refused; those that were accepted still run. Empty: no budget.",
            },
        ),
        ("Webhooks", {"fields": ("secrets",), "description": "What signs what is told of its jobs' ends."}),
        ("People", {"fields": ("users",), "description": "Who sees and submits its jobs in the web console."}),
    )
    inlines = (KeysOfClient,)
    actions = (pausing.pause, pausing.resume, secrets.rotate_secret)

    class Media:
        css = {"all": ["llmjobs/admin_configuration.css"]}
        js = [Script("llmjobs/admin_labels.js", type="module")]

    change_form_template = "admin/llmjobs/client/change_form.html"

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Not above: a host's own users may have no page in the admin, which Django's check would refuse there."""
        page = self.admin_site._registry.get(get_user_model())
        return ("users",) if page is not None and page.search_fields else ()

    def details(self, request: HttpRequest, obj: Client) -> dict[str, Any]:
        return usage.of_client(obj)

    def change_of(self, obj: Client, form: ModelForm) -> Change:
        edited = form.cleaned_data
        return Change(client=obj.name, client_weight=edited["weight"], client_tier=edited["tier"].name)

    @admin.display(description="state", ordering="is_paused")
    def state(self, client: Client) -> SafeString:
        return badge("paused") if client.is_paused else badge("in service")

    @admin.display(description="spent")
    def spent(self, client: Client) -> str:
        """Months are UTC's, as the budget's are."""
        if client._state.adding:
            return NOTHING
        now, budget = limits.money(client), client.monthly_budget_usd
        of_budget = "" if budget is None else f" of ${budget:,.2f}"
        month = date_format(now.month, "F")
        return f"${now.spent_usd:,.2f}{of_budget} in {month}, ${now.reserved_usd:,.2f} reserved"

    def buttons(self, obj: Client) -> list[tuple[str, str]]:
        return [*pausing.buttons(obj), ("rotate_secret", "Rotate the webhook secret")]

    @admin.display(description="secrets")
    def secrets(self, client: Client) -> str:
        return secrets.secrets_text(client)

    def links(self, obj: Client) -> list[tuple[str, str]]:
        issue = f"{reverse('admin:llmjobs_apikey_add')}?{urlencode({'client': obj.pk})}"
        flows = f"{reverse('admin:llmjobs_flow_changelist')}?{urlencode({'client': obj.name})}"
        webhooks = f"{reverse('admin:llmjobs_webhookdelivery_changelist')}?{urlencode({'client': obj.name})}"
        jobs = jobs_url(client=obj.name)
        return [(issue, "Issue a key"), (jobs, "Jobs"), (flows, "Flows"), (webhooks, "Webhooks")]
