"""API keys: shown once, in the answer to the POST that made them; revoked for good."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.access import authenticate_key
from llmjobs.models import ApiKey
from tests.admin.pages import ask, confirm, hidden_fields, page_url, staff, text_of
from tests.factories import make_client, make_key

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/apikey/"
ADD = f"{URL}add/"


def issue(browser: Browser, **fields: Any) -> Any:
    form = {"name": "laptop", "scopes": ["submit", "read"], "expires_at_0": "", "expires_at_1": "", **fields}
    return browser.post(ADD, form)


def test_an_issued_key_works_and_is_shown_once(browser: Browser) -> None:
    client = make_client("acme")
    answer = issue(browser, client=client.pk)
    key = answer.context["key"]
    assert answer.status_code == 200
    assert key in text_of(answer)
    row = authenticate_key(key)
    assert row is not None
    assert (row.client, row.name, row.scopes) == (client, "laptop", ["submit", "read"])
    for url in (URL, page_url(row), page_url(client), "/admin/", f"{URL}{row.pk}/history/"):
        assert key not in text_of(browser.get(url)), url


def test_an_issued_key_is_kept_nowhere(browser: Browser) -> None:
    answer = issue(browser, client=make_client().pk)
    key = answer.context["key"]
    assert "no-store" in answer.headers["Cache-Control"]
    assert all(key not in cookie.value for cookie in answer.cookies.values())
    assert all(key not in str(session.get_decoded()) for session in Session.objects.all())
    assert all(key not in entry.change_message + entry.object_repr for entry in LogEntry.objects.all())
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from llmjobs_apikey as k where k::text like %s", [f"%{key[16:]}%"])
        assert cursor.fetchone() == (0,)


def test_an_issue_is_written_down(browser: Browser, root: Any) -> None:
    issue(browser, client=make_client().pk)
    [entry] = LogEntry.objects.all()
    assert (entry.user, entry.object_id) == (root, str(ApiKey.objects.get().pk))


def test_looking_at_the_form_issues_nothing(browser: Browser) -> None:
    client = make_client("acme")
    assert "acme" in text_of(browser.get(ADD, {"client": client.pk}))
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("fields", [{"scopes": []}, {"scopes": ["everything"]}, {"client": ""}, {"client": 10**6}])
def test_a_key_without_a_client_or_a_known_scope_is_refused(browser: Browser, fields: dict[str, Any]) -> None:
    answer = issue(browser, **{"client": make_client().pk, **fields})
    assert next(iter(fields)) in answer.context["adminform"].form.errors
    assert not ApiKey.objects.exists()


def test_an_operators_key_is_issued_only_by_those_who_may_do_what_it_can() -> None:
    client = make_client()
    issuer = staff("add_apikey", "view_apikey", "change_apikey", "view_client")
    assert "scopes" in issue(issuer, client=client.pk, scopes=["operator"]).context["adminform"].form.errors
    operator = staff("add_apikey", "view_job", "requeue_job", "cancel_job", "view_job_content")
    assert issue(operator, client=client.pk, scopes=["operator"]).context["key"]
    make_key(client)
    plain = ApiKey.objects.get(scopes=["submit", "read", "cancel"])
    issuer.post(page_url(plain), {"name": "", "scopes": ["operator"], "expires_at_0": "", "expires_at_1": ""})
    plain.refresh_from_db()
    assert "operator" not in plain.scopes, "nor by editing a key that one holds"


def test_issuing_needs_its_permission() -> None:
    assert issue(staff("view_apikey", "change_client"), client=make_client().pk).status_code == 403


def test_an_edit_changes_neither_client_nor_key(browser: Browser) -> None:
    key = make_key(make_client("acme"))
    row = ApiKey.objects.get()
    form = {
        "name": "new",
        "client": make_client().pk,
        "scopes": ["read"],
        "expires_at_0": "",
        "expires_at_1": "",
        "hash": "0" * 64,
    }
    assert browser.post(page_url(row), form).status_code == 302
    found = authenticate_key(key)
    assert found is not None
    assert (found.client.name, found.name, found.scopes) == ("acme", "new", ["read"])


def test_a_revoked_key_is_refused_from_then_on(browser: Browser) -> None:
    keys = [make_key(make_client()) for _ in range(2)]
    first, second = ApiKey.objects.order_by("pk")
    question = ask(browser, URL, "revoke", first)
    assert authenticate_key(keys[0]) is not None, "asking revokes nothing"
    confirm(browser, URL, question, reason="leaked")
    assert authenticate_key(keys[0]) is None
    assert authenticate_key(keys[1]) is not None
    assert LogEntry.objects.get().change_message == "Revoked: leaked"
    first.refresh_from_db()
    revoked_at = first.revoked_at
    assert "Revoked 1 of 2" in text_of(confirm(browser, URL, ask(browser, URL, "revoke", first, second)))
    first.refresh_from_db()
    assert first.revoked_at == revoked_at, "the first revocation stands"


def test_revoking_needs_the_permission_to_change() -> None:
    key = make_key()
    ask(staff("view_apikey"), URL, "revoke", ApiKey.objects.get(), confirmed="yes")
    assert authenticate_key(key) is not None


def test_a_list_says_which_keys_are_valid(browser: Browser) -> None:
    now = timezone.now()
    make_key(expires_at=now + timedelta(days=30))
    make_key(expires_at=now + timedelta(days=1))
    make_key(expires_at=now - timedelta(days=1))
    make_key(revoked_at=now)
    page = text_of(browser.get(URL))
    for word in (">valid</span>", ">expires soon</span>", ">expired</span>", ">revoked</span>"):
        assert page.count(word) == 1, word
    found = {word: browser.get(URL, {"state": word}).context["cl"].result_count for word in ("valid", "soon", "nope")}
    assert found == {"valid": 2, "soon": 1, "nope": 0}


# Rotation.


def rotate(browser: Browser, row: ApiKey, **answer: Any) -> Any:
    question = ask(browser, URL, "rotate", row)
    assert "takes the place of" in text_of(question)
    return browser.post(URL, {**hidden_fields(question), "overlap_h": "24", "reason": "yearly", **answer}, follow=True)


def test_a_rotated_key_is_followed_by_one_that_can_do_the_same_and_ends_later(browser: Browser) -> None:
    old = make_key(make_client("acme"), name="laptop", scopes=["read"])
    row = ApiKey.objects.get()
    answer = rotate(browser, row)
    key = answer.context["key"]
    assert "The old key ends in a day." in text_of(answer)
    new = authenticate_key(key)
    assert new is not None
    assert (new.client, new.name, new.scopes, new.expires_at) == (row.client, "laptop", ["read"], None)
    assert authenticate_key(old) is not None, "both work meanwhile"
    row.refresh_from_db()
    assert row.expires_at is not None
    assert timedelta(hours=23) < row.expires_at - timezone.now() <= timedelta(hours=24)
    assert {entry.object_id for entry in LogEntry.objects.all()} == {str(row.pk), str(new.pk)}
    assert f"Rotated, followed by {new.prefix}…: yearly" in [entry.change_message for entry in LogEntry.objects.all()]
    assert all(key not in entry.change_message for entry in LogEntry.objects.all())


def test_an_old_key_may_end_at_once_and_never_later_than_it_would_have(browser: Browser) -> None:
    old, ends_at = make_key(), timezone.now() + timedelta(hours=2)
    rotate(browser, ApiKey.objects.get(), overlap_h="0")
    assert authenticate_key(old) is None
    ApiKey.objects.all().delete()
    make_key(expires_at=ends_at)
    row = ApiKey.objects.get()
    rotate(browser, row, overlap_h="168")
    row.refresh_from_db()
    assert row.expires_at == ends_at
    following = ApiKey.objects.exclude(pk=row.pk).get()
    assert following.expires_at is not None, "who had to renew it has to again"


def test_a_double_click_makes_one_key_and_looking_makes_none(browser: Browser) -> None:
    make_key()
    row = ApiKey.objects.get()
    ask(browser, URL, "rotate", row)
    assert ApiKey.objects.count() == 1
    rotate(browser, row)
    assert "rotated or revoked just now" in text_of(rotate(browser, row))
    assert ApiKey.objects.count() == 2


@pytest.mark.parametrize("answer", [{"overlap_h": "17"}, {"overlap_h": ""}, {"reason": "x" * 1000}])
def test_an_answer_that_makes_no_sense_is_asked_again(browser: Browser, answer: dict[str, str]) -> None:
    make_key()
    assert "takes the place of" in text_of(rotate(browser, ApiKey.objects.get(), **answer))
    assert ApiKey.objects.count() == 1


def test_a_revoked_key_and_two_keys_are_not_rotated(browser: Browser) -> None:
    make_key(revoked_at=timezone.now())
    make_key()
    dead, living = ApiKey.objects.order_by("pk")
    confirmed = {"confirmed": "yes", "overlap_h": "0", "follow": True}
    ask(browser, URL, "rotate", dead, **confirmed)
    ask(browser, URL, "rotate", dead, living, **confirmed)
    assert ApiKey.objects.count() == 2


def test_rotating_needs_the_permissions_to_issue_and_to_change_and_those_that_the_key_gives() -> None:
    make_key(scopes=["operator"])
    row, confirmed = ApiKey.objects.get(), {"confirmed": "yes", "overlap_h": "0"}
    for permissions in (("change_apikey",), ("add_apikey", "view_apikey"), ("add_apikey", "change_apikey")):
        ask(staff(*permissions), URL, "rotate", row, **confirmed)
        assert ApiKey.objects.count() == 1, permissions
    ApiKey.objects.update(scopes=["read"])
    ask(staff("add_apikey", "change_apikey"), URL, "rotate", row, **confirmed)
    assert ApiKey.objects.count() == 2
