"""The page at `/`: who sees what. What the browser makes of it is in tests/browser."""

import re
from pathlib import Path

import pytest

import llmjobs
from tests.factories import make_client, make_tier, make_user

pytestmark = pytest.mark.django_db

STATIC = Path(llmjobs.__file__).parent / "static" / "llmjobs"
OPERATOR = ("view_job", "view_job_content")


def page(client, user):
    client.force_login(user)
    response = client.get("/")
    assert response.status_code == 200
    return response.content.decode()


def priorities(html):
    select = re.search(r'<select id="priority".*?</select>', html, re.DOTALL)
    assert select, "there is no select of priorities"
    return re.findall(r"<option( selected)?>(\w+)</option>", select[0])


def test_a_stranger_is_sent_to_the_login(client):
    assert client.get("/").headers["Location"] == "/login/?next=/"


def test_a_member_gets_the_composer_and_sees_user_and_client(client):
    html = page(client, make_user(make_client("acme"), username="ann"))
    assert 'id="composer"' in html
    assert ">ann<" in html
    assert ">acme<" in html


def test_the_priorities_offered_are_those_of_the_tier(client):
    member = make_user(make_client(tier=make_tier(max_priority=1)))
    assert priorities(page(client, member)) == [
        ("", "high"), (" selected", "normal"), ("", "low"), ("", "background"),
    ]  # fmt: skip


def test_a_tier_below_normal_begins_with_the_best_that_it_may(client):
    member = make_user(make_client(tier=make_tier(max_priority=8)))
    assert priorities(page(client, member)) == [(" selected", "low"), ("", "background")]


def test_a_user_without_a_client_is_told_what_to_do(client):
    html = page(client, make_user())
    assert 'id="no-client"' in html
    assert "Ask an operator" in html
    assert 'id="composer"' not in html
    assert "app.js" not in html


def test_a_user_of_several_clients_chooses_one_and_each_brings_its_priorities(client):
    beta = make_client("beta", tier=make_tier(max_priority=8), is_paused=True)
    html = page(client, make_user(make_client("acme"), beta))
    option = r'<option value="(\w+)" data-priorities="([\w ]+)" data-default-priority="(\w+)"( data-paused)?'
    options = re.findall(option, html)
    assert [(name, words.split()[-2:], default, bool(paused)) for name, words, default, paused in options] == [
        ("acme", ["low", "background"], "normal", False),
        ("beta", ["low", "background"], "low", True),
    ]


def test_the_clients_of_others_are_not_in_the_page(client):
    make_client("secret")
    assert "secret" not in page(client, make_user(make_client("acme"), make_client("beta")))


@pytest.mark.parametrize(("path", "script"), [("/", "app"), ("/account/", "account")])
def test_what_a_page_imports_is_fetched_at_once(client, path, script):
    """A module that a script needs and its page does not name would cost a round trip."""
    client.force_login(make_user(make_client()))
    html = client.get(path).content.decode()
    named = set(re.findall(r'rel="modulepreload" href="/static/llmjobs/(\w+)\.js"', html))
    needed, todo = set(), [script]
    while todo:
        text = (STATIC / f"{todo.pop()}.js").read_text()
        found = set(re.findall(r'^import [^;]*?from "\./(\w+)\.js";', text, re.MULTILINE)) - needed
        needed |= found
        todo += found
    assert named == needed


@pytest.mark.parametrize("is_allowed", [True, False])
def test_links_are_offered_where_operators_allow_them(client, settings, is_allowed):
    settings.LLMJOBS_SHARE_LINKS = is_allowed
    assert ('id="share-dialog"' in page(client, make_user(make_client()))) == is_allowed


def test_only_who_may_open_the_admin_gets_its_link(client):
    acme = make_client()
    assert 'href="/admin/"' in page(client, make_user(acme, is_staff=True))
    assert 'href="/admin/"' not in page(client, make_user(acme))


def test_an_operator_without_a_client_is_led_to_the_admin(client):
    html = page(client, make_user(is_staff=True, permissions=OPERATOR))
    assert 'id="no-client"' in html
    assert 'href="/admin/llmjobs/client/"' in html
    assert 'href="/admin/llmjobs/job/"' in html


def test_an_operator_lists_own_jobs_here_and_all_in_the_admin(client):
    html = page(client, make_user(make_client("acme"), is_staff=True, permissions=OPERATOR))
    assert 'data-client="acme"' in html
    assert "data-client=" not in page(client, make_user(make_client("beta")))


def test_names_are_shown_as_text(client):
    user = make_user(make_client(), username="<script>alert(1)</script>")
    html = page(client, user)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_the_page_is_kept_by_no_cache_and_brings_the_csrf_cookie(client):
    client.force_login(make_user(make_client()))
    response = client.get("/")
    assert "no-store" in response.headers["Cache-Control"]
    assert "csrftoken" in response.cookies


def test_the_page_changes_nothing(client):
    client.force_login(make_user(make_client()))
    assert client.post("/").status_code == 405


def test_there_is_an_icon_where_browsers_look_for_one(client):
    icon = client.get("/favicon.ico", follow=True)
    icon.close()
    assert icon.status_code == 200
    assert icon.headers["Content-Type"].startswith("image/svg+xml")
