"""The pages as they are served: to everybody, the same until they change, under the name that was asked for."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.test import Client
from django.urls import include, path
from django.utils.http import http_date

from llmjobs import conf
from llmjobs.docs import contents, generated, library, searching
from llmjobs.docs.rendering import Heading, Passage, rendered
from tests.console.test_csp import inline

PAGE = "/docs/guarantees/"


@pytest.fixture
def get() -> Any:
    """What a stranger is answered. Without the `db` fixture: a query would fail."""
    return Client().get


@pytest.mark.parametrize("page", contents.ALL, ids=lambda page: page.slug)
def test_every_page_is_there_for_a_stranger_with_nothing_inline(get, page):
    answer = get(f"/docs/{page.slug}/")
    html = answer.content.decode()
    assert answer.status_code == 200
    assert [found for found in inline(answer.content) if "href=https://" not in found] == [], "but for links outside"
    assert html.count("<h1") == 1 and f"<title>{page.title} · llmjobs</title>" in html.replace("&#x27;", "'")
    assert f'href="/docs/{page.slug}/" aria-current="page"' in html


def test_the_contents_name_every_page(get):
    html = get("/docs/").content.decode()
    assert [page.slug for page in contents.ALL if f'href="/docs/{page.slug}/"' not in html] == []
    assert 'href="/api/docs"' in html


def test_pages_follow_each_other_in_the_order_of_reading():
    first, second, last = contents.ALL[0], contents.ALL[1], contents.ALL[-1]
    assert contents.neighbours(first) == (None, second)
    assert contents.neighbours(last) == (contents.ALL[-2], None)


@pytest.mark.parametrize("path", ["/docs/nothing/", "/docs/../settings/", "/docs/quickstart.md/", "/docs/a%2Fb/"])
def test_what_is_no_page_is_not_found(get, path):
    assert get(path).status_code == 404


@pytest.mark.parametrize("path", ["/docs/", PAGE, "/docs/search/?q=lease"])
def test_nothing_is_sent_again_that_has_not_changed(get, path):
    first = get(path)
    again = get(path, headers={"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert first["ETag"] != get(path, headers={"Host": "localhost"}, secure=True)["ETag"] or path != PAGE
    assert first["ETag"] != get("/docs/settings/")["ETag"]
    assert first["Cache-Control"] == "no-cache"
    assert Client().head(path)["ETag"] == first["ETag"]
    assert Client().post(path).status_code == 405


def test_a_page_says_when_it_was_changed(get):
    served = library.served(contents.BY_SLUG["guarantees"], "http://testserver")
    assert get(PAGE)["Last-Modified"] == http_date(served.changed_at.timestamp())
    assert served.changed_at < datetime.now(UTC)


def test_commands_name_the_site_that_shows_them(get):
    html = get("/docs/quickstart/", headers={"Host": "localhost"}, secure=True).content.decode()
    assert "https://localhost/api/jobs" in html and "localhost:8000" not in html
    assert get("/docs/", headers={"Host": "evil.example"}).status_code == 400


def test_a_question_finds_the_passage(get):
    found = json.loads(get("/docs/search/?as=json&q=idempotency+key").content)["data"]
    assert {"http-api", "guarantees"} & {each["url"].split("/")[2] for each in found}
    assert all({"title", "page", "url", "excerpt"} == set(each) for each in found)
    html = get("/docs/search/?q=asynchronous+replication").content.decode()
    assert 'href="/docs/guarantees/#what-a-failover-may-lose"' in html


def test_a_question_is_text(get):
    answer = get("/docs/search/", {"q": "<script>alert(1)</script>"})
    assert inline(answer.content) == [] and b"<script>alert" not in answer.content
    assert b"Nothing has all of these words" in get("/docs/search/?q=zebra+quagga").content
    assert get("/docs/search/", {"q": "a " * 5_000 + "\0"}).status_code == 200


def test_all_words_must_be_there_and_those_of_headings_count_most():
    page = contents.BY_SLUG["concepts"]
    in_text = Passage(Heading(2, "a", "Other"), "a lease and a claim")
    in_heading = Passage(Heading(2, "b", "The lease"), "what a claim gives")
    neither = Passage(Heading(2, "c", "Third"), "lease alone")
    found = searching.search("claim lease", [(page, each) for each in (in_text, neither, in_heading)])
    assert [each.passage.heading.id for each in found] == ["b", "a"]
    assert searching.search("  ", [(page, in_text)]) == []
    assert len(searching.search("lease", [(page, neither)] * 100)) == searching.FOUND_MAX


def test_an_excerpt_is_cut_between_words():
    words = " ".join(f"word{number}" for number in range(200))
    page = contents.BY_SLUG["concepts"]
    [found] = searching.search("word100", [(page, Passage(Heading(2, "a", "A"), words))])
    assert found.excerpt.startswith("… word") and found.excerpt.endswith(" …") and "word100" in found.excerpt


def test_markdown_becomes_html_and_html_stays_text():
    text = (
        "# A\n\n## B & <b>c</b>\n\nSee [fair](fairness.md#x), <i>this</i> and `<u>`.\n\n"
        '| a | b |\n|---|--:|\n| <s> | 2 |\n\n```html\n<p onclick="x">\n```\n\n<script>alert(1)</script>\n'
    )
    page = rendered(text, address_of=lambda slug: f"/d/{slug}/")
    assert inline(page.html.encode()) == []
    assert '<a href="/d/fairness/#x">fair</a>' in page.html
    assert "&lt;i&gt;this&lt;/i&gt;" in page.html and "<code>&lt;u&gt;</code>" in page.html
    assert '<td align="right">2</td>' in page.html and "style=" not in page.html
    assert page.headings == [Heading(2, "b-bcb", "B & <b>c</b>")]
    assert "onclick" in page.passages[1].words and "alert(1)" in page.passages[1].words


def test_code_and_tables_are_reached_by_the_keyboard_and_are_no_landmarks():
    """A page has dozens of them: its landmarks are the ways around it and the text."""
    page = rendered("```sh\nls\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n", address_of=str)
    assert (page.html.count('tabindex="0"'), page.html.count('role="group"'), page.html.count("region")) == (2, 2, 0)


def test_a_block_in_a_list_stays_in_it():
    page = rendered("1. one\n\n    ```sh\n    ls\n      -l\n    ```\n\n2. two\n", address_of=str)
    assert page.html.count("<ol>") == 1 and "  -l" in page.html.replace("</span>", "").replace('<span class="w">', "")


def test_settings_and_commands_are_made_from_the_code():
    settings, commands = generated.settings(), generated.commands()
    assert [knob.setting for knob in generated.KNOBS if f"| `{knob.setting}` |" not in settings] == []
    begin = re.findall(r"^    #.*\n    Knob\(\"(\w+)\"", Path(conf.__file__).read_text(), re.MULTILINE)
    assert list(generated.GROUPS) == begin, "settings stand under what conf.py says of them"
    assert [name for name in generated.command_names() if f"\n## {name}\n" not in commands] == []
    assert "| `LLMJOBS_LEASE_S` | 12 | a number from 2 to 3,600 |" in settings
    assert "| `LLMJOBS_BODY_MAX_BYTES` | 4,194,304 (4 MiB) |" in settings
    assert "| `--short-share F` | slots kept for short jobs (0.2) |" in commands


@pytest.mark.parametrize("name", generated.command_names())
def test_every_option_of_a_command_says_what_it_does(name):
    silent = [action.dest for action in generated.own_actions(name) if action.option_strings and not action.help]
    assert silent == []


def test_a_host_without_our_other_pages_has_the_documentation(get, settings):
    urls: Any = ModuleType("tests.docs.urls_of_a_host")
    urls.urlpatterns = [path("help/llm/", include("llmjobs.docs.urls"))]
    settings.ROOT_URLCONF = urls
    library._served.cache_clear()
    try:
        html = get("/help/llm/quickstart/").content.decode()
    finally:
        library._served.cache_clear()
    assert 'href="/help/llm/http-api/"' in html and ">Open the site</a>" not in html
