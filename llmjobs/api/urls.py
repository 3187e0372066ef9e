"""The addresses of the API, without a slash at the end. A project includes them under `api/`, after those of
live/, which has the streams.
"""

from django.urls import path

from llmjobs.api import asked, bulk, docs, keys, me, shares, usage, views, waiting

app_name = "llmjobs-api"

urlpatterns = [
    path("jobs", views.JobsView.as_view(), name="jobs"),
    path("jobs/bulk", bulk.bulk, name="bulk"),
    path("jobs/<str:job_id>", waiting.job, name="job"),
    path("jobs/<str:job_id>/cancel", views.CancelView.as_view(), name="cancel"),
    path("jobs/<str:job_id>/request", asked.RequestView.as_view(), name="request"),
    path("jobs/<str:job_id>/shares", shares.SharesView.as_view(), name="shares"),
    path("jobs/<str:job_id>/shares/<str:share_id>/revoke", shares.RevokeShareView.as_view(), name="revoke_share"),
    path("me", me.MeView.as_view(), name="me"),
    path("usage", usage.UsageView.as_view(), name="usage"),
    path("keys", keys.KeysView.as_view(), name="keys"),
    path("keys/<str:key_id>/revoke", keys.RevokeKeyView.as_view(), name="revoke_key"),
    path("stats", views.StatsView.as_view(), name="stats"),
    path("models", views.ModelsView.as_view(), name="models"),
    path("schema", docs.SchemaView.as_view(), name="schema"),
    path("docs", docs.docs, name="docs"),
]
