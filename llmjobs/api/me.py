"""`GET /api/me`: who asks, for which clients, and what the page may offer. Everybody who is let in may ask."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from llmjobs.access import Caller
from llmjobs.api.schema import documented
from llmjobs.api.views import ApiView
from llmjobs.conf import conf
from llmjobs.models import Client
from llmjobs.models.tenants import Scope


class MeView(ApiView):
    @documented("get_caller")
    def get(self, request: Request) -> HttpResponse:
        caller = self.caller
        is_user = caller.user_id is not None
        return JsonResponse({
            "object": "caller",
            "user": _username(caller.user_id),
            "is_operator": caller.is_operator,
            "scopes": [scope for scope in Scope.values if caller.can(scope)],
            "can_make_keys": is_user and bool(caller.clients) and conf.users_make_keys,
            "can_share": may_share(caller) and conf.share_links,
            "clients": [_client_json(client) for client in caller.clients],
        })  # fmt: skip


def may_share(caller: Caller) -> bool:
    """To show a job to others is more than to read it; who may not read it can't show it either."""
    return caller.can(Scope.READ) and caller.can(Scope.CANCEL)


def _username(user_id: int | None) -> str | None:
    if user_id is None:
        return None
    user = get_user_model()._default_manager.filter(pk=user_id).first()
    return None if user is None else user.get_username()


def _client_json(client: Client) -> dict[str, Any]:
    return {
        "name": client.name,
        "tier": client.tier.name,
        "priorities": [priority.word for priority in client.tier.priorities],
        "default_priority": client.tier.default_priority.word,
        "is_paused": client.is_paused,
    }
