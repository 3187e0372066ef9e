"""What the documentation names exists: pages, anchors, addresses, commands, options, settings."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from django.urls import Resolver404, resolve

from llmjobs.conf import KNOBS
from llmjobs.docs import contents, generated
from llmjobs.docs.fences import blocks, without
from llmjobs.docs.library import address_of
from llmjobs.docs.rendering import Rendered, rendered
from llmjobs.live import routing
from tests.docs.commands import check_commands, is_known_option, make_targets
from tests.docs.test_pages import TEXTS
from tests.live_process import ROOT

SETTINGS = {knob.setting for knob in KNOBS}
OTHERS = {"LLMJOBS_LOCK_WAIT_S"}  # named where it is read, and no knob
CODE = re.compile(r"(?<!`)(`+)(?!`)(?P<code>.+?)(?<!`)\1(?!`)")
LINK = re.compile(r"\[[^\]]*\]\((?P<to>[^)\s]+)\)")
ROUTE = re.compile(r"/(?:api|ws|admin|docs|static|shared|account|login|metrics|healthz|readyz)(?:/[\w{}<>./-]*)?")
BENCH = (ROOT / "tests/bench/__main__.py").read_text(encoding="utf-8")
AN_ID = "0195f3c0-0000-7000-8000-000000000000"


@cache
def text_of(name: str) -> str:
    return TEXTS[name].read_text(encoding="utf-8")


@cache
def page_of(name: str) -> Rendered:
    return rendered(generated.filled(text_of(name)), address_of=address_of)


def inline_code(name: str) -> list[str]:
    return [match["code"].strip() for match in CODE.finditer(without(text_of(name)))]


@pytest.mark.parametrize("page", contents.ALL, ids=lambda page: page.slug)
def test_a_page_begins_with_its_title(page: contents.Page) -> None:
    assert text_of(page.slug).startswith(f"# {page.title}\n"), f"expected “# {page.title}”"


def test_every_page_is_in_the_contents_once() -> None:
    assert sorted(path.stem for path in contents.PAGES.glob("*.md")) == sorted(contents.BY_SLUG)
    assert len(contents.ALL) == len(contents.BY_SLUG)


def test_the_readme_leads_to_every_page() -> None:
    led = {Path(match["to"]).stem for match in LINK.finditer(text_of("README"))}
    assert set(contents.BY_SLUG) - led == set()


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for match in LINK.finditer(without(text_of(name))):
        to, _, anchor = match["to"].partition("#")
        if to.startswith(("https://", "http://")):
            continue
        if to.startswith("/"):
            assert is_route(to), f"no address {to}"
        elif to.endswith(".md") and name not in ("README", "ARCHITECTURE"):
            assert to.removesuffix(".md") in contents.BY_SLUG, f"no page {to}"
            assert not anchor or anchor in ids(to.removesuffix(".md")), f"{to} has no heading #{anchor}"
        elif to:
            assert (ROOT / to).exists(), f"no file {to}"
            slug = Path(to).stem
            assert not anchor or anchor in ids(slug), f"{to} has no heading #{anchor}"
        else:
            assert anchor in ids(name), f"no heading #{anchor}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_and_option_is_one(name: str) -> None:
    for code in inline_code(name):
        if re.search(r"manage\.py|^make |python -m ", code):
            check_commands(code)
        elif match := re.match(r"--[a-z][a-z-]*", code):
            assert is_known_option(match[0]) or f'"{match[0]}"' in BENCH, f"no command of ours has {match[0]}"


def test_every_target_of_make_is_told_of() -> None:
    told = set(re.findall(r"`make ([a-z0-9-]+)`", text_of("commands")))
    assert make_targets() - told == set()


@pytest.mark.parametrize("name", TEXTS)
def test_every_setting_is_one(name: str) -> None:
    for setting in re.findall(r"(?<![\w*])LLMJOBS_[A-Z][A-Z0-9_]*\b(?!\*)", text_of(name)):
        assert setting in SETTINGS | OTHERS or any(each.startswith(setting + "_") for each in SETTINGS), setting


@pytest.mark.parametrize("name", TEXTS)
def test_every_address_is_one(name: str) -> None:
    for code in inline_code(name):
        if match := re.fullmatch(rf"(?:(?:GET|POST|PUT|PATCH|DELETE) )?(?P<path>{ROUTE.pattern})(?:\?.*)?", code):
            assert is_route(match["path"]), f"no address {match['path']}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_address_that_a_block_asks_for_is_one(name: str) -> None:
    """curl ends well whatever it was answered, and what it wrote into a file nobody reads."""
    for block in blocks(text_of(name)):
        for path in re.findall(r"localhost:8000(/[\w$./-]*)", block.code):
            assert is_route(re.sub(r"\$\w+", AN_ID, path)), f"line {block.line}: no address {path}"


@pytest.mark.parametrize("name", TEXTS)
def test_no_page_has_html_of_its_own_or_names_a_machine(name: str) -> None:
    html, text = page_of(name).html, text_of(name)
    assert not re.search(r"\sstyle=|<script|\son[a-z]+=", html)
    assert str(ROOT) not in text and "/root/" not in text
    assert "\x02" not in html and "\x03" not in html, "a placeholder was left"


@pytest.mark.parametrize("name", TEXTS)
def test_no_block_stands_where_it_is_not_tried(name: str) -> None:
    """What Markdown would take for code besides fences of three backticks: such a block would escape its test."""
    assert untried(without(text_of(name)), page_of(name).html) == []


def test_a_block_that_would_escape_is_found() -> None:
    for text in ("~~~sh\nfalse\n~~~\n", "a\n\n    false\n\nb\n", "> ```sh\n> false\n> ```\n", "````sh\nfalse\n````\n"):
        assert untried(without(text), rendered(text, address_of=address_of).html), text


def untried(text: str, html: str) -> list[str]:
    return re.findall(r"^[ >]*(?:`{3,}|~{3,}).*", text, re.MULTILINE) + re.findall(r"<pre><code>.*", html)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "ARCHITECTURE"])
def test_lines_are_short_enough_to_review(name: str) -> None:
    long = [
        number
        for number, line in enumerate(text_of(name).splitlines(), start=1)
        if len(line) > 130 and not line.lstrip().startswith("|") and "](" not in line
    ]
    assert not long, f"lines {long}"


def test_the_layers_are_those_that_the_linter_holds() -> None:
    [told] = [block.code.split("\n") for block in blocks(text_of("ARCHITECTURE")) if block.code.startswith("project\n")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert [line for line in told if line] == ["project", *(re.sub(r"[()]", "", layer) for layer in layers)]


@cache
def ids(name: str) -> frozenset[str]:
    return frozenset(re.findall(r'<h[1-6] id="([^"]+)"', page_of(name).html))


def is_route(path: str) -> bool:
    """Whether the site answers there: over HTTP, or as a WebSocket."""
    path = re.sub(r"[{<][^}>]*[}>]", AN_ID, path.partition("?")[0])
    if path in ("/api/", "/ws/", "/static/"):
        return True  # a prefix
    if path.startswith("/static/"):
        return (ROOT / "llmjobs" / path.lstrip("/")).exists()
    if path.startswith("/ws/"):
        return any(each.pattern.match(path.lstrip("/")) for each in routing.urlpatterns)
    for tried in (path, f"{path}/"):
        try:
            if resolve(tried).func.__name__ != "catch_all_view" or "admin" not in tried:
                return True
        except Resolver404:
            continue
    return False
