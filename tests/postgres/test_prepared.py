"""The hot path's statements over Django's connection: prepared where it allows that, and seen by Django's own tools."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmjobs.access import KeyRefused, check_key
from llmjobs.catalog import pool_for
from llmjobs.errors import ModelNotFound
from tests.factories import make_client, make_model

pytestmark = pytest.mark.django_db


def prepared() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("select statement from pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


@pytest.mark.parametrize("threshold", [1, None])
def test_a_statement_is_prepared_at_its_second_use_where_the_connection_allows_it(threshold: int | None) -> None:
    """Django's default is never: behind an old pooler the next statement might go to a server that does not know it."""
    connection.ensure_connection()
    before, connection.connection.prepare_threshold = connection.connection.prepare_threshold, threshold
    try:
        for _ in range(3):
            with pytest.raises(KeyRefused):
                check_key("nobody's")
        assert any("llmjobs_apikey" in statement for statement in prepared()) == (threshold is not None)
    finally:
        connection.connection.prepare_threshold = before


def test_a_model_is_found_with_all_its_fields_by_one_statement() -> None:
    """Nothing of it is asked for later, one round trip a field; and an edit counts at once."""
    model, client = make_model("gpt-x", rpm=7, input_usd_per_mtok=2), make_client()
    with CaptureQueriesContext(connection) as asked:
        found = pool_for("gpt-x", client)
        values = {field.attname: getattr(found, field.attname) for field in model._meta.concrete_fields}
    model.refresh_from_db()
    assert len(asked) == 1
    assert values == {name: getattr(model, name) for name in values}
    model.rpm = 8
    model.save()
    assert pool_for("gpt-x", client).rpm == 8


def test_no_model_is_found_by_another_ones_name() -> None:
    make_model("gpt-x")
    with pytest.raises(ModelNotFound):
        pool_for("gpt-y", make_client())
