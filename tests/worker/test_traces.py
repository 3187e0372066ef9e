"""One trace from a POST to the settle: what is stored with the job carries it from the web server to the worker."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from django.db import transaction
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llmjobs import queue, tracing
from llmjobs.errors import QueueFull
from llmjobs.models import Attempt, Client, Job, JobRequest, Model
from tests.api.conftest import Api
from tests.factories import make_key, make_model, make_provider
from tests.helpers import process_environment
from tests.worker.running import run_until_empty
from tests.worker.scripted import said, scripted, stream_answer
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
PROMPT = "a prompt that nobody else may read"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """The SDK, as whoever starts the process sets it up; once, since OpenTelemetry takes no second provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return sorted((span for span in spans.get_finished_spans() if span.name == name), key=lambda span: span.start_time)


def messages(words: str = "") -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{PROMPT} {words}"}]


def test_one_trace_goes_from_a_post_to_the_settle(client: Client, pool: Model, spans):
    answer = Api(make_key(client)).submit({"traceparent": TRACEPARENT}, model=pool.name, messages=messages())
    assert answer.status_code == 202, answer.content
    run_until_empty()

    [submit], [run], [chat] = (named(spans, f"{name} model") for name in ("submit", "run", "chat"))
    assert {f"{span.context.trace_id:032x}" for span in (submit, run, chat)} == {TRACE}
    assert f"{submit.parent.span_id:016x}" == PARENT
    assert run.parent.span_id == submit.context.span_id and run.parent.is_remote
    assert chat.parent.span_id == run.context.span_id
    assert (submit.kind, run.kind, chat.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT)
    assert run.start_time <= chat.start_time <= chat.end_time <= run.end_time

    job = Job.objects.get()
    attempt = Attempt.objects.get()
    assert run.attributes["llmjobs.state"] == "completed" == run.attributes["llmjobs.outcome"]
    assert run.attributes["messaging.message.id"] == str(job.public_id) == submit.attributes["messaging.message.id"]
    assert run.attributes["llmjobs.waited_s"] == pytest.approx(attempt.waited_s)
    assert run.attributes["llmjobs.cost_usd"] == pytest.approx(float(attempt.cost_usd))
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.provider.name"] == "simulator"
    assert chat.attributes["gen_ai.request.model"] == "model"
    assert chat.attributes["gen_ai.usage.input_tokens"] == attempt.input_tokens > 0
    assert chat.attributes["gen_ai.usage.output_tokens"] == attempt.output_tokens > 0
    assert chat.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert chat.attributes["server.address"] == "127.0.0.1"
    for span in (submit, run, chat):
        assert span.status.status_code is StatusCode.UNSET
        assert PROMPT not in span.to_json()


def test_retries_and_requeues_stay_in_the_trace_and_link_to_the_attempt_before(client: Client, pool: Model, spans):
    with trace.get_tracer("host").start_as_current_span("a view of the host's") as outer:
        job = queue.submit(client=client, model=pool.name, messages=messages("[[fault=server_error:1]]"))
    run_until_empty()
    failed, done = named(spans, "run model")
    assert done.context.trace_id == failed.context.trace_id == outer.get_span_context().trace_id
    assert not failed.links
    assert [link.context.span_id for link in done.links] == [failed.context.span_id]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes["llmjobs.state"], failed.attributes["error.type"]) == ("scheduled", "server_error")
    assert named(spans, "chat model")[0].attributes["http.response.status_code"] == 500

    job_of_fault = queue.submit(client=client, model=pool.name, messages=messages("[[fault=context_length]]"))
    run_until_empty()
    assert queue.requeue([job_of_fault.pk]) == [job_of_fault.pk]
    run_until_empty()
    *_, refused, again = named(spans, "run model")
    assert [link.context.span_id for link in again.links] == [refused.context.span_id]
    assert again.parent.span_id == refused.parent.span_id
    assert Job.objects.get(pk=job.pk).state == "completed"


def test_a_worker_of_another_process_goes_on_with_the_trace_that_is_stored(client: Client, pool: Model):
    """It has no SDK, so it makes no span; the line that it logs of the attempt, as JSON here, names the trace."""
    Api(make_key(client)).submit({"traceparent": TRACEPARENT}, model=pool.name, messages=messages())
    with worker_process("--until-empty", LLMJOBS_LOG_FORMAT="json") as worker:
        assert worker.ended() == 0
        lines = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]

    [told] = [line for line in lines if line.get("event") == "attempt"]
    job, attempt = Job.objects.get(), Attempt.objects.get()
    expected = {
        "level": "INFO", "logger": "llmjobs.attempt", "event": "attempt", "trace": TRACE, "job": str(job.public_id),
        "attempt": 1, "client": "acme", "tier": "enterprise", "pool": "model", "outcome": "completed",
        "state": "completed", "error": None, "failures": 0, "provider_status": None,
        "provider_request_id": attempt.provider_request_id, "worker": str(attempt.worker_id),
        "input_tokens": attempt.input_tokens, "output_tokens": attempt.output_tokens,
        "cost_usd": pytest.approx(float(attempt.cost_usd)), "delay_s": 0,
    }  # fmt: skip
    assert {name: told.pop(name) for name in expected} == expected
    assert 0 <= told.pop("first_token_s") <= told.pop("ran_s") and told.pop("waited_s") >= 0
    assert set(told) == {"at"}
    assert PROMPT not in worker.output()


@pytest.mark.parametrize(("may_know", "told"), [(False, None), (True, TRACE)])
def test_a_provider_is_told_of_the_trace_only_where_the_site_says_so(client: Client, settings, quick, may_know, told):
    settings.LLMJOBS_PROVIDER_TRACEPARENT = may_know
    with scripted(stream_answer(*said("x"))) as provider:
        pool = make_model("told", provider=make_provider(base_url=provider.url))
        Api(make_key(client)).submit({"traceparent": TRACEPARENT}, model=pool.name, messages=messages())
        run_until_empty()
    [request] = provider.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert tracing.trace_id_of(headers.get("traceparent")) == told


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
     TRACEPARENT.upper(), f"{TRACEPARENT}-more", f"{TRACEPARENT},{TRACEPARENT}", f"00-{TRACE}-{PARENT}-1"],
)  # fmt: skip
def test_a_bad_traceparent_is_ignored(header: str):
    assert tracing.parsed(header) is None


def test_a_traceparent_of_a_later_version_is_understood():
    assert tracing.parsed(f"01-{TRACE}-{PARENT}-03-more") == f"00-{TRACE}-{PARENT}-03"


def test_a_submit_that_is_refused_says_so_without_its_words(client: Client, pool: Model, spans):
    Client.objects.update(max_queued=0)
    with pytest.raises(QueueFull), transaction.atomic():
        queue.submit(client="acme", model=pool.name, messages=messages())
    [span] = spans.get_finished_spans()
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "QueueFull")
    assert not span.events and span.status.description is None


def test_an_sdk_that_samples_nothing_hands_the_decision_on(client: Client, pool: Model, spans):
    unsampled = f"00-{TRACE}-{PARENT}-00"
    Api(make_key(client)).submit({"traceparent": unsampled}, model=pool.name, messages=messages())
    run_until_empty()
    assert JobRequest.objects.get().traceparent.endswith("-00")
    assert Attempt.objects.get().span_id is None
    assert not spans.get_finished_spans()


def test_without_the_package_all_works_and_the_callers_trace_is_kept():
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import django; django.setup()\n"
        "from llmjobs import tracing, execution, queue\n"
        "assert not tracing.HAS_OTEL\n"
        "rows = [{}]\n"
        f"with tracing.submitting(None, rows, ['m'], {TRACEPARENT!r}): pass\n"
        f"assert rows == [{{'traceparent': {TRACEPARENT!r}}}], rows\n"
    )
    environment = process_environment(DJANGO_SETTINGS_MODULE="project.settings")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
