"""How an attempt ended, and what follows: the tables of `classify` and `decide`."""

from dataclasses import replace
from decimal import Decimal

import pytest

from llmjobs.outcomes import ERROR_CLASS, Bounds, Error, Kind, Outcome, backoff_s, classify, decide, kept
from llmjobs.states import TRANSITIONS, State

BOUNDS = Bounds(attempt=1, failures=0, max_attempts=3, retry_left_s=3600)
POLICY = {"base_s": 1, "cap_s": 60, "draw": 0.5}


def followed_by(kind, bounds=BOUNDS, *, status=None, code="code", retry_after_s=None, cost_usd=None, **policy):
    error = Error(code, "words", status) if kind in ERROR_CLASS else None
    return decide(Outcome(kind, error, retry_after_s), bounds, cost_usd=cost_usd, **POLICY | policy)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, None, Kind.DETERMINISTIC),
        (400, "context_length_exceeded", Kind.DETERMINISTIC),
        (400, "content_policy_violation", Kind.DETERMINISTIC),
        (404, "model_not_found", Kind.DETERMINISTIC),
        (413, None, Kind.DETERMINISTIC),
        (422, None, Kind.DETERMINISTIC),
        (None, "invalid_prompt", Kind.DETERMINISTIC),
        (None, "context_length_exceeded", Kind.DETERMINISTIC),
        (401, "invalid_api_key", Kind.PROVIDER_REFUSED),
        (402, None, Kind.PROVIDER_REFUSED),
        (403, None, Kind.PROVIDER_REFUSED),
        (429, "insufficient_quota", Kind.PROVIDER_REFUSED),
        (None, "insufficient_quota", Kind.PROVIDER_REFUSED),
        (408, None, Kind.REJECTED),
        (429, "rate_limit_exceeded", Kind.REJECTED),
        (429, "slow_down", Kind.REJECTED),
        (429, "rate_limit_error", Kind.REJECTED),
        (503, "slow_down", Kind.REJECTED),
        (529, "overloaded_error", Kind.REJECTED),
        (None, "rate_limit_exceeded", Kind.REJECTED),
        (429, None, Kind.REJECTED),
        (503, "server_is_overloaded", Kind.REJECTED),
        (500, "server_error", Kind.UNKNOWN),
        (502, None, Kind.UNKNOWN),
        (504, None, Kind.UNKNOWN),
        (529, None, Kind.UNKNOWN),
        (None, "server_error", Kind.UNKNOWN),
        (None, None, Kind.UNKNOWN),
        (None, "what is this", Kind.UNKNOWN),
        (302, None, Kind.UNRECOGNISED),
        (418, None, Kind.UNRECOGNISED),
        (451, "unheard_of", Kind.UNRECOGNISED),
    ],
)
def test_what_an_error_of_a_provider_means(status, code, kind):
    assert classify(status, code) is kind


@pytest.mark.parametrize(
    ("kind", "status", "state", "is_failure"),
    [
        (Kind.COMPLETED, None, State.COMPLETED, False),
        (Kind.CANCELLED, None, State.CANCELLED, False),
        (Kind.RELEASED, None, State.QUEUED, False),
        (Kind.NOT_SENT, None, State.SCHEDULED, False),
        (Kind.REJECTED, 429, State.QUEUED, False),
        (Kind.REJECTED, 503, State.SCHEDULED, True),
        (Kind.REJECTED, 408, State.SCHEDULED, True),
        (Kind.PROVIDER_REFUSED, 401, State.QUEUED, False),
        (Kind.DETERMINISTIC, 400, State.FAILED, True),
        (Kind.UNKNOWN, 500, State.SCHEDULED, True),
        (Kind.UNRECOGNISED, 418, State.DEAD, True),
    ],
)
def test_what_follows_an_outcome(kind, status, state, is_failure):
    decision = followed_by(kind, status=status)
    assert (decision.state, decision.is_failure) == (state, is_failure)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("failures", [0, 1, 2, 50])
@pytest.mark.parametrize("retry_left_s", [-5, 0, 1e9])
def test_every_decision_is_one_that_the_state_machine_knows(kind, failures, retry_left_s):
    bounds = Bounds(attempt=failures + 1, failures=failures, max_attempts=3, retry_left_s=retry_left_s)
    decision = followed_by(kind, bounds)
    allowed = TRANSITIONS["settle"][State.RUNNING] | TRANSITIONS["release"][State.RUNNING]
    assert decision.state in allowed
    assert decision.delay_s >= 0 and decision.words


@pytest.mark.parametrize("kind", list(Kind))
def test_every_error_has_a_class_that_the_contract_names(kind):
    if kind in ERROR_CLASS:
        assert ERROR_CLASS[kind] in ("transient", "deterministic", "unknown")
    else:
        assert kind in (Kind.COMPLETED, Kind.INTERRUPTED, Kind.CANCELLED, Kind.RELEASED), (
            f"{kind} is an error without a class"
        )


def test_the_last_failure_is_the_end():
    assert followed_by(Kind.UNKNOWN, Bounds(3, 1, 3, 3600)).state is State.SCHEDULED
    assert followed_by(Kind.UNKNOWN, Bounds(3, 2, 3, 3600)).state is State.DEAD


@pytest.mark.parametrize(
    ("kind", "status"), [(Kind.NOT_SENT, None), (Kind.REJECTED, 429), (Kind.PROVIDER_REFUSED, 401)]
)
def test_what_is_no_failure_never_uses_up_the_attempts(kind, status):
    assert followed_by(kind, Bounds(900, 2, 3, 3600), status=status).state is State.SCHEDULED


@pytest.mark.parametrize(("kind", "status"), [(Kind.REJECTED, 429), (Kind.PROVIDER_REFUSED, 403)])
def test_a_job_that_is_refused_again_and_again_lets_others_pass(kind, status):
    """It may be the only one: of a few tries it keeps its place, and then waits longer each time."""
    states = [followed_by(kind, Bounds(attempt, 0, 3, 3600), status=status).state for attempt in range(1, 6)]
    assert states == [State.QUEUED] * 3 + [State.SCHEDULED] * 2
    failed_too = followed_by(kind, Bounds(7, 4, 9, 3600), status=status)
    assert failed_too.state is State.QUEUED, "what failed otherwise does not count"


@pytest.mark.parametrize("kind", [Kind.NOT_SENT, Kind.REJECTED, Kind.PROVIDER_REFUSED, Kind.UNKNOWN])
def test_every_job_ends_when_its_time_for_retries_is_over(kind):
    assert followed_by(kind, Bounds(2, 0, 100, 0), status=429).state is State.DEAD


def test_a_retry_that_would_come_after_that_time_is_not_waited_for():
    assert followed_by(Kind.REJECTED, Bounds(1, 0, 3, 100), status=503, retry_after_s=99).state is State.SCHEDULED
    assert followed_by(Kind.REJECTED, Bounds(1, 0, 3, 100), status=503, retry_after_s=101).state is State.DEAD


def test_what_waits_in_its_queue_does_not_wait_by_itself():
    """A limit that ends tomorrow may be lifted today, or a fallback takes the job."""
    assert followed_by(Kind.REJECTED, Bounds(1, 0, 3, 100), status=429, retry_after_s=86_400).state is State.QUEUED


def test_retry_after_is_obeyed_where_it_is_longer_than_the_backoff():
    assert followed_by(Kind.REJECTED, status=503, retry_after_s=20).delay_s == 20
    assert followed_by(Kind.REJECTED, status=503, retry_after_s=0.1).delay_s == 1  # draw 0.5 of 2 s


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Kind.REJECTED, 429, "http_429"),
        (Kind.REJECTED, 429, "server_is_overloaded"),
        (Kind.REJECTED, 429, "slow_down"),
        (Kind.REJECTED, 503, "slow_down"),
        (Kind.REJECTED, None, "rate_limit_exceeded"),
        (Kind.PROVIDER_REFUSED, 401, "invalid_api_key"),
        (Kind.PROVIDER_REFUSED, 429, "insufficient_quota"),
        (Kind.PROVIDER_REFUSED, None, "api_key_missing"),
    ],
)
def test_what_the_whole_pool_waits_for_delays_no_job_of_its_own(kind, status, code):
    decision = followed_by(kind, status=status, code=code, retry_after_s=20)
    assert (decision.state, decision.is_failure, decision.delay_s) == (State.QUEUED, False, 0)
    assert f"{code}: words" in decision.words and "no failure counted" in decision.words


@pytest.mark.parametrize(
    ("status", "code"), [(503, "server_is_overloaded"), (503, "http_503"), (529, "overloaded_error")]
)
def test_an_overloaded_provider_is_a_failure_and_a_backoff(status, code):
    decision = followed_by(Kind.REJECTED, status=status, code=code)
    assert (decision.state, decision.is_failure, decision.delay_s) == (State.SCHEDULED, True, 1)


def test_lost_attempts_may_cost_no_more_than_the_job_allows():
    bounds = Bounds(2, 1, 10, 3600, spent_usd=Decimal("0.40"), max_cost_usd=Decimal("0.50"))
    assert followed_by(Kind.UNKNOWN, bounds, cost_usd=Decimal("0.09")).state is State.SCHEDULED
    assert followed_by(Kind.UNKNOWN, bounds, cost_usd=Decimal("0.10")).state is State.DEAD


def test_money_does_not_stop_what_costs_nothing():
    bounds = Bounds(2, 1, 10, 3600, spent_usd=Decimal(9), max_cost_usd=Decimal(1))
    assert followed_by(Kind.REJECTED, bounds, status=429).state is State.QUEUED
    assert followed_by(Kind.NOT_SENT, bounds).state is State.SCHEDULED


def test_the_words_say_what_was_decided_and_why():
    assert followed_by(Kind.UNKNOWN, status=500).words == "Tried again in 1.0 s (failure 1 of 3). code: words"
    assert "no failure counted" in followed_by(Kind.NOT_SENT).words


def test_backoff_doubles_up_to_its_cap():
    most = [backoff_s(n, base_s=1, cap_s=60, draw=1) for n in (1, 2, 3, 6, 1000)]
    assert most == [2, 4, 8, 60, 60]


def test_backoff_begins_at_nothing():
    assert backoff_s(5, base_s=1, cap_s=60, draw=0) == 0


def test_backoff_is_drawn_by_chance():
    drawn = {backoff_s(5, base_s=1, cap_s=60) for _ in range(50)}
    assert len(drawn) > 40 and all(0 <= wait_s < 32 for wait_s in drawn)


def released(bounds, *, sent_ago_s=1.0, cost_usd=None):
    return decide(Outcome(Kind.RELEASED, sent_ago_s=sent_ago_s), bounds, cost_usd=cost_usd, **POLICY)


def test_releases_of_sent_calls_are_bounded_by_time_and_money():
    """However often workers are deployed."""
    assert released(BOUNDS).state is State.QUEUED
    late = Bounds(attempt=9, failures=0, max_attempts=3, retry_left_s=-1)
    assert released(late).state is State.DEAD
    assert released(late, sent_ago_s=None).state is State.QUEUED, "it cost nothing, and may never have had its turn"
    dear = Bounds(1, 0, 3, 3600, spent_usd=Decimal("0.9"), max_cost_usd=Decimal(1))
    assert released(dear, cost_usd=Decimal("0.05")).state is State.QUEUED
    decision = released(dear, cost_usd=Decimal("0.1"))
    assert decision.state is State.DEAD and not decision.is_failure and "$1" in decision.words


def test_what_had_come_is_kept_of_breaks_alone():
    broken = Outcome(Kind.UNKNOWN, output_text="Half", partial="{}")
    assert kept(broken).kind is Kind.INTERRUPTED and kept(broken).output == "{}"
    assert decide(kept(broken), BOUNDS, **POLICY).state is State.COMPLETED
    for kind in (Kind.CANCELLED, Kind.DETERMINISTIC, Kind.COMPLETED, Kind.NOT_SENT):
        outcome = replace(broken, kind=kind)
        assert kept(outcome) is outcome
    assert kept(replace(broken, output_text="")).kind is Kind.UNKNOWN, "there is nothing to keep"
