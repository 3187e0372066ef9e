"""Without Django 6 the backend for TASKS says what it needs, and nothing else asks for it."""

import importlib
import sys

import django
import pytest


@pytest.mark.skipif(django.VERSION >= (6,), reason="Django 6 has django.tasks: tests/postgres/test_tasks.py")
def test_importing_the_backend_says_what_it_needs() -> None:
    for module in ("llmjobs.tasks", "llmjobs.task_jobs"):
        assert module not in sys.modules, "something imports it that need not"
    with pytest.raises(ImportError, match=r"needs Django 6\.0 or newer, which has django\.tasks; this is Django 5"):
        importlib.import_module("llmjobs.tasks")
