"""Logging in and out."""

import pytest
from django.test import Client as Browser

from tests.factories import make_client, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def user():
    return make_user(make_client("acme"), username="ann")


def log_in(browser, **changes):
    return browser.post("/login/", {"username": "ann", "password": "password", **changes})


def test_the_right_password_leads_to_the_page_that_was_asked_for(client, user):
    assert log_in(client).headers["Location"] == "/"
    client.logout()
    assert log_in(client, next="/admin/").headers["Location"] == "/admin/"


def test_no_login_leads_to_another_site(client, user):
    assert log_in(client, next="https://evil.example/").headers["Location"] == "/"


def test_a_wrong_password_is_told_in_the_page(client, user):
    response = log_in(client, password="wrong")
    assert response.status_code == 200
    assert "Please enter a correct username and password" in response.content.decode()
    assert "_auth_user_id" not in client.session


def test_who_is_logged_in_is_not_asked_again(client, user):
    client.force_login(user)
    assert client.get("/login/").headers["Location"] == "/"


def test_logging_out_takes_a_post(client, user):
    client.force_login(user)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/").headers["Location"] == "/"
    assert client.get("/").headers["Location"] == "/login/?next=/"


def test_a_login_without_the_csrf_token_is_refused_with_a_page_that_helps(user):
    browser = Browser(enforce_csrf_checks=True)
    response = log_in(browser)
    assert response.status_code == 403
    assert "Please try again" in response.content.decode()


def test_every_input_has_a_label(client):
    html = client.get("/login/").content.decode()
    assert '<label for="id_username">' in html
    assert '<label for="id_password">' in html
