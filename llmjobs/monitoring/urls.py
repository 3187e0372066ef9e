"""The addresses that machines ask, at the root by custom. `health.probes` answers the two of health before this."""

from django.urls import path

from llmjobs.monitoring.health import healthz, readyz
from llmjobs.monitoring.metrics import metrics

app_name = "llmjobs-monitoring"

urlpatterns = [
    path("metrics", metrics, name="metrics"),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
]
