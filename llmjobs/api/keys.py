"""`/api/keys`: the API keys of a user's client, made and revoked by the user.

For sessions alone: a key that could make keys would outlive its own end. What a key may be says `issuing.py`. The key
itself is in one answer, to the POST that made it, which may not be cached.
"""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request

from llmjobs import issuing
from llmjobs.api.authentication import client_of
from llmjobs.api.incoming import read_json_object
from llmjobs.api.schema import documented
from llmjobs.api.views import ApiView
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest
from llmjobs.models import ApiKey, Client
from llmjobs.representation import time_json

NAME_CHARS_MAX = 128
EXPIRES_MIN_S, EXPIRES_MAX_S = 60, 3650 * 86_400
ID_CHARS = 24  # of the hash of 256 random bits: 96 of them, which say nothing of the key
FIELDS = ("name", "scopes", "expires_in_s")


class SessionView(ApiView):
    """For users who are logged in."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.caller.user_id is None:
            raise PermissionDenied("Expected the session of a user, got an API key.", code="session_required")


class KeysView(SessionView):
    @documented("list_keys")
    def get(self, request: Request) -> HttpResponse:
        keys = issuing.keys_of(client_of(self.caller))
        return JsonResponse({"object": "list", "data": [_key_json(key) for key in keys]})

    @documented("make_key")
    def post(self, request: Request) -> HttpResponse:
        client = client_of(self.caller)
        _may_make()
        fields = _parsed(read_json_object(request._request))
        row, key = issuing.issue(client, self.caller.user_id, **fields)
        return JsonResponse({**_key_json(row), "api_key": key}, status=201)


class RevokeKeyView(SessionView):
    @documented("revoke_key")
    def post(self, request: Request, key_id: str) -> HttpResponse:
        key = _find(client_of(self.caller), key_id)
        _may_make()
        return JsonResponse(_key_json(issuing.revoke(key, self.caller.user_id)))


def _may_make() -> None:
    if not conf.users_make_keys:
        raise PermissionDenied("Keys are made and revoked by operators alone.", code="keys_not_allowed")


def _find(client: Client, key_id: str) -> ApiKey:
    """By the first characters of its hash: numbers would tell how many keys all clients have."""
    prefix, _, start = key_id.partition("_")
    if prefix == "key" and len(start) == ID_CHARS and start.isascii() and start.isalnum():
        key = client.api_keys.select_related("created_by", "client").filter(hash__startswith=start).first()
        if key is not None:
            return key
    raise NotFound("There is no such key.", code="key_not_found")


def _parsed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `issuing.issue`. Raises InvalidRequest with `param`."""
    for name in data:
        if name not in FIELDS:
            raise InvalidRequest(
                f"no such field: {name[:64]!r}; a key has {', '.join(FIELDS)}", param=name, code="unknown_parameter"
            )
    return {
        "name": _name(data.get("name")),
        "scopes": _scopes(data.get("scopes")),
        "expires_in_s": lasting("expires_in_s", data.get("expires_in_s"), most=EXPIRES_MAX_S),
    }


def _name(value: Any) -> str:
    if value is None:
        raise InvalidRequest("expected a name, got none", param="name", code="missing_required_parameter")
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= NAME_CHARS_MAX or not text.isprintable():
        raise InvalidRequest(f"expected a text of 1 to {NAME_CHARS_MAX} printable characters", param="name")
    return text


def _scopes(value: Any) -> list[str]:
    if value is None:
        raise InvalidRequest("expected scopes, got none", param="scopes", code="missing_required_parameter")
    if not isinstance(value, list) or not value or not all(scope in issuing.GRANTABLE for scope in value):
        raise InvalidRequest(f"expected an array of some of {', '.join(issuing.GRANTABLE)}", param="scopes")
    return value


def lasting(name: str, value: Any, *, most: float) -> float | None:
    """Seconds from now on; None: it was not said."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not EXPIRES_MIN_S <= value <= most:
        raise InvalidRequest(f"expected a number of seconds from {EXPIRES_MIN_S} to {most:,}", param=name)
    return float(value)


def _key_json(key: ApiKey) -> dict[str, Any]:
    return {
        "object": "api_key",
        "id": f"key_{key.hash[:ID_CHARS]}",
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "created_at": time_json(key.created_at),
        "expires_at": time_json(key.expires_at),
        "revoked_at": time_json(key.revoked_at),
        "last_used_at": time_json(key.last_used_at),
        "created_by": key.created_by.get_username() if key.created_by else None,
    }
