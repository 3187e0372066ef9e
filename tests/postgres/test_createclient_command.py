"""manage.py createclient."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from llmjobs.access import authenticate_key
from llmjobs.models import ApiKey, Client
from tests.factories import make_client

pytestmark = pytest.mark.django_db


def createclient(*arguments: str) -> str:
    out = StringIO()
    call_command("createclient", *arguments, stdout=out)
    return out.getvalue()


def created(*arguments: str) -> dict:
    return json.loads(createclient(*arguments, "--json"))


def test_a_new_client_gets_a_key_that_works():
    made = created("acme")

    assert set(made) == {"client", "tier", "api_key", "webhook_secret"}
    assert (made["client"], made["tier"]) == ("acme", "free")
    key = authenticate_key(made["api_key"])
    assert key is not None
    assert key.client == Client.objects.get(name="acme")
    assert set(key.scopes) == {"submit", "read", "cancel"}
    assert made["webhook_secret"] == key.client.webhook_secret


def test_a_client_that_exists_is_found_and_gets_one_more_key():
    first = created("acme", "--tier", "pro")
    second = created("acme")

    assert first["api_key"] != second["api_key"]
    assert second["webhook_secret"] is None, "it was shown once"
    assert second["tier"] == "pro"
    assert Client.objects.count() == 1
    assert authenticate_key(first["api_key"]) is not None
    assert authenticate_key(second["api_key"]) is not None


def test_the_key_is_shown_once_and_stored_nowhere():
    made = created("acme")

    stored = ApiKey.objects.values().get()
    assert made["api_key"] not in json.dumps(stored, default=str)
    assert stored["prefix"] == made["api_key"][:12]


def test_people_read_lines():
    text = createclient("acme", "--tier", "pro")

    assert "acme" in text
    assert "pro" in text
    assert "llmj_" in text
    assert "can't be shown again" in text


def test_an_operators_key_can_be_made():
    key = authenticate_key(created("ops", "--scopes", "operator,read")["api_key"])

    assert key is not None
    assert set(key.scopes) == {"operator", "read"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["acme", "--tier", "gold"], "free"),
        (["two words"], "two words"),
        ([""], "can't be a client's name"),
        (["x" * 200], "can't be a client's name"),
        (["acme", "--scopes", "root"], "operator"),
        (["acme", "--scopes", ""], "operator"),
    ],
)
def test_what_makes_no_sense_is_told_and_makes_nothing(arguments, told):
    with pytest.raises(CommandError, match=told):
        createclient(*arguments)

    assert not Client.objects.exists()
    assert not ApiKey.objects.exists()


def test_a_clients_tier_is_not_changed_on_the_way():
    make_client("acme", tier="pro")

    with pytest.raises(CommandError, match="'pro'"):
        createclient("acme", "--tier", "free")
    assert not ApiKey.objects.exists()


def test_a_webhook_secret_is_rotated_without_another_key():
    first = created("acme", "--tier", "pro")
    rotated = created("acme", "--rotate-webhook-secret")

    client = Client.objects.get()
    assert rotated == {"client": "acme", "tier": "pro", "api_key": None, "webhook_secret": client.webhook_secret}
    assert client.old_webhook_secret == first["webhook_secret"] != client.webhook_secret
    assert ApiKey.objects.count() == 1
    assert "key" not in createclient("acme", "--rotate-webhook-secret")


def test_of_a_client_that_is_not_there_no_secret_is_rotated():
    with pytest.raises(CommandError, match="that exists"):
        createclient("acme", "--rotate-webhook-secret")
    assert not Client.objects.exists()


def test_a_tier_that_there_is_none_of_is_told_by_its_option():
    with pytest.raises(CommandError, match=r"^--tier: expected one of .*pro.*; got 'nope'$"):
        createclient("acme", "--tier", "nope")
    assert not Client.objects.exists()
