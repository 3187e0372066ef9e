"""The page at `/` and the browser's icon.

Owns who sees what: a person's clients, the priorities of the tier. All else the page gets from the API. No view here
changes anything.
"""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.templatetags.static import static
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from llmjobs.access import Caller
from llmjobs.models import Client, Provider, Tier
from llmjobs.states import Priority


@never_cache
@require_safe
@login_required
@ensure_csrf_cookie  # client.js sends it back as a header
def index(request: HttpRequest) -> HttpResponse:
    caller = Caller.from_user(request.user)  # type: ignore[arg-type]
    priorities = _priorities(caller.client.tier) if caller.client else []
    return render(
        request,
        "index.html",
        {
            "client": caller.client,
            "client_names": Client.objects.filter(pk__in=caller.client_ids).values_list("name", flat=True),
            "is_operator": caller.is_operator,
            "may_open_admin": request.user.is_staff,
            "any_model": Provider.objects.filter(any_model=True).exists(),
            "priorities": [priority.word for priority in priorities],
            "default_priority": max([Priority.NORMAL, *priorities[:1]]).word,
        },
    )


@require_safe
def favicon(request: HttpRequest) -> HttpResponse:
    """For the pages that name no icon (the admin, a raw answer of the API), where browsers ask for this address."""
    return HttpResponseRedirect(static("llmjobs/favicon.svg"))


def _priorities(tier: Tier) -> list[Priority]:
    """Those that the tier allows, the most urgent first."""
    return sorted(priority for priority in Priority if priority >= tier.max_priority)
