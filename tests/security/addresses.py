"""Every address of the site, read off the URL patterns and the WebSocket routes themselves, so that a test over all of
them knows a new one before its author thinks of it.
"""

import re
from collections.abc import Iterator

from django.urls import URLPattern, URLResolver, get_resolver

from llmjobs.live import routing

Address = tuple[str, str]  # method, route

ADMIN = "admin/"


def http_addresses() -> set[Address]:
    """All but the admin's. A view that is no class says nothing of its methods: it counts as GET."""
    return {
        (method, route)
        for route, pattern in _patterns(get_resolver().url_patterns)
        if not route.startswith(ADMIN)
        for method in _methods(pattern)
    }


def plain_routes() -> set[str]:
    """Under the API, those whose views are functions."""
    found = _patterns(get_resolver().url_patterns)
    return {route for route, pattern in found if route.startswith("api/") and not hasattr(pattern.callback, "cls")}


def admin_paths() -> dict[str, str]:
    """By name; arguments are filled in."""
    return {
        pattern.name or route: f"/{_filled(route)}"
        for route, pattern in _patterns(get_resolver().url_patterns)
        if route.startswith(ADMIN)
    }


def socket_routes() -> set[str]:
    """All but the last, which denies what is left."""
    *routes, rest = routing.urlpatterns
    assert str(rest.pattern) == ""
    return {str(pattern.pattern) for pattern in routes}


def _patterns(found: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for pattern in found:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern.url_patterns, route)
        else:
            yield route, pattern


def _methods(pattern: URLPattern) -> list[str]:
    view = getattr(pattern.callback, "cls", None)
    if view is None:
        return ["GET"]
    return [name.upper() for name in view.http_method_names if hasattr(view, name) and name not in ("options", "head")]


def _filled(route: str) -> str:
    route = re.sub(r"\(\?P<\w+>[^)]*\)|<[^>]+>", "1", route)
    return re.sub(r"[\^$\\]|\(\?:.*\)\??", "", route)
