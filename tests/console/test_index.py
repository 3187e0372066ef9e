"""The page at `/`: who sees what. What the browser makes of it is in tests/browser."""

import re

import pytest

from tests.factories import make_client, make_tier, make_user

pytestmark = pytest.mark.django_db

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


def test_a_user_of_several_clients_can_watch_and_is_told_how_to_submit(client):
    html = page(client, make_user(make_client("acme"), make_client("beta")))
    assert 'id="composer"' not in html
    assert "with an API key" in html
    assert 'id="jobs"' in html


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


@pytest.mark.parametrize("name", ["app", "client", "display", "dom", "job_list", "job_view"])
def test_what_the_page_loads_is_served(client, name):
    response = client.get(f"/static/llmjobs/{name}.js")
    response.close()
    assert response.status_code == 200
