"""What our answers say of a client's own limits a minute, and what becomes of who will not wait for them."""

import re
import time
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from llmjobs import limit_headers, limits, queue
from llmjobs.errors import RateLimitExceeded
from llmjobs.models import BucketKind, BucketTurn, Client, Job
from tests.api.conftest import Api, assert_error
from tests.factories import make_client, make_job, make_key, make_user

pytestmark = pytest.mark.django_db

TOKENS = 40  # of a job that a factory makes: 8 in, 32 out


def limited(**fields) -> tuple[Client, Api]:
    client = make_client("limited", **fields)
    return client, Api(make_key(client))


def fill(client: Client, *, requests_s: float = 0, tokens_s: float = 0, turn: int = 1) -> None:
    """As a claim leaves its bucket: drained in so many seconds."""
    now = time.time()
    BucketTurn.objects.create(
        kind=BucketKind.CLIENT, of_id=client.pk, turn=turn, requests_at=now + requests_s, tokens_at=now + tokens_s
    )


def told(response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items() if name.lower().startswith("x-ratelimit")}


def test_a_client_that_did_nothing_has_all_of_its_limits():
    _, api = limited(rpm=30, tpm=9_000)
    assert told(api.get("jobs")) == {
        "x-ratelimit-limit-requests": "30",
        "x-ratelimit-remaining-requests": "30",
        "x-ratelimit-reset-requests": "0s",
        "x-ratelimit-limit-tokens": "9000",
        "x-ratelimit-remaining-tokens": "9000",
        "x-ratelimit-reset-tokens": "0s",
    }


def test_a_client_with_one_limit_is_told_of_that_one():
    _, api = limited(rpm=30)
    assert set(told(api.get("jobs"))) == {f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")}


def test_what_the_newest_turn_of_its_bucket_holds_is_used():
    """Half a minute to drain is half of the limit."""
    client, api = limited(rpm=600, tpm=6_000)
    fill(client, requests_s=59, tokens_s=59, turn=1)
    fill(client, requests_s=30, tokens_s=15, turn=2)
    answer = told(api.get("stats"))
    assert 300 <= int(answer["x-ratelimit-remaining-requests"]) <= 350, "five seconds later at most"
    assert 4_500 <= int(answer["x-ratelimit-remaining-tokens"]) <= 5_000
    assert re.fullmatch(r"(2[5-9](\.\d+)?|30)s", answer["x-ratelimit-reset-requests"])


def test_what_is_in_the_bucket_stays_where_the_limit_was_another_and_is_no_more_than_the_new_one():
    """Half of 600 a minute: of 1,200 it is a quarter, of 60 it is all."""
    client, _ = limited(rpm=1_200, tpm=12_000)
    BucketTurn.objects.create(
        kind=BucketKind.CLIENT, of_id=client.pk, turn=1, requests_at=time.time() + 30, requests_rate=10,
        tokens_at=time.time() + 30, tokens_rate=100,
    )  # fmt: skip
    taken = limits.taken(client)
    assert taken.requests == pytest.approx(275, abs=26) and taken.tokens == pytest.approx(2_750, abs=260)
    client.rpm = client.tpm = 60  # what is left would fill it more than once
    assert limits.taken(client) == limits.Taken(60, 60)


def test_tokens_that_calls_used_beyond_what_they_reserved_are_used_too():
    client, _ = limited(tpm=6_000)
    turn = {"kind": BucketKind.CLIENT, "of_id": client.pk, "tokens_at": time.time() - 5, "tokens_rate": 100}
    BucketTurn.objects.create(turn=1, tokens_due=500, **turn)
    assert limits.taken(client) == limits.Taken(None, 500)
    BucketTurn.objects.create(turn=2, tokens_due=-500, **turn)
    assert limits.taken(client) == limits.Taken(None, 0), "what is refunded makes it no larger than it is"


def test_what_is_queued_counts_as_used_and_what_waits_for_its_time_or_runs_does_not():
    client, api = limited(rpm=6, tpm=6_000)
    for state in ("queued", "queued", "scheduled", "running", "completed"):
        make_job(state, client=client)
    make_job("queued")
    answer = told(api.get("models"))
    assert (answer["x-ratelimit-remaining-requests"], answer["x-ratelimit-reset-requests"]) == ("4", "20s")
    assert answer["x-ratelimit-remaining-tokens"] == str(6_000 - 2 * TOKENS)


def test_the_answer_to_a_submit_counts_what_it_submitted(model):
    _, api = limited(rpm=6)
    assert told(api.submit())["x-ratelimit-remaining-requests"] == "5"


def test_over_the_limit_a_job_is_taken_and_nothing_is_left_but_never_less(model):
    client, api = limited(rpm=1, tpm=10)
    fill(client, requests_s=90, tokens_s=600)
    response = api.submit()
    assert response.status_code == 202
    answer = told(response)
    assert answer["x-ratelimit-remaining-requests"] == answer["x-ratelimit-remaining-tokens"] == "0"
    assert answer["x-ratelimit-reset-requests"] == "2m0s", "a full bucket, and one that waits"


def test_errors_tell_too_and_a_session_like_a_key(model):
    client, api = limited(rpm=6)
    assert told(api.submit(model="none"))["x-ratelimit-remaining-requests"] == "6"
    browser = Api(None)
    browser.http.force_login(make_user(client))
    assert told(browser.get("jobs"))["x-ratelimit-remaining-requests"] == "6"


def test_a_user_of_several_clients_and_a_stranger_are_told_of_none():
    client, _ = limited(rpm=6)
    browser = Api(None)
    browser.http.force_login(make_user(client, make_client("second", rpm=6)))
    assert told(browser.get("jobs")) == {} == told(Api("llmj_wrong").get("jobs"))


def test_it_costs_one_statement_and_none_without_limits():
    client, _ = limited(rpm=6, tpm=10)
    free = make_client("free")
    with CaptureQueriesContext(connection) as queries:
        limit_headers.of(client)
    assert len(queries) == 1
    with CaptureQueriesContext(connection) as queries:
        assert limit_headers.of(free) == {}
    assert len(queries) == 0


def test_an_answer_does_not_fail_for_its_headers(monkeypatch):
    _, api = limited(rpm=6)

    def away(client: Client) -> limits.Taken:
        raise DatabaseError("away")

    monkeypatch.setattr(limits, "taken", away)
    response = api.get("jobs")
    assert response.status_code == 200 and told(response) == {"x-ratelimit-limit-requests": "6"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (-1, "0s"), (0.0001, "1ms"), (0.017, "17ms"), (1, "1s"), (59.951, "59.951s"), (59.9999, "1m0s"),
        (360, "6m0s"), (90.5, "1m30.5s"), (3_600.5, "1h0m0.5s"), (86_400, "24h0m0s"),
    ],
)  # fmt: skip
def test_times_are_written_as_openai_writes_them(seconds, text):
    assert limit_headers.duration(seconds) == text


# when_limited.


def test_who_will_not_wait_is_refused_where_it_would_have_to(model):
    _, api = limited(rpm=2)
    for _ in range(2):
        assert api.submit(when_limited="reject").status_code == 202
    response = api.submit(when_limited="reject")
    error = assert_error(response, 429, "rate_limit_exceeded")
    assert error["type"] == "requests" and "2 requests a minute of limited" in error["message"]
    assert response["Retry-After"] == "30", "a request more at two a minute"
    assert response["x-ratelimit-remaining-requests"] == "0"
    assert api.submit(when_limited="wait").status_code == 202
    assert api.submit().status_code == 202


def test_tokens_are_told_as_tokens(model):
    client, api = limited(tpm=1_000)
    fill(client, tokens_s=90)
    response = api.submit(when_limited="reject")
    assert assert_error(response, 429, "rate_limit_exceeded")["type"] == "tokens"
    assert 1 <= int(response["Retry-After"]) <= 60


def test_what_the_bucket_gives_back_is_room_again(model):
    client, api = limited(rpm=60)
    fill(client, requests_s=90, turn=1)
    assert_error(api.submit(when_limited="reject"), 429, "rate_limit_exceeded")
    fill(client, requests_s=58, turn=2)
    assert api.submit(when_limited="reject").status_code == 202


def test_without_limits_of_its_own_nobody_has_to_wait_for_them(api, model):
    for _ in range(3):
        assert api.submit(when_limited="reject").status_code == 202


def test_a_tier_s_limits_are_its_client_s(model):
    client, api = limited()
    client.tier.rpm = 1
    client.tier.save()
    assert api.submit(when_limited="reject").status_code == 202
    assert_error(api.submit(when_limited="reject"), 429, "rate_limit_exceeded")


def test_a_job_larger_than_the_whole_limit_goes_where_nothing_is_used(model):
    """As for a claim: it goes once all is free. Retry-After would be a lie for ever."""
    _, api = limited(tpm=10)
    assert api.submit(when_limited="reject").status_code == 202
    assert_error(api.submit(when_limited="reject"), 429, "rate_limit_exceeded")


def test_a_delayed_job_is_not_asked_about_now(model):
    _, api = limited(rpm=1)
    for _ in range(2):
        assert api.submit(when_limited="reject", delay_s=60).status_code == 202


@pytest.mark.django_db(transaction=True)
def test_room_that_is_taken_at_the_commit_is_answered_the_same(model, monkeypatch):
    """`refuse_if_full` saw room; the commit counts under the client's lock."""
    monkeypatch.setattr(limits, "refuse_if_full", lambda *args: None)
    client, api = limited(rpm=1, tpm=100_000)
    fill(client, requests_s=30)
    for headers in ({}, {"Idempotency-Key": "key"}):
        response = api.submit(headers=headers, when_limited="reject")
        assert assert_error(response, 429, "rate_limit_exceeded")["type"] == "requests"
        assert 20 <= int(response["Retry-After"]) <= 30
    Client.objects.filter(pk=client.pk).update(rpm=100)
    BucketTurn.objects.filter(kind=2, of_id=client.pk).delete()
    fill(client, tokens_s=90)
    response = api.submit(when_limited="reject")
    assert assert_error(response, 429, "rate_limit_exceeded")["type"] == "tokens"
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_another_client_s_wish_is_its_own(model):
    """In one transaction: who did not ask for it is not refused."""
    picky, patient = make_client("picky", rpm=1), make_client("patient", rpm=1)
    with transaction.atomic():
        queue.submit(client=picky, model="gpt", input="hi", when_limited="reject")
        for _ in range(2):
            queue.submit(client=patient, model="gpt", input="hi")
    assert Job.objects.count() == 3
    with pytest.raises(RateLimitExceeded):
        queue.submit(client=picky, model="gpt", input="hi", when_limited="reject")


@pytest.mark.django_db(transaction=True)
def test_who_may_wait_is_not_refused_for_who_would_not_in_one_transaction(model):
    client, _ = limited(rpm=1)
    with transaction.atomic():
        queue.submit(client=client, model="gpt", input="hi", when_limited="reject")
        queue.submit(client=client, model="gpt", input="hi")
        with pytest.raises(RateLimitExceeded):
            queue.submit(client=client, model="gpt", input="hi", when_limited="reject")
    assert Job.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_who_would_not_wait_is_refused_for_all_that_came_before_it_in_its_transaction(model, monkeypatch):
    monkeypatch.setattr(limits, "refuse_if_full", lambda *args: None)
    client, _ = limited(rpm=1)
    with pytest.raises(DatabaseError), transaction.atomic():
        queue.submit(client=client, model="gpt", input="hi")
        queue.submit(client=client, model="gpt", input="hi", when_limited="reject")
    assert not Job.objects.exists()


# A budget, over HTTP.


@pytest.mark.django_db(transaction=True)
def test_over_budget_is_answered_so_that_an_sdk_does_not_try_again(api, acme, model):
    model.input_usd_per_mtok = 1
    model.save()
    Client.objects.filter(pk=acme.pk).update(monthly_budget_usd=0)
    for headers in ({}, {"Idempotency-Key": "key"}):
        response = api.submit(headers=headers)
        assert assert_error(response, 429, "insufficient_quota")["type"] == "insufficient_quota"
        assert response["x-should-retry"] == "false" and "Retry-After" not in response
    Client.objects.filter(pk=acme.pk).update(monthly_budget_usd=1)
    assert api.submit().status_code == 202


def test_a_retry_waits_for_the_limit_like_any_other_job(model):
    """Only a submit can be refused: a job that comes back to the queue takes room, and keeps its place."""
    client, api = limited(rpm=1)
    job = make_job("scheduled", client=client)
    Job.objects.filter(id=job.id).update(state="queued", available_at=job.created_at - timedelta(seconds=1))
    assert_error(api.submit(when_limited="reject"), 429, "rate_limit_exceeded")
