"""One site for all pages, since its processes take seconds; its rows are committed, and flushed at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from tests.browser.conftest import _seed, apart
from tests.docs.ground import Ground, ground


@pytest.fixture(scope="package")
def site(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with django_db_blocker.unblock():
        try:
            with ground(Path(tmp_path_factory.mktemp("docs"))) as found:
                yield found
        finally:
            apart(call_command, "flush", interactive=False, verbosity=0)
            apart(_seed)
