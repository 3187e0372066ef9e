"""The worker over real HTTP: what is asked reaches the provider, and what it says reaches the job."""

import json
import os
from decimal import Decimal

import pytest
from django.db import connection, transaction

from llmjobs.models import Attempt, Job, Model, Worker
from llmjobs.states import State
from tests.factories import make_client, make_model, make_provider
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import log_of, reaches, run_until_empty, working
from tests.worker.scripted import json_answer, said, scripted, stream_answer

pytestmark = pytest.mark.django_db(transaction=True)

ASKED = {
    "chat": {"messages": [{"role": "user", "content": "Hello. [[tokens=12]]"}]},
    "chat, unstreamed": {"messages": [{"role": "user", "content": "Hello. [[tokens=12]]"}], "stream": False},
    "responses": {"input": "Hello. [[tokens=12]]"},
    "responses, unstreamed": {"input": "Hello. [[tokens=12]]", "stream": False},
}


def result_of(job):
    return Job.objects.select_related("result").get(pk=job.pk).result


@pytest.mark.parametrize("asked", list(ASKED))
def test_each_endpoint_streamed_or_not_is_answered_alike(client, pool, simulator, asked):
    [job] = submit(client, pool, body=ASKED[asked])
    report = run_until_empty()
    assert report.ended == {"completed": 1}
    result, [call] = result_of(job), simulator.ledger()
    assert call["stream"] == ("unstreamed" not in asked)
    assert result.output_text and call["output_tokens"] == 12
    assert (call["outcome"], call["client_request_id"]) == ("completed", f"{job.public_id}.1")
    attempt = Attempt.objects.get(job=job)
    assert (attempt.input_tokens, attempt.output_tokens) == (call["input_tokens"], call["output_tokens"])
    assert attempt.provider_request_id == call["request_id"]
    assert result.cost_usd == Decimal(call["input_tokens"] + 4 * 12) / 1_000_000
    assert attempt.cost == call["input_tokens"] + 4 * 12, "output weighted as it is priced"
    assert log_of(job) == [
        ("status", "queued"), ("status", "running"), ("delta", result.output_text), ("done", "completed"),
    ]  # fmt: skip


KINDS = [{}, {"tools": True}, {"refusal": True}]


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [("chat", more) for more in [*KINDS, {"n": 3}, {"logprobs": True}]] + [("responses", more) for more in KINDS],
)
def test_a_stream_is_assembled_into_what_a_plain_answer_is(client, pool, endpoint, more):
    words = "Hello. [[tokens=9]]" + " [[tool_calls=2]]" * ("tools" in more) + " [[refusal]]" * ("refusal" in more)
    body = {"messages": [{"role": "user", "content": words}]} if endpoint == "chat" else {"input": words}
    body |= {name: value for name, value in more.items() if name in ("n", "logprobs")}
    if "tools" in more:
        function = {"name": "look", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
        body["tools"] = [
            {"type": "function", "function": function} if endpoint == "chat" else {"type": "function", **function}
        ]
    streamed, plain = (submit(client, pool, body=body | extra)[0] for extra in ({}, {"stream": False}))
    run_until_empty()
    one, two = (_without_ids(json.loads(result_of(job).output)) for job in (streamed, plain))
    assert one == two
    assert result_of(streamed).output_text == result_of(plain).output_text


def _without_ids(value):
    """Less what is another at each call, and the empty `annotations` that no stream carries."""
    if isinstance(value, dict):
        another = {"id", "created", "created_at", "completed_at", "call_id"}
        kept = {key: part for key, part in value.items() if key not in another and (key, part) != ("annotations", [])}
        return {key: _without_ids(part) for key, part in kept.items()}
    return [_without_ids(part) for part in value] if isinstance(value, list) else value


def test_embeddings_are_answered(client, pool):
    [job] = submit(client, pool, body={"input": ["one", "two"]}, endpoint="/v1/embeddings")
    run_until_empty()
    output = json.loads(result_of(job).output)
    assert len(output["data"]) == 2 and result_of(job).output_text == ""


def test_the_model_is_called_by_its_upstream_name(client, pool):
    with scripted(stream_answer(*said("x"))) as provider:
        Model.objects.update(provider=make_provider(base_url=provider.url), upstream_name="gpt-real")
        submit(client, pool)
        run_until_empty()
    assert provider.requests[0].json()["model"] == "gpt-real"


def test_the_key_of_the_provider_s_variable_is_sent(client, pool, monkeypatch):
    monkeypatch.setenv("ACCOUNT_API_KEY", " sk-secret\n")
    with scripted(stream_answer(*said("x"))) as provider:
        Model.objects.update(provider=make_provider(base_url=provider.url, api_key_env="ACCOUNT_API_KEY"))
        submit(client, pool)
        run_until_empty()
    assert provider.requests[0].headers["authorization"] == "Bearer sk-secret"


def test_a_worker_without_the_key_says_which_variable_it_lacks_and_calls_nobody(client, pool, simulator):
    assert "ABSENT_API_KEY" not in os.environ
    Model.objects.get().provider.__class__.objects.update(api_key_env="ABSENT_API_KEY")
    [job] = submit(client, pool)
    with working():

        def was_refused() -> None:
            assert Attempt.objects.filter(outcome="provider_refused", error_code="api_key_missing").count() >= 2

        eventually(was_refused)
    job.refresh_from_db()
    assert job.failures == 0 and simulator.ledger() == []
    assert "ABSENT_API_KEY" in Attempt.objects.filter(error_code="api_key_missing")[0].error_message


def test_two_accounts_keep_their_keys_apart(client, pool, monkeypatch):
    keys = {"ONE_API_KEY": "sk-one", "TWO_API_KEY": "sk-two"}
    with scripted(stream_answer(*said("x"))) as provider:
        for name, key in keys.items():
            monkeypatch.setenv(name, key)
            model = make_model(name.lower(), provider=make_provider(base_url=provider.url, api_key_env=name))
            submit(client, model, 5)
        run_until_empty()
    sent = {(request.json()["model"], request.headers["authorization"]) for request in provider.requests}
    assert sent == {("one_api_key", "Bearer sk-one"), ("two_api_key", "Bearer sk-two")}


def test_text_that_postgres_does_not_take_is_kept_with_replacement_characters(client, pool):
    events = [
        b'{"choices": [{"index": 0, "delta": {"content": "a\\u0000b\\ud83d"}}]}',
        b'{"choices": [{"index": 0, "delta": {"content": "\\ude42 \\ud83d"}}]}',
        b"[DONE]",
    ]
    with scripted(stream_answer(*events)) as provider:
        Model.objects.update(provider=make_provider(base_url=provider.url))
        [job] = submit(client, pool)
        run_until_empty()
    result = result_of(job)
    assert result.output_text == "a\ufffdb🙂 \ufffd"
    assert ("delta", result.output_text) in log_of(job)
    json.loads(result.output)


def test_the_deltas_together_are_the_text_of_the_answer(client, pool):
    jobs = [
        submit(client, pool, messages=_say(f"Say {n}. [[tokens={30 + n}]] [[tokens_per_s=400]]"))[0] for n in range(8)
    ]
    run_until_empty()
    for job in jobs:
        assert ("delta", result_of(job).output_text) in log_of(job)


def test_after_a_retry_the_text_starts_over(client, pool):
    [job] = submit(client, pool, messages=_say("Hello. [[tokens=20]] [[fault=reset_midstream:1:9]]"))
    run_until_empty()
    told = log_of(job)
    kinds = [kind for kind, _ in told]
    assert kinds == ["status", "status", "delta", "status", "status", "status", "reset", "delta", "done"]
    assert [status for kind, status in told if kind == "status"] == [
        "queued",
        "running",
        "scheduled",
        "queued",
        "running",
    ]
    assert told[-2] == ("delta", result_of(job).output_text)
    seqs = list(job.events.order_by("id").values_list("seq", flat=True))
    assert seqs == sorted(seqs), "what a viewer reads grows at its end only"


def test_a_job_that_asks_for_no_stream_is_told_as_one_delta(client, pool):
    [job] = submit(client, pool, body={"messages": _say("Hello. [[tokens=5]]"), "stream": False})
    run_until_empty()
    assert job.events.filter(type="delta").count() == 1


def test_jobs_of_many_pools_are_served_side_by_side(client, pool, simulator):
    pools = [make_model(f"other-{n}", provider=pool.provider) for n in range(5)]
    for other in pools:
        submit(client, other, 4)
    assert run_until_empty(concurrency=3).ended == {"completed": 20}


def test_a_worker_of_some_pools_and_tiers_leaves_the_others(pool):
    other = make_model("other", provider=pool.provider)
    free, pro = make_client("f", tier="free"), make_client("p", tier="pro")
    for client in (free, pro):
        for each in (pool, other):
            submit(client, each)
    report = run_until_empty(pools={"model": pool.pk}, tiers={"pro": pro.tier_id})
    assert report.ended == {"completed": 1}
    done = Job.objects.get(state=State.COMPLETED)
    assert (done.client_id, done.pool_id) == (pro.pk, pool.pk)
    row = Worker.objects.get()
    assert (row.pools, row.tiers, row.stopped_at is not None) == (["model"], ["pro"], True)


def test_slots_kept_for_short_jobs_are_not_taken_by_long_ones(client, pool):
    """With 4 slots and half of them kept, two long jobs run at once, and a short one passes those that wait."""
    slow = {"messages": _say("Slowly. [[tokens=400]] [[tokens_per_s=40]]"), "n": 2}
    submit(client, pool, 4, body=slow)
    with working(concurrency=4, short_share=0.5):
        eventually(lambda: _counts(State.RUNNING, 2))
        [short] = submit(client, pool, messages=_say("Hello. [[tokens=3]]"))
        reaches(short, State.COMPLETED)
        _counts(State.RUNNING, 2)


@pytest.mark.parametrize("limit", ["model", "client", "long"])
def test_a_freed_place_is_taken_at_once(client, pool, settings, limit):
    """Not at the next poll: whatever kept the next job waiting, the end of this one lets it go."""
    settings.LLMJOBS_POLL_S = 60
    if limit == "model":
        Model.objects.update(max_running=1)
    if limit == "client":
        type(client).objects.update(max_running=1)
    body = {"messages": _say("Hello. [[tokens=3]]")} | ({"n": 2} if limit == "long" else {})
    jobs = submit(client, pool, 6, body=body)
    with working(concurrency=2, short_share=0.5 if limit == "long" else 0.0):
        reaches(jobs[-1], State.COMPLETED)


def test_a_submit_wakes_a_worker_before_its_next_look(client, pool, settings):
    settings.LLMJOBS_POLL_S = 60
    with working() as worker:
        eventually(lambda: _listens(1))
        [job] = submit(client, pool, messages=_say("Hello. [[tokens=3]]"))
        reaches(job, State.COMPLETED)
        assert worker.report.claimed == 1


def test_a_worker_that_hears_nothing_finds_its_jobs_by_looking(client, pool):
    with working():
        eventually(lambda: _listens(1))
        with transaction.atomic():
            [job] = submit(client, pool, messages=_say("Hello. [[tokens=3]]"))
            connection.run_on_commit.clear()  # its NOTIFY is lost
        reaches(job, State.COMPLETED)


def _listens(count):
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_stat_activity where query like 'listen llmjobs_work%'")
        assert cursor.fetchone()[0] >= count, "no worker listens"


def _say(words):
    return [{"role": "user", "content": words}]


def _counts(state, count):
    assert Job.objects.filter(state=state).count() == count


def test_a_provider_that_answers_without_streaming_is_understood(client, pool):
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}}], "usage": None}
    with scripted(json_answer(body)) as provider:
        Model.objects.update(provider=make_provider(base_url=provider.url))
        [job] = submit(client, pool)
        run_until_empty()
    assert result_of(job).output_text == "Hi."


def test_a_worker_ends_each_time_it_is_empty(client, pool):
    """A cancel that meets the answer of a query must not be lost."""
    for _ in range(15):
        assert run_until_empty().claimed == 0


def test_a_slot_that_a_long_job_leaves_goes_to_the_long_jobs_of_other_models_at_once(client, pool, settings):
    settings.LLMJOBS_POLL_S = 60
    other = make_model("other", provider=pool.provider)

    def long_job(model, words):
        return submit(client, model, body={"messages": [{"role": "user", "content": words}], "n": 2})[0]

    slow = long_job(pool, "Slow. [[tokens=60]] [[tokens_per_s=60]]")
    with working(concurrency=2, short_share=0.5):
        reaches(slow, State.RUNNING)
        waiting = long_job(other, "Hello. [[tokens=3]]")
        reaches(slow, State.COMPLETED)
        reaches(waiting, State.COMPLETED)
