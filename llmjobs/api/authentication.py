"""How HTTP carries a caller: `Authorization: Bearer <api key>`, or the web session with its CSRF token.

And which of a user's clients it acts for: `LLMJobs-Client`.

Owns the headers. Does not own what a key or a user may do: `access.py`. After authentication `request.auth`
is an `access.Caller`, whichever way it came.
"""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from rest_framework import authentication, permissions
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from llmjobs.access import Caller, KeyRefused, check_key
from llmjobs.errors import InvalidRequest
from llmjobs.models import Client

SCHEME = "Bearer"
CLIENT_HEADER = "LLMJobs-Client"  # which of a user's clients is meant
NAMED_MAX = 20


class ApiKeyAuthentication(authentication.BaseAuthentication):
    """Another scheme than Bearer is somebody else's, such as a proxy's Basic: the session is tried then."""

    def authenticate(self, request: Request | HttpRequest) -> tuple[Any, Caller] | None:
        scheme, _, key = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != SCHEME.lower():
            return None
        try:
            return AnonymousUser(), Caller.from_key(check_key(key.strip()))
        except KeyRefused as refused:
            raise AuthenticationFailed(str(refused), code="invalid_api_key") from None

    def authenticate_header(self, request: Request) -> str:
        return SCHEME


class SessionAuthentication(authentication.SessionAuthentication):
    """The session of the web pages. DRF checks the CSRF token of every method that is not safe."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        found = super().authenticate(request)
        return found and (found[0], Caller.from_user(found[0]))

    def enforce_csrf(self, request: Request) -> None:
        try:
            # Django's own request: DRF's would parse the body to look for a token in it.
            super().enforce_csrf(request._request)  # type: ignore[arg-type]
        except PermissionDenied as refused:
            raise PermissionDenied(str(refused.detail), code="csrf_failed") from None


class HasScope(permissions.BasePermission):
    """The view says in `scopes` which scope a method needs."""

    def has_permission(self, request: Request, view: Any) -> bool:
        caller = request.auth
        if not isinstance(caller, Caller):
            return False  # DRF makes it a 401
        scope = view.scopes.get(request.method)
        if scope is None or caller.can(scope):
            return True
        raise PermissionDenied(
            f"This needs the scope {str(scope)!r}, and the caller has {_listed(caller)}.",
            code="insufficient_scope",
        )


def chosen(caller: Caller, headers: Mapping[str, str]) -> Caller:
    """The caller as one of the client that its header names. Raises ClientNotFound."""
    name = headers.get(CLIENT_HEADER)
    return caller if name is None else caller.choose(name)


def client_of(caller: Caller) -> Client:
    """For whom the caller acts. Raises PermissionDenied without a client, InvalidRequest where it must choose one."""
    if caller.client is not None:
        return caller.client
    if not caller.clients:
        raise PermissionDenied("This user belongs to no client.", code="no_client")
    names = ", ".join(client.name for client in caller.clients[:NAMED_MAX])
    raise InvalidRequest(
        f"This user belongs to several clients: expected one of them in the header {CLIENT_HEADER} ({names}).",
        param=CLIENT_HEADER,
        code="client_required",
    )


def _listed(caller: Caller) -> str:
    return ", ".join(sorted(caller.scopes)) or "none"
