"""/api/keys: the keys of a user's own client."""

import json

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client as HttpClient

from llmjobs import issuing
from llmjobs.models import ApiKey
from tests.api.conftest import Api, assert_error
from tests.api.test_schema import schema, validator  # noqa: F401 - a fixture
from tests.factories import make_client, make_key, make_user

pytestmark = pytest.mark.django_db

ORDER = {"name": "nightly", "scopes": ["submit", "read"]}


class Session:
    def __init__(self, *clients, chosen=None) -> None:
        self.http, self.user = HttpClient(), make_user(*clients)
        self.http.force_login(self.user)
        self.headers = {"LLMJobs-Client": chosen.name} if chosen else {}

    def get(self):
        return self.http.get("/api/keys", headers=self.headers)

    def make(self, **fields):
        body = {name: value for name, value in {**ORDER, **fields}.items() if value is not ...}
        return self.http.post("/api/keys", json.dumps(body), content_type="application/json", headers=self.headers)

    def revoke(self, key_id):
        return self.http.post(f"/api/keys/{key_id}/revoke", headers=self.headers)


def test_a_user_makes_a_key_that_works_until_it_is_revoked(schema, acme, model):  # noqa: F811
    session = Session(acme)

    answer = session.make(expires_in_s=3600)

    assert (answer.status_code, answer["Cache-Control"]) == (201, "no-store")
    made = answer.json()
    validator(schema, "NewApiKey").validate(made)
    validator(schema, "ApiKeyList").validate(session.get().json())
    assert (made["name"], made["scopes"], made["created_by"]) == ("nightly", ["submit", "read"], session.user.username)
    row = ApiKey.objects.get()
    assert (row.client, row.created_by) == (acme, session.user)
    assert (row.expires_at - row.created_at).total_seconds() == 3600
    key = Api(made["api_key"])
    assert key.submit().status_code == 202
    assert_error(key.delete("jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90"), 403, "insufficient_scope")

    revoked = session.revoke(made["id"]).json()

    validator(schema, "ApiKey").validate(revoked)
    assert session.revoke(made["id"]).json() == revoked, "again"
    assert_error(key.submit(), 401, "invalid_api_key")


def test_the_key_itself_is_told_once(acme):
    session = Session(acme)
    made = session.make().json()
    listed = session.get().content.decode()
    assert made["prefix"] in listed
    assert made["api_key"] not in listed
    assert made["api_key"] not in str(list(ApiKey.objects.values()) + list(LogEntry.objects.values()))


def test_operators_see_who_made_and_revoked_it(acme):
    session = Session(acme)
    session.revoke(session.make().json()["id"])
    words = list(LogEntry.objects.order_by("id").values_list("user", "object_id", "change_message"))
    row = ApiKey.objects.get()
    assert words == [
        (session.user.pk, str(row.pk), "Made by a user of acme: submit, read."),
        (session.user.pk, str(row.pk), "Revoked by a user of acme."),
    ]


def test_nobody_makes_an_operator_of_himself(acme):
    session = Session(acme)
    for scopes in (["operator"], ["read", "operator"], ["admin"], [], "read", None, [["read"]], {"read": 1}):
        assert session.make(scopes=scopes).status_code == 400, scopes
    operators = ApiKey.objects.issue(acme, scopes=["operator"])[0]
    assert_error(session.revoke(f"key_{operators.hash[:24]}"), 409, "not_allowed")
    operators.refresh_from_db()
    assert operators.revoked_at is None


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"name": ...}, "name", "missing_required_parameter"),
        ({"name": " "}, "name", "invalid_value"),
        ({"name": "x" * 129}, "name", "invalid_value"),
        ({"name": "a\nb"}, "name", "invalid_value"),
        ({"name": 7}, "name", "invalid_value"),
        ({"scopes": ...}, "scopes", "missing_required_parameter"),
        ({"expires_in_s": 0}, "expires_in_s", "invalid_value"),
        ({"expires_in_s": 1e12}, "expires_in_s", "invalid_value"),
        ({"expires_in_s": "60"}, "expires_in_s", "invalid_value"),
        ({"expires_in_s": True}, "expires_in_s", "invalid_value"),
        ({"client": "other"}, "client", "unknown_parameter"),
    ],
)
def test_what_is_wrong_is_named_and_no_key_is_made(acme, fields, param, code):
    assert_error(Session(acme).make(**fields), 400, code, param)
    assert not ApiKey.objects.exists()


def test_a_key_makes_no_keys_nor_sees_any(api, operator):
    for caller in (api, operator):
        assert_error(caller.get("keys"), 403, "session_required")
        assert_error(caller.post("keys", ORDER), 403, "session_required")
    assert ApiKey.objects.count() == 2


def test_anothers_keys_are_none(acme):
    other = make_client("other")
    make_key(other)
    theirs = f"key_{ApiKey.objects.get().hash[:24]}"
    session = Session(acme)
    assert session.get().json()["data"] == []
    for key_id in (theirs, theirs[4:], "key_", "key_" + "g" * 24, "1", str(ApiKey.objects.get().pk)):
        assert_error(session.revoke(key_id), 404, "key_not_found")
    assert_error(Session(acme, chosen=other).get(), 404, "client_not_found", "LLMJobs-Client")
    assert_error(Session().make(), 403, "no_client")
    assert ApiKey.objects.get().revoked_at is None


def test_of_several_clients_the_chosen_one_gets_the_key(acme):
    beta = make_client("beta")
    assert_error(Session(acme, beta).make(), 400, "client_required", "LLMJobs-Client")
    assert Session(acme, beta, chosen=beta).make().status_code == 201
    assert ApiKey.objects.get().client == beta


def test_a_session_needs_its_csrf_token(acme):
    http = HttpClient(enforce_csrf_checks=True)
    http.force_login(make_user(acme))
    assert_error(http.post("/api/keys", json.dumps(ORDER), content_type="application/json"), 403, "csrf_failed")


def test_a_client_has_so_many_keys_and_revoking_in_a_hurry_gains_none(acme, settings):
    settings.LLMJOBS_KEYS_PER_CLIENT_MAX = 2
    session = Session(acme)
    first = session.make().json()
    assert session.make().status_code == 201
    assert_error(session.make(), 409, "not_allowed")
    session.revoke(first["id"])
    assert_error(session.make(), 409, "not_allowed")
    ApiKey.objects.filter(revoked_at__isnull=False).update(created_at="2026-01-01T00:00Z")
    assert session.make().status_code == 201
    assert [key["revoked_at"] is None for key in session.get().json()["data"]] == [True, True, False]


def test_operators_may_keep_that_to_themselves_and_bound_a_keys_life(acme, settings):
    settings.LLMJOBS_USERS_KEY_MAX_S = 600.0
    session = Session(acme)
    for asked_s in (None, 60, 900):
        session.make(expires_in_s=asked_s)
    lives_s = [(key.expires_at - key.created_at).total_seconds() for key in ApiKey.objects.order_by("id")]
    assert lives_s == [600, 60, 600]
    settings.LLMJOBS_USERS_MAKE_KEYS = False
    key_id = session.get().json()["data"][0]["id"]
    assert_error(session.make(), 403, "keys_not_allowed")
    assert_error(session.revoke(key_id), 403, "keys_not_allowed")
    assert ApiKey.objects.filter(revoked_at=None).count() == 3


def test_a_site_without_the_admin_makes_keys_too(acme, monkeypatch):
    monkeypatch.setattr(issuing.apps, "is_installed", lambda name: name != "django.contrib.admin")
    row, _ = issuing.issue(acme, make_user(acme).pk, name="x", scopes=["read", "operator"], expires_in_s=None)
    assert (row.scopes, LogEntry.objects.count()) == (["read"], 0)
