"""What machines ask of a web server: /metrics, /healthz, /readyz; and what they are configured with.

    urlpatterns = [path("", include("llmjobs.monitoring.urls")), …]

`grafana.json` is a dashboard to import, `alerts.yml` rules for Prometheus. Everything is read from the database's
tables, so that it does not matter which process is asked, nor whether it was restarted: scrape one, or all and take the
maximum, as dashboard and rules do.
"""
