"""/api/docs: a page from this server alone, within a policy of no inline script and no inline style."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from tests.api.conftest import Api


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data)

    @property
    def links(self) -> list[str]:
        return [value for tag, attrs in self.tags for name, value in attrs.items() if name in ("src", "href") and value]


@pytest.fixture
def page(db) -> Page:
    response = Api(None).get("docs")
    assert response.status_code == 200
    return Page(response.content.decode())


def test_nothing_on_the_page_is_inline(page):
    assert page.inline == []
    for tag, attrs in page.tags:
        assert tag != "style"
        assert not [name for name in attrs if name == "style" or name.startswith("on")], (tag, attrs)


def test_nothing_on_the_page_comes_from_outside(page):
    assert page.links
    assert all(link.startswith("/") and not link.startswith("//") for link in page.links)


def test_everything_that_the_page_loads_is_there(page):
    for link in page.links:
        if link.startswith("/static/"):
            assert finders.find(link.removeprefix("/static/")), link
        else:
            assert Api(None).get(link.removeprefix("/api/")).status_code == 200


def test_the_policy_allows_no_inline_script_and_nothing_from_outside(db):
    policy = dict(part.strip().split(" ", 1) for part in Api(None).get("docs")["Content-Security-Policy"].split(";"))

    assert policy["default-src"] == "'self'"
    assert "script-src" not in policy
    assert "style-src" not in policy
    assert policy["img-src"] == "'self' data:"


def test_swagger_ui_is_told_not_to_ask_its_own_validator():
    script = Path(str(finders.find("llmjobs/api_docs.js"))).read_text(encoding="utf-8")

    assert "validatorUrl: null" in script


def test_the_schema_leads_to_the_documentation_where_the_project_has_it(client):
    assert client.get("/api/schema", headers={"accept": "application/json"}).json()["externalDocs"]["url"] == "/docs/"
