"""All addresses of the app in one, for a project that uses it: path("", include("llmjobs.urls")).

    /api/…                          the API, its streams, its description at /api/schema and /api/docs
    /docs/…                         the documentation
    /metrics, /healthz, /readyz     for machines

Owns no address. The pages at `/` are this site's own and not among them. WebSockets are no Django addresses: see
live/routing.py. Invariant: an address that the project has before it stays the project's.
"""

from django.urls import include, path

urlpatterns = [
    path("api/", include("llmjobs.live.urls")),  # the streams, before what stands at /api/jobs/<id>
    path("api/", include("llmjobs.api.urls")),
    path("docs/", include("llmjobs.docs.urls")),
    path("", include("llmjobs.monitoring.urls")),
]
