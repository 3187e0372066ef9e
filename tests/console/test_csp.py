"""The policy stands on every answer of the site, and no page needs an exception from it."""

import re
from html.parser import HTMLParser

import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse

from llmjobs.console.csp import HEADER, POLICY, ContentSecurityPolicyMiddleware
from tests.factories import make_client, make_user


class Inline(HTMLParser):
    """Collects what the policy would refuse in a page: inline scripts and styles, handlers, addresses elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in values):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name == "style" or name.startswith("on"):
                self.found.append(f"<{tag} {name}>")
            if name in ("src", "href", "action") and re.match(r"(?:https?:)?//|javascript:|data:", value or ""):
                self.found.append(f"<{tag} {name}={value}>")


def inline(html: bytes) -> list[str]:
    parser = Inline()
    parser.feed(html.decode())
    return parser.found


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/login/", "/nothing/", "/favicon.ico", "/admin/login/", "/static/llmjobs/app.css"])
def test_every_answer_carries_the_policy(client, path):
    response = client.get(path)
    response.close()
    assert response[HEADER] == POLICY


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/account/", "/login/", "/nothing/"])
@pytest.mark.parametrize("who", ["member", "operator", "of_no_client", "stranger"])
def test_no_page_has_anything_inline_or_from_outside(client, path, who):
    if who != "stranger":
        user = make_user(
            *([make_client()] if who == "member" else []),
            is_staff=who == "operator",
            permissions=("view_job", "view_job_content"),
        )
        client.force_login(user)
    assert inline(client.get(path, follow=True).content) == []


def test_the_check_for_inline_code_finds_it():
    html = b'<p style="x" onclick="y">a</p><script>1</script><style>p{}</style><img src="//cdn.example/x">'
    assert inline(html) == ["<p style>", "<p onclick>", "<script>", "<style>", "<img src=//cdn.example/x>"]


def test_a_policy_that_a_view_sets_stands():
    own = "default-src 'self'; img-src 'self' data:"
    middleware = ContentSecurityPolicyMiddleware(lambda request: HttpResponse(headers={HEADER: own}))
    response = middleware(HttpRequest())
    assert isinstance(response, HttpResponse)
    assert response[HEADER] == own


async def test_under_asgi_it_stays_asynchronous():
    async def view(request):
        return HttpResponse()

    middleware = ContentSecurityPolicyMiddleware(view)
    assert iscoroutinefunction(middleware)
    assert (await middleware(HttpRequest()))[HEADER] == POLICY
