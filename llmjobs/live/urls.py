"""The addresses of the event streams. A project includes them under `api/`, before those of api/."""

from django.urls import path

from llmjobs.live import sse, waiting  # noqa: F401  (waiting: importing it tells events.py how to wait without polling)

app_name = "llmjobs-live"

urlpatterns = [
    path("jobs/<str:job_id>/events", sse.job_events, name="job-events"),
    path("events", sse.feed_events, name="events"),
]
