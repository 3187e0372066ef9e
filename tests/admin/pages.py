"""What several tests of the admin need: the tables, the addresses of their pages, sessions, and actions as a browser
posts them.
"""

import re
from html import unescape
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client as Browser
from django.urls import reverse

from tests.factories import make_user

# Composite keys, or gone in milliseconds, or one row that only a duty reads; what counts come to the statistics show,
# what buckets do their models, what tallies do the overview.
NOT_REGISTERED = {
    "BucketTurn", "PoolSample", "Retention", "Watch",
    "FlowTurn", "LaneTurn", "TierTurn", "ShardTurn", "Inbox", "JobCount", "JobCountChange", "JobCountTurn", "Spending",
    "Tally", "TallyChange", "TallyMark", "TallyTime", "ClientDay", "TierSample", "OperationItem", "SharedLink",
}  # fmt: skip
TABLES = sorted({model.__name__ for model in apps.get_app_config("llmjobs").get_models()} - NOT_REGISTERED)
WRITTEN_BY_PROGRAMS = sorted(set(TABLES) - {"Tier", "Client", "ApiKey", "Provider", "Model"})


def table(name: str) -> Any:
    return apps.get_model("llmjobs", name)


def list_url(name: str) -> str:
    return reverse(f"admin:llmjobs_{name.lower()}_changelist")


def page_url(row: Model) -> str:
    return reverse(f"admin:llmjobs_{row._meta.model_name}_change", args=[row.pk])


def text_of(response: Any) -> str:
    """What a browser would show of it and more: the page with its entities read."""
    assert isinstance(response, HttpResponse)
    return unescape(response.content.decode())


def logged_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def staff(*permissions: str) -> Browser:
    """The session of somebody who may only do this, such as staff("view_job", "requeue_job")."""
    return logged_in(make_user(is_staff=True, permissions=permissions))


def ask(browser: Browser, url: str, action: str, *rows: Model, across: bool = False, **more: Any) -> Any:
    """The action's button, or the list's: the answer is the question."""
    selected = [row.pk for row in rows]
    form = {"action": action, "_selected_action": selected, "select_across": int(across), "index": 0, **more}
    return browser.post(url, form)


def confirm(browser: Browser, url: str, question: Any, reason: str = "") -> Any:
    """The answer to the question, as its own form has it."""
    fields = hidden_fields(question)
    return browser.post(url, {**fields, "reason": reason}, follow=True)


def save(browser: Browser, url: str, form: dict[str, Any]) -> Any:
    """The form sent, and where an edit moves shares also the answer to the preview."""
    answer = browser.post(url, form)
    if answer.status_code != 200 or "_previewed" not in hidden_fields(answer):
        return answer
    return browser.post(url, hidden_fields(answer))


def hidden_fields(response: Any) -> dict[str, list[str]]:
    """Of the page's forms, by name; the token apart."""
    found: dict[str, list[str]] = {}
    for tag in re.findall(r"<input type=\"hidden\"[^>]*>", response.content.decode()):
        name, value = (re.search(rf'{part}="([^"]*)"', tag) for part in ("name", "value"))
        assert name
        assert value
        if name[1] != "csrfmiddlewaretoken":
            found.setdefault(name[1], []).append(unescape(value[1]))
    return found
