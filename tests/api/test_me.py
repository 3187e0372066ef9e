"""GET /api/me: who asks."""

import json

import pytest
from django.test import Client as HttpClient

from tests.api.conftest import Api
from tests.api.test_schema import schema, validator  # noqa: F401 - a fixture
from tests.factories import make_client, make_key, make_tier, make_user

pytestmark = pytest.mark.django_db


def me_of(user) -> dict:
    http = HttpClient()
    http.force_login(user)
    return http.get("/api/me").json()


def test_a_user_is_told_its_clients_and_what_their_tiers_allow(schema):  # noqa: F811
    free = make_client("acme", tier=make_tier("basic", max_priority=8), is_paused=True)
    user = make_user(free, make_client("beta", tier=make_tier("vip", max_priority=0)), username="ann")

    told = me_of(user)

    validator(schema, "Caller").validate(told)
    assert (told["user"], told["is_operator"], told["scopes"]) == ("ann", False, ["submit", "read", "cancel"])
    assert told["clients"] == [
        {
            "name": "acme", "tier": "basic", "priorities": ["low", "background"], "default_priority": "low",
            "is_paused": True,
        },
        {
            "name": "beta", "tier": "vip", "priorities": ["critical", "high", "normal", "low", "background"],
            "default_priority": "normal", "is_paused": False,
        },
    ]  # fmt: skip


def test_a_key_is_told_its_own_client_and_scopes(schema, acme):  # noqa: F811
    told = Api(make_key(acme, scopes=["submit"])).get("me").json()

    validator(schema, "Caller").validate(told)
    assert (told["user"], told["scopes"], [client["name"] for client in told["clients"]]) == (
        None,
        ["submit"],
        ["acme"],
    )
    assert (told["can_make_keys"], told["can_share"]) == (False, False)


def test_what_operators_switched_off_is_not_offered(acme, settings):
    user = make_user(acme)
    told = me_of(user)
    assert (told["can_make_keys"], told["can_share"]) == (True, True)
    settings.LLMJOBS_USERS_MAKE_KEYS = settings.LLMJOBS_SHARE_LINKS = False
    told = me_of(user)
    assert (told["can_make_keys"], told["can_share"]) == (False, False)


def test_an_operator_without_a_client_is_one(db):
    told = me_of(make_user(is_staff=True, permissions=("view_job", "view_job_content")))
    assert (told["is_operator"], told["clients"], told["can_make_keys"]) == (True, [], False)
    assert json.dumps(told)
