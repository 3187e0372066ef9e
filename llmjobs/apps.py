"""The app's registration with Django. It adds system checks and no more: no query, no thread, no signal."""

from django.apps import AppConfig


class LlmjobsConfig(AppConfig):
    name = "llmjobs"
    label = "llmjobs"
    verbose_name = "LLM jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from llmjobs import checks, preflight  # noqa: F401  (importing registers them)
