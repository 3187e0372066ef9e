"""The site's addresses."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/", include("llmjobs.live.urls")),  # the streams, before what stands at /api/jobs/<id>
    path("api/", include("llmjobs.api.urls")),
    path("admin/", admin.site.urls),
    path("docs/", include("llmjobs.docs.urls")),
    path("", include("llmjobs.monitoring.urls")),
    path("", include("llmjobs.console.urls")),
]
