"""The addresses of the API, without a slash at the end. A project includes them under `api/`, after those of
live/, which has the streams.
"""

from django.urls import path

from llmjobs.api import docs, views, waiting

app_name = "llmjobs-api"

urlpatterns = [
    path("jobs", views.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", waiting.job, name="job"),
    path("jobs/<str:job_id>/cancel", views.CancelView.as_view(), name="cancel"),
    path("stats", views.StatsView.as_view(), name="stats"),
    path("models", views.ModelsView.as_view(), name="models"),
    path("schema", docs.SchemaView.as_view(), name="schema"),
    path("docs", docs.docs, name="docs"),
]
