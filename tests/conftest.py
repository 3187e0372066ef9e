"""The suite's ground: a real Postgres, one server for all xdist workers, a database for each.

project/settings.py starts it for a test run (unless DATABASE_URL names one) when pytest-django loads the
settings in the controlling process, and puts the URL into the environment that workers and processes inherit.
It is a throw-away server, and goes with the controlling process, however that ends.
"""

import importlib
import os

import pytest
from django.db import connection

from llmjobs.models import Turnstile

# No test may pay, or tell anybody: what a developer's shell knows of providers and operators stays outside.
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ADMINS", "LLMJOBS_OPERATOR_WEBHOOK_URL"):
    os.environ.pop(name, None)

SEEDS = importlib.import_module("llmjobs.migrations.0002_hot_tables").SEEDS


@pytest.fixture(autouse=True)
def seeds(request: pytest.FixtureRequest) -> None:
    """The turnstile and the tiers, which migrations put in and the flush after a test that commits takes out."""
    uses_database = {"db", "transactional_db"} & set(request.fixturenames)
    if uses_database or request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        if not Turnstile.objects.exists():
            with connection.cursor() as cursor:
                cursor.execute(SEEDS)
