"""The site's own parts: static files, and middleware that costs no thread."""

from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import AsyncClient, Client
from django.utils.module_loading import import_string

FILE = "admin/css/base.css"


@pytest.mark.parametrize("name", settings.MIDDLEWARE)
def test_no_middleware_holds_a_thread_while_an_async_view_waits(name: str) -> None:
    """Django runs a synchronous one, and all that it stands around, in a thread of the request's own."""
    assert import_string(name).async_capable


def test_a_static_file_is_served_without_collectstatic() -> None:
    response = Client().get(f"/static/{FILE}")
    path = finders.find(FILE)
    assert path is not None
    assert (response.status_code, response.content) == (200, Path(path).read_bytes())
    assert response["Content-Type"] == 'text/css; charset="utf-8"'
    assert "max-age=60" in response["Cache-Control"]
    assert response["X-Content-Type-Options"] == "nosniff"


def test_a_static_file_that_did_not_change_is_not_sent_again() -> None:
    modified = Client().get(f"/static/{FILE}")["Last-Modified"]
    response = Client().get(f"/static/{FILE}", headers={"If-Modified-Since": modified})
    assert (response.status_code, response.content) == (304, b"")


async def test_a_static_file_is_served_to_asgi_without_a_warning() -> None:
    response = await AsyncClient().get(f"/static/{FILE}")
    assert response.status_code == 200
    assert not response.streaming


def test_a_part_of_a_static_file_is_sent_as_such() -> None:
    response = Client().get(f"/static/{FILE}", headers={"Range": "bytes=0-9"})
    assert (response.status_code, len(response.content)) == (206, 10)


@pytest.mark.parametrize("path", ["/static/nothing.css", "/static/../project/settings.py", "/static/"])
def test_what_is_no_static_file_is_not_found(path: str) -> None:
    assert Client().get(path).status_code == 404
