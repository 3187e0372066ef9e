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
from tests.admin.pages import ask, confirm, page_url, staff, text_of
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
    make_key(expires_at=now + timedelta(days=1))
    make_key(expires_at=now - timedelta(days=1))
    make_key(revoked_at=now)
    page = text_of(browser.get(URL))
    for word in (">valid<", ">expired<", ">revoked<"):
        assert page.count(word) == 1, word
