"""The page at `/account/`: whose usage and keys it is about. What the browser makes of it is in tests/browser."""

import pytest

from llmjobs.console.views import USERS_MAX
from tests.factories import make_client, make_user

pytestmark = pytest.mark.django_db


def page(client, user, path="/account/"):
    client.force_login(user)
    response = client.get(path)
    return response.status_code, response.content.decode()


def test_a_stranger_is_sent_to_the_login(client):
    assert client.get("/account/").headers["Location"] == "/login/?next=/account/"


def test_a_user_sees_own_client_with_its_users_as_text(client):
    acme, other = make_client("acme"), make_client("other")
    ann = make_user(acme, username="ann")
    make_user(acme, username="<b>bob</b>")
    gone = make_user(acme, username="gone")
    type(gone).objects.filter(pk=gone.pk).update(is_active=False)
    make_user(other, username="stranger")
    _, html = page(client, ann)
    assert "&lt;b&gt;bob&lt;/b&gt;" in html
    assert "<b>bob" not in html
    assert "<li>ann</li>" in html
    for hidden in ("gone", "stranger", ">other<"):
        assert hidden not in html


def test_a_user_of_several_clients_chooses_and_others_do_not_exist(client):
    user = make_user(make_client("acme"), make_client("beta"))
    make_client("secret")
    assert "<option selected>acme</option>" in page(client, user)[1]
    assert "<option selected>beta</option>" in page(client, user, "/account/?client=beta")[1]
    assert page(client, user, "/account/?client=secret")[0] == 404
    assert page(client, user, "/account/?client=")[0] == 404


def test_a_user_without_a_client_is_told_what_to_do(client):
    status, html = page(client, make_user())
    assert status == 200
    assert 'id="no-client"' in html
    assert "account.js" not in html


def test_a_client_of_many_users_names_only_some(client):
    acme = make_client("acme")
    users = [make_user(acme) for _ in range(USERS_MAX + 1)]
    html = page(client, users[0])[1]
    assert html.count("<li>") == USERS_MAX
    assert "and more" in html


def test_keys_are_made_in_the_page_only_where_operators_allow_it(client, settings):
    user = make_user(make_client("acme"))
    assert 'id="key-form"' in page(client, user)[1]
    settings.LLMJOBS_USERS_MAKE_KEYS = False
    assert 'id="key-form"' not in page(client, user)[1]


def test_a_page_costs_the_same_queries_whatever_there_is(client, django_assert_max_num_queries):
    acme = make_client("acme")
    users = [make_user(acme) for _ in range(20)]
    client.force_login(users[0])
    with django_assert_max_num_queries(7):
        client.get("/account/")


def test_the_page_changes_nothing_and_is_kept_by_no_cache(client):
    client.force_login(make_user(make_client()))
    assert client.post("/account/").status_code == 405
    assert "no-store" in client.get("/account/").headers["Cache-Control"]
