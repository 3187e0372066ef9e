"""The suite's ground: a real Postgres, one server for all xdist workers, a database for each.

project/settings.py starts it for a test run (unless DATABASE_URL names one) when pytest-django loads the
settings in the controlling process, and puts the URL into the environment that workers and processes inherit.
It is a throw-away server, and goes with the controlling process, however that ends.
"""

import importlib
import os
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import hypothesis
import pytest
from django.core.management.commands import flush
from django.db import connection
from django.db.backends.base.introspection import BaseDatabaseIntrospection as DatabaseIntrospection

from llmjobs.models import Turnstile

# No test may pay, or tell anybody: what a developer's shell knows of providers and operators stays outside.
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ADMINS", "LLMJOBS_OPERATOR_WEBHOOK_URL"):
    os.environ.pop(name, None)

# How long a busy machine takes to make an example says nothing of the code.
hypothesis.settings.register_profile("suite", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None)
hypothesis.settings.load_profile("suite")

# Content types and permissions, which `migrate` makes: the same for all tests, and most of what a flush cost.
LASTING = frozenset({"django_content_type", "auth_permission"})
SEEDS = importlib.import_module("llmjobs.migrations.0002_hot_tables").SEEDS


@pytest.fixture(scope="session", autouse=True)
def quick_flush() -> Iterator[None]:
    """A flush after a test that commits leaves what lasts, and need not make it anew."""
    real = DatabaseIntrospection.django_table_names

    def less(self: Any, *args: Any, **options: Any) -> list[str]:
        return [name for name in real(self, *args, **options) if name not in LASTING]

    with (
        patch.object(DatabaseIntrospection, "django_table_names", less),
        patch.object(flush, "emit_post_migrate_signal", lambda *args, **options: None),
    ):
        yield


@pytest.fixture(autouse=True)
def seeds(request: pytest.FixtureRequest) -> None:
    """The turnstile and the tiers, which migrations put in and the flush after a test that commits takes out."""
    uses_database = {"db", "transactional_db"} & set(request.fixturenames)
    if uses_database or request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        if not Turnstile.objects.exists():
            with connection.cursor() as cursor:
                cursor.execute(SEEDS)
