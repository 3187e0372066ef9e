"""An attempt: what it tells its viewers, what can be stored, and what its outcome becomes."""

import asyncio
import time
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmjobs import execution
from llmjobs.execution import Attempt, clean, settlement
from llmjobs.leases import Claimed
from llmjobs.outcomes import Error, Kind, Outcome, Told, Usage
from llmjobs.providers.openai import OpenAIProviders
from llmjobs.states import SEQ_EPOCH, Endpoint, State

# Text as Python has it, halves of surrogate pairs included.
ANY_TEXT = st.text(st.sampled_from("\ud83d\ude42\0aü") | st.characters(exclude_categories=()), max_size=8)


def claimed(**fields):
    values = {
        "id": 7, "public_id": uuid4(), "attempt": 1, "epoch": 2, "failures": 0, "endpoint": Endpoint.CHAT, "size": 0,
        "has_handler": False, "keeps_partial": False, "has_background": False, "resume_id": None,
        "client_id": 1, "client": "acme", "tier": "pro", "max_attempts": 3, "timeout_s": 5.0, "charged": 40.0,
        "est_input_tokens": 8, "est_output_tokens": 32, "retry_left_s": 3600.0, "waited_s": 0.1,
        "body": '{"messages": []}', "max_cost_usd": None, "spent_usd": Decimal(0), "pool_id": 1, "model": "m",
        "upstream_name": "m", "input_usd_per_mtok": None, "output_usd_per_mtok": None, "provider": "p",
        "base_url": "http://127.0.0.1:9/v1", "api_key_env": "", "claimed_at": 1_800_000_000.0, "send_in_s": 0.0,
        "late_max_s": 0.5, "slack_s": 0.0, "rpm": 500.0, "tpm": 30_000.0,
    }  # fmt: skip
    return Claimed(**values | fields)


def attempt_of(**fields):
    return Attempt(claimed(**fields), has_news=lambda attempt: None)


def run(attempt):
    async def within():
        providers = OpenAIProviders(calls_max=1)
        try:
            return await attempt.run(providers)
        finally:
            await providers.close()

    return asyncio.run(within())


class Silent:
    """A provider that says nothing until its task is cancelled, and counts its calls."""

    def __init__(self):
        self.calls = 0
        self.begun = asyncio.Event()

    async def run(self, call):
        self.calls += 1
        self.begun.set()
        await asyncio.Event().wait()

    async def close(self):
        pass


async def test_who_is_stopped_before_its_call_makes_none():
    attempt, provider = attempt_of(), Silent()
    attempt.stop(Kind.CANCELLED)
    outcome = await attempt.run(provider)
    assert (outcome.kind, provider.calls) == (Kind.CANCELLED, 0)


class Answering:
    """A provider that tells `told` of its limits, and ends every call with `outcome`."""

    def __init__(self, outcome, told=None):
        self.outcome, self.told = outcome, told
        self.called_at = None

    async def run(self, call):
        self.called_at = call.sent_at = time.monotonic()
        if self.told is not None:
            call.on_told(self.told)
        return self.outcome

    async def close(self):
        pass


async def test_a_call_is_not_sent_before_its_slot():
    send_at, provider = time.monotonic() + 0.05, Answering(Outcome(Kind.COMPLETED))
    attempt = Attempt(claimed(), has_news=lambda attempt: None, send_at=send_at)
    outcome = await attempt.run(provider)
    assert outcome.kind is Kind.COMPLETED
    assert send_at <= provider.called_at < send_at + 0.4


async def test_a_call_whose_slot_passed_too_long_ago_is_handed_back_unsent():
    provider = Silent()
    attempt = Attempt(claimed(late_max_s=0.5), has_news=lambda attempt: None, send_at=time.monotonic() - 0.6)
    outcome = await attempt.run(provider)
    assert (outcome.kind, outcome.sent_ago_s, provider.calls) == (Kind.RELEASED, None, 0)


@pytest.mark.parametrize(
    ("outcome", "told", "heard"),
    [
        (Outcome(Kind.COMPLETED), None, []),
        (Outcome(Kind.COMPLETED), Told(500, 400, 30_000, 20_000), []),
        (Outcome(Kind.COMPLETED), Told(500, 3), [{"requests_limit": 500, "requests_left": 3}]),
        (Outcome(Kind.COMPLETED), Told(400, 390), [{"requests_limit": 400}]),
        (Outcome(Kind.COMPLETED, told=Told(lies=1)), Told(lies=1), [{"lies": 1}]),
        (
            Outcome(Kind.REJECTED, Error("rate_limit_exceeded", "slow", 429), 7.0),
            Told(500, 0, wait_s=7),
            [
                {"requests_limit": 500, "requests_left": 0},
                {"refusals": 1, "wait_s": 7, "words": "rate_limit_exceeded: slow"},
            ],
        ),
    ],
)
async def test_what_a_provider_says_is_heard_once_each(outcome, told, heard):
    signals = []
    attempt = Attempt(claimed(), has_news=lambda attempt: None, hears=lambda attempt, signal: signals.append(signal))
    await attempt.run(Answering(outcome, told))
    said = [signal.json(signal.at) for signal in signals]
    assert said == [{**signal, "ago_s": 0} for signal in heard]


async def test_what_is_left_is_told_as_of_when_the_call_was_sent():
    signals, provider = [], Answering(Outcome(Kind.COMPLETED), Told(500, 3))
    attempt = Attempt(claimed(), has_news=lambda attempt: None, hears=lambda attempt, signal: signals.append(signal))
    await attempt.run(provider)
    assert [signal.at for signal in signals] == [provider.called_at]


async def test_a_stop_ends_the_call_and_not_the_task_that_settles_it():
    attempt, provider, settled = attempt_of(), Silent(), []

    async def work():
        settled.append(await attempt.run(provider))
        await asyncio.sleep(0)  # a task that is still being cancelled would end here
        settled.append(asyncio.current_task().cancelling())

    task = asyncio.create_task(work())
    await provider.begun.wait()
    attempt.stop(Kind.RELEASED)
    await task
    assert (settled[0].kind, settled[1]) == (Kind.RELEASED, 0)


def test_an_attempt_first_says_that_it_runs():
    [event] = attempt_of().take_events()
    assert (event.type, event.data, event.seq) == ("status", {"status": "running", "attempt": 1}, 2 * SEQ_EPOCH)


def test_a_later_attempt_says_reset_before_any_text():
    attempt = attempt_of(attempt=2, epoch=5)
    attempt._on_text("again")
    events = attempt.take_events()
    assert [event.type for event in events] == ["status", "reset", "delta"]
    assert [event.seq for event in events] == [5 * SEQ_EPOCH + n for n in range(3)]


def test_what_was_told_is_not_told_again():
    attempt = attempt_of()
    attempt._on_text("a")
    attempt.take_events()
    assert attempt.take_events() == []
    attempt._on_text("b")
    [event] = attempt.take_events()
    assert event.data == {"text": "b"}


@given(st.lists(st.tuples(ANY_TEXT, st.booleans())))
@example([("\ud83d", True), ("\ude42", True)])
@example([("a\ud83d", True)])
def test_the_deltas_together_are_the_text_wherever_the_ticks_fall(pieces):
    """A pair of surrogates may come in two pieces, and a tick between them."""
    attempt = attempt_of()
    deltas = []
    for text, is_tick in pieces:
        attempt._on_text(text)
        if is_tick:
            deltas += attempt.take_events()
    attempt.is_ended = True
    deltas += attempt.take_events()
    told = "".join(event.data["text"] for event in deltas if event.type == "delta")
    assert told == clean("".join(text for text, _ in pieces))


@given(ANY_TEXT)
def test_what_was_cleaned_can_be_stored(text):
    cleaned = clean(text)
    cleaned.encode()
    assert "\0" not in cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain ü 🙂", "plain ü 🙂"),
        ("a\0b", "a\ufffdb"),
        ("\ud83d\ude42", "🙂"),
        ("\ud83d", "\ufffd"),
        ("\ude42 a", "\ufffd a"),
        ("\ufeff a", "\ufeff a"),
    ],
)
def test_only_what_can_not_be_stored_is_replaced(text, cleaned):
    assert clean(text) == cleaned


def test_whatever_happens_inside_an_attempt_it_ends_as_an_outcome():
    outcome = run(attempt_of(endpoint=Endpoint.CHAT, body="[not even json"))
    assert outcome.kind in (Kind.UNKNOWN, Kind.UNRECOGNISED)
    outcome = run(attempt_of(body=None))
    assert (outcome.kind, outcome.error.code) == (Kind.UNRECOGNISED, "internal_error")


def test_an_attempt_that_was_stopped_before_its_call_makes_none():
    attempt = attempt_of()
    attempt.stop(Kind.CANCELLED)
    outcome = run(attempt)
    assert (outcome.kind, outcome.sent_ago_s) == (Kind.CANCELLED, None)
    assert outcome.usage == Usage(0, 0), "what was not sent is not charged"


def test_a_key_whose_variable_is_not_set_is_told_and_not_sent(monkeypatch):
    monkeypatch.delenv("ABSENT_API_KEY", raising=False)
    outcome = run(attempt_of(api_key_env="ABSENT_API_KEY"))
    assert (outcome.kind, outcome.error.code) == (Kind.PROVIDER_REFUSED, "api_key_missing")
    assert "ABSENT_API_KEY" in outcome.error.message
    assert outcome.sent_ago_s is None


def test_a_variable_outside_the_allow_list_is_never_sent_by_whatever_road_its_name_came(monkeypatch):
    """Forms refuse it; a row written past them must not send out SECRET_KEY either."""
    monkeypatch.setenv("SECRET_KEY", "s3cret")
    outcome = run(attempt_of(api_key_env="SECRET_KEY"))
    assert (outcome.kind, outcome.error.code, outcome.sent_ago_s) == (Kind.PROVIDER_REFUSED, "api_key_missing", None)
    assert "s3cret" not in outcome.error.message


def settled(outcome, **fields):
    return settlement(attempt_of(**fields), outcome)


def test_an_answer_is_priced_and_weighed():
    row = settled(
        Outcome(Kind.COMPLETED, output="{}", output_text="x", usage=Usage(1_000, 500, {"prompt_tokens": 1_000})),
        input_usd_per_mtok=Decimal("0.4"), output_usd_per_mtok=Decimal("1.6"),
    )  # fmt: skip
    assert (row.state, row.is_failure, row.cost, row.cost_usd) == (State.COMPLETED, False, 3_000, "0.00120000")
    assert (row.usage, row.input_tokens, row.output_tokens) == ({"prompt_tokens": 1_000}, 1_000, 500)
    assert (row.error_code, row.error_class) == (None, None)


def test_without_knowledge_of_what_was_used_the_charge_stands():
    row = settled(Outcome(Kind.UNKNOWN, Error("timeout", "late")))
    assert (row.cost, row.input_tokens, row.usage, row.cost_usd) == (None, None, None, None)


@pytest.mark.parametrize("kind", [Kind.CANCELLED, Kind.RELEASED, Kind.UNKNOWN])
def test_of_a_call_that_was_sent_and_broken_off_without_a_word_the_charge_stands(kind):
    """Nobody knows what it used; only what was not sent is known to have cost nothing."""
    attempt = attempt_of()
    call = attempt._new_call()
    assert settlement(attempt, call.ended(kind)).cost == 0
    call.sent_at = time.monotonic()
    assert settlement(attempt, call.ended(kind)).cost is None


def test_an_error_is_told_with_its_class():
    row = settled(Outcome(Kind.REJECTED, Error("server_is_overloaded", "slow", 503), retry_after_s=9))
    assert (row.state, row.delay_s, row.error_class, row.provider_status) == (State.SCHEDULED, 9, "transient", 503)


def test_a_rate_limit_is_told_as_an_error_of_the_attempt_and_leaves_the_job_in_its_queue():
    row = settled(Outcome(Kind.REJECTED, Error("rate_limit_exceeded", "slow", 429), retry_after_s=9))
    assert (row.state, row.is_failure, row.delay_s, row.error_class) == (State.QUEUED, False, 0, "transient")


def test_everything_in_a_settlement_can_be_stored():
    bad = "a\0\ud800"
    row = settled(Outcome(Kind.UNKNOWN, Error(bad, bad), output=bad, output_text=bad, usage=Usage(1, 2)))
    for text in (row.error_code, row.error_message, row.output, row.output_text, row.decision):
        assert "\0" not in text
        text.encode()


def test_the_log_of_an_attempt_has_neither_prompt_nor_answer(monkeypatch):
    lines = []
    monkeypatch.setattr(execution.logger, "info", lambda text, *values: lines.append(text % values))
    settled(
        Outcome(Kind.COMPLETED, output="SECRET-OUT", output_text="SECRET-TEXT", usage=Usage(1, 2)),
        body='{"messages": ["SECRET-PROMPT"]}',
    )
    [line] = lines
    assert line.startswith("event=attempt ") and "outcome=completed" in line
    assert "SECRET" not in line


def test_a_providers_code_cannot_forge_a_line_of_the_log(monkeypatch):
    lines = []
    monkeypatch.setattr(execution.logger, "info", lambda text, *values: lines.append(text % values))
    settled(Outcome(Kind.UNKNOWN, Error("x\nevent=attempt job=1 \ud800", "late")))
    [line] = lines
    assert "\n" not in line and line.isascii()
    assert line.count("event=") == 1
