"""Static files out of a server that runs while they are changed, as by an upgrade in place."""

from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from project.static_files import static_files


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    settings.STATIC_ROOT = tmp_path
    path = tmp_path / "part.js"
    path.write_text("export const one = 1;\n")
    return path


@pytest.fixture
def serve(file: Path) -> Any:
    """As a server that has started by now."""
    return static_files(lambda request: HttpResponse(status=404))


def get(serve: Any, **headers: str) -> Any:
    return serve(RequestFactory().get("/static/part.js", **headers))


def test_a_file_is_answered_whole_or_in_part_as_asked(serve, file):
    assert (get(serve).content, get(serve)["Content-Length"]) == (file.read_bytes(), "22")
    part = get(serve, HTTP_RANGE="bytes=7-11")
    assert (part.status_code, part.content, part["Content-Length"]) == (206, b"const", "5")


@pytest.mark.parametrize("text", ["export const one = 1;\nexport const two = 2;\n", "//\n", ""])
def test_a_file_changed_meanwhile_is_answered_with_its_own_length(serve, file, text):
    etag = get(serve)["ETag"]
    file.write_text(text)
    for headers in ({}, {"HTTP_RANGE": "bytes=7-21"}) if len(text) < 22 else ({},):
        answer = get(serve, **headers)
        assert (answer.status_code, answer.content) == (200, text.encode())
        assert answer["Content-Length"] == str(len(text))
        assert answer.get("ETag") != etag and answer["Cache-Control"] == "no-cache"


def test_a_file_that_is_gone_is_the_sites_404(serve, file):
    file.unlink()
    assert get(serve).status_code == 404


def test_the_types_of_a_script_are_no_film(serve, file):
    file.with_suffix(".d.ts").write_text("export const one: number;\n")
    answer = static_files(lambda request: HttpResponse(status=404))(RequestFactory().get("/static/part.d.ts"))
    assert (answer.status_code, answer["Content-Type"]) == (200, 'text/plain; charset="utf-8"')
