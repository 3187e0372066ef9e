"""access.py: what a key stands for, as one statement finds it."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from llmjobs.access import Caller, KeyRefused, authenticate_key, check_key
from llmjobs.models import ApiKey, Client, Tier
from tests.factories import make_client, make_job, make_key, make_tier, make_user

pytestmark = pytest.mark.django_db


def test_a_key_comes_with_its_client_and_tier_as_they_are_stored():
    """Each field of each in its own place: the statement lists the columns by hand."""
    tier = make_tier(
        "gold", weight=3.5, max_priority=1, max_queued=11, max_queued_tokens=12, max_running=13, rpm=14, tpm=15
    )
    client = make_client(
        "acme", tier=tier, weight=2.5, max_queued=21, max_queued_tokens=22, max_running=23, rpm=24, tpm=25,
        is_paused=True, monthly_budget_usd=Decimal("26.50"),
    )  # fmt: skip
    key = make_key(client, name="ci", scopes=["read"], expires_at=timezone.now() + timedelta(days=1))

    found = check_key(key)

    for model, made in ((ApiKey, found), (Client, found.client), (Tier, found.client.tier)):
        stored = model.objects.get(pk=made.pk)
        loaded = {field.attname for field in model._meta.concrete_fields} - made.get_deferred_fields()
        assert {name: getattr(made, name) for name in loaded - {"last_used_at"}} == {
            name: getattr(stored, name) for name in loaded - {"last_used_at"}
        }


def test_a_request_needs_no_further_query_for_the_client_and_its_tier(django_assert_num_queries):
    key = make_key(make_client("acme"))
    check_key(key)

    with django_assert_num_queries(1):
        caller = Caller.from_key(check_key(key))
        assert caller.client is not None
        assert (caller.client.name, caller.client.tier.name, caller.client.rpm) == ("acme", "free", None)


def test_the_secret_of_the_clients_webhooks_is_not_read_at_every_request():
    assert "webhook_secret" in check_key(make_key()).client.get_deferred_fields()


@pytest.mark.parametrize("key", ["", "llmj_", "x" * 10_000, "\0", "é", "\udc80", "' or true --"])
def test_what_is_no_key_finds_nothing(key):
    make_key()

    assert authenticate_key(key) is None
    with pytest.raises(KeyRefused):
        check_key(key)


def test_the_prefix_or_the_hash_of_a_key_is_no_key():
    make_key()
    row = ApiKey.objects.get()

    assert authenticate_key(row.prefix) is None
    assert authenticate_key(row.hash) is None


def test_a_caller_reaches_only_its_clients_jobs():
    acme, other = make_client(), make_client()
    mine, theirs = make_job(client=acme), make_job(client=other)

    by_key = Caller.from_key(check_key(make_key(acme)))
    by_user = Caller.from_user(make_user(acme))

    for caller in (by_key, by_user):
        assert list(caller.jobs()) == [mine]
        assert caller.may_steer(mine)
        assert not caller.may_steer(theirs)


def test_a_user_without_a_client_reaches_nothing():
    make_job()
    caller = Caller.from_user(make_user())

    assert list(caller.jobs()) == []
    assert caller.client is None


def test_an_operators_key_reaches_and_steers_every_job_and_submits_none():
    job = make_job()
    caller = Caller.from_key(check_key(make_key(scopes=["operator"])))

    assert list(caller.jobs()) == [job]
    assert caller.may_steer(job)
    assert caller.can("read")
    assert caller.can("cancel")
    assert not caller.can("submit")


def test_a_key_may_do_what_its_scopes_say_and_no_more():
    caller = Caller.from_key(check_key(make_key(scopes=["submit"])))

    assert [scope for scope in ("submit", "read", "cancel", "operator") if caller.can(scope)] == ["submit"]
    assert not caller.may_steer(make_job(client=caller.client))
