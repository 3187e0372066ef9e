"""The WebSocket addresses, and the ASGI application that has them beside Django's own.

    application = routing.application(get_asgi_application())

Origin is checked: a browser names the page that connects, and it must be a page of this site (ALLOWED_HOSTS), or a
session could be used by any page that its user visits. Programs name none; they need a key, because a session would
be enough for a forged page otherwise.
"""

from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier
from django.urls import path, re_path

from llmjobs.live import waiting  # noqa: F401  (importing it tells events.py how to wait without polling)
from llmjobs.live.admission import key_in_subprotocols
from llmjobs.live.backpressure import Application, paced
from llmjobs.live.consumers import LiveConsumer, feed_frames, job_frames, queue_frames

urlpatterns = [
    path("ws/jobs/<str:job_id>/", LiveConsumer.as_asgi(frames=job_frames)),
    path("ws/jobs/", LiveConsumer.as_asgi(frames=feed_frames)),
    path("ws/queue/", LiveConsumer.as_asgi(frames=queue_frames)),
    re_path("", WebsocketDenier.as_asgi()),
]


def application(http: Application) -> Application:
    """Everything that a web server runs: `http` for HTTP, and the WebSockets of this module."""
    return paced(ProtocolTypeRouter({"http": http, "websocket": websocket}))


def _origin_checked(inner: Application) -> Application:
    async def checked(scope: dict[str, Any], receive: Any, send: Any) -> None:
        names_origin = any(name == b"origin" for name, _ in scope["headers"])
        if names_origin or key_in_subprotocols(scope.get("subprotocols") or []) is None:
            await AllowedHostsOriginValidator(inner)(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return checked


websocket = _origin_checked(URLRouter(urlpatterns))
