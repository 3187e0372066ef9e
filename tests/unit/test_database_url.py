"""DATABASE_URL: what people write there becomes Django's settings, or an error that has no password in it."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from project.database_url import connection_settings


def test_a_url_becomes_a_connection() -> None:
    found = connection_settings("postgresql://llm:p%40ss@db.example.com:5433/jobs?sslmode=require")
    assert (found["HOST"], found["PORT"], found["NAME"]) == ("db.example.com", 5433, "jobs")
    assert (found["USER"], found["PASSWORD"], found["OPTIONS"]) == ("llm", "p@ss", {"sslmode": "require"})
    assert found["ENGINE"] == "django.db.backends.postgresql"


def test_a_socket_goes_into_the_query() -> None:
    found = connection_settings("postgresql://llm@/jobs?host=/var/run/a%20folder&port=5433")
    assert (found["HOST"], found["PORT"], found["OPTIONS"]) == ("/var/run/a folder", 5433, {})


@pytest.mark.parametrize(
    ("url", "got"),
    [
        ("mysql://u:secret@h/db", "got mysql:…"),
        ("sqlite:///db", "got sqlite:…"),
        ("postgresql://u:secret@h", "got no name"),
        ("postgresql://u:secret@h:port/db", "got a port that is no number"),
        ("postgresql://u:secret@%2Fvar%2Frun/db", "got %2F in the host"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str, got: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=got) as refused:
        connection_settings(url)
    assert str(refused.value).startswith("DATABASE_URL: expected postgresql://")
    assert "secret" not in str(refused.value)
