"""The pages at `/` and `/account/`, and the browser's icon.

Owns who sees what: a person's clients with the priorities of their tiers, and who else belongs to them. All else the
pages get from the API. No view here changes anything.
"""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.templatetags.static import static
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from llmjobs.access import Caller
from llmjobs.conf import conf
from llmjobs.models import Client, Provider

CLIENTS_MAX = 200  # that a form offers; who belongs to more (an operator) has the admin
USERS_MAX = 100  # of a client that its page names
SHARE_CHOICES = [(86_400, _("1 day")), (7 * 86_400, _("7 days")), (30 * 86_400, _("30 days"))]
# What the pages' scripts import, and what that imports: fetched at once instead of one after the other.
INDEX_MODULES = (
    "asked", "callers", "client", "composer", "connection", "display", "dom", "fields", "history", "job_actions",
    "job_facts", "job_list", "job_row", "job_view", "models", "output", "remembered", "share_dialog", "shortcuts",
    "snippets", "turns_view",
)  # fmt: skip
ACCOUNT_MODULES = (
    "client", "connection", "days_picture", "display", "dom", "keys_view", "months", "remembered", "snippets",
    "usage_view",
)  # fmt: skip


@never_cache
@require_safe
@login_required
@ensure_csrf_cookie  # client.js sends it back as a header
def index(request: HttpRequest) -> HttpResponse:
    caller = Caller.from_user(request.user)  # type: ignore[arg-type]
    page = {
        "choices": [_choice(client) for client in caller.clients[:CLIENTS_MAX]],
        "is_operator": caller.is_operator,
        "can_share": conf.share_links,
        "share_choices": [(seconds, words) for seconds, words in SHARE_CHOICES if seconds <= conf.share_max_s],
        "any_model": Provider.objects.filter(any_model=True).exists(),
    }
    return render(request, "index.html", _shell(request, caller, INDEX_MODULES) | page)


@never_cache
@require_safe
@login_required
@ensure_csrf_cookie
def account(request: HttpRequest) -> HttpResponse:
    """Of the client that `?client=` names, or of the first. 404 for one that is not the user's own."""
    caller = Caller.from_user(request.user)  # type: ignore[arg-type]
    wanted = request.GET.get("client")
    client = next((each for each in caller.clients if wanted in (None, each.name)), None)
    if client is None and caller.clients:
        raise Http404("expected a client of this user")
    names = _users_of(client) if client else []
    page = {
        "client": client,
        "users": names[:USERS_MAX],
        "are_more_users": len(names) > USERS_MAX,
        "can_make_keys": conf.users_make_keys,
    }
    return render(request, "account.html", _shell(request, caller, ACCOUNT_MODULES) | page)


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """For the pages that name no icon (the admin, a raw answer of the API), where browsers ask for this address."""
    return HttpResponseRedirect(static("llmjobs/favicon.svg"))


def _shell(request: HttpRequest, caller: Caller, modules: tuple[str, ...]) -> dict[str, Any]:
    """What both pages have: the header, and their scripts."""
    return {
        "client_names": [client.name for client in caller.clients[:CLIENTS_MAX]],
        "may_open_admin": request.user.is_staff,
        "modules": [f"llmjobs/{name}.js" for name in modules],
    }


def _users_of(client: Client) -> list[str]:
    """One more than are shown, if there are so many."""
    users = client.users.filter(is_active=True)
    return [user.get_username() for user in users.order_by(users.model.USERNAME_FIELD)[: USERS_MAX + 1]]


def _choice(client: Client) -> dict[str, Any]:
    """A client in the composer's list."""
    return {
        "name": client.name,
        "is_paused": client.is_paused,
        "priorities": [priority.word for priority in client.tier.priorities],
        "default_priority": client.tier.default_priority.word,
    }
