"""API keys: shown once, and then nobody has them. That the look-up by hash tells nothing by its time: access.py."""

import hashlib
import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from llmjobs import access
from llmjobs.models.tenants import KEY_PREFIX_CHARS

pytestmark = pytest.mark.django_db


def issued() -> str:
    out = StringIO()
    call_command("createclient", "acme", "--json", stdout=out)
    return json.loads(out.getvalue())["api_key"]


def whole_database() -> str:
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'select t::text from "{table}" t')  # noqa: S608
            rows += [f"{table}: {row}" for (row,) in cursor.fetchall()]
    return "\n".join(rows)


def test_no_column_of_any_table_holds_a_key():
    key = issued()
    assert access.check_key(key)

    kept = whole_database()
    assert hashlib.sha256(key.encode()).hexdigest() in kept
    assert key not in kept
    assert key[KEY_PREFIX_CHARS:] not in kept


def test_a_key_has_more_than_anybody_can_guess_beside_what_is_shown_of_it():
    key = issued()

    assert len(key) - KEY_PREFIX_CHARS >= 32  # of 64 characters: 192 bits
