"""What /metrics tells, who may read it, what it costs; and that dashboard and rules ask for what is there."""

import json
import re
from pathlib import Path

import pytest
import yaml
from django.db import OperationalError, connection
from django.test import Client as HttpClient
from django.test.utils import CaptureQueriesContext
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from llmjobs import monitoring, queue
from llmjobs.models import Incident, Model, PoolSample, Tier
from llmjobs.monitoring import metrics, reading
from llmjobs.monitoring.catalogue import METRICS
from llmjobs.monitoring.reading import MODELS_MAX
from llmjobs.states import State
from llmjobs.tallying import help_tally
from tests.factories import make_client, make_model, make_user, make_worker
from tests.hands import Hand, submit

pytestmark = pytest.mark.django_db(transaction=True)

FOLDER = Path(monitoring.__file__).parent
TOKEN = "a token of one's own"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(autouse=True)
def open_to_all(settings):
    settings.LLMJOBS_METRICS_OPEN = True
    metrics._page.forget()
    yield
    metrics._page.forget()


def scrape(**headers: str) -> str:
    metrics._page.forget()
    answer = HttpClient(headers=headers).get("/metrics")
    assert answer.status_code == 200, answer.content
    return answer.content.decode()


ORDER = ("tier", "model", "state", "outcome", "reason", "kind", "version", "le")


def samples() -> dict[tuple[str, ...], float]:
    """By name and the values of its labels, in this order."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels, key=ORDER.index))): sample.value
        for family in prometheus(scrape())
        for sample in family.samples
    }


def test_it_tells_what_happened_what_waits_and_what_is_wrong(client, pool: Model, hand: Hand):
    submit(client, pool, 5)
    done, failed, dead, again = hand.claim(pool, 4)
    hand.settle(done, state=State.QUEUED, is_failure=True, outcome="unknown")
    [done] = hand.claim(pool)  # it keeps its place
    hand.settle(done, input_tokens=8, output_tokens=3, cost_usd="0.5", sent_ago_s=2.0, first_token_ago_s=1.9)
    hand.settle(failed, state=State.FAILED)
    hand.settle(dead, state=State.DEAD)
    hand.settle(again, state=State.SCHEDULED, is_failure=True, delay_s=60, provider_status=429, outcome="rejected")
    Incident.objects.create(provider=pool.provider, kind="breaker", level="critical", reason="provider_down")
    queue.pause_claims(by="ops", reason="maintenance")
    Tier.objects.filter(name="enterprise").update(backlog_target_s=77)
    help_tally()

    told = samples()

    assert told["llmjobs_jobs_submitted_total", "enterprise", "model"] == 5
    assert told["llmjobs_jobs_started_total", "enterprise", "model"] == 5
    assert told["llmjobs_retries_total", "enterprise", "model"] == 1
    assert told["llmjobs_jobs_ended_total", "enterprise", "model", "completed"] == 1
    assert told["llmjobs_jobs_ended_total", "enterprise", "model", "failed"] == 1
    assert told["llmjobs_jobs_ended_total", "enterprise", "model", "expired"] == 0
    assert told["llmjobs_attempts_total", "enterprise", "model", "rate_limited"] == 1
    assert told["llmjobs_rate_limited_total", "enterprise", "model"] == 1
    assert told["llmjobs_leases_lost_total", "enterprise", "model"] == 0
    assert told["llmjobs_input_tokens_total", "enterprise", "model"] == 8
    assert told["llmjobs_output_tokens_total", "enterprise", "model"] == 3
    assert told["llmjobs_cost_usd_total", "enterprise", "model"] == 0.5
    assert told["llmjobs_wait_seconds_count", "enterprise", "model"] == 5
    assert told["llmjobs_run_seconds_bucket", "enterprise", "model", "1.5"] == 0
    assert told["llmjobs_run_seconds_bucket", "enterprise", "model", "3"] == 1
    assert told["llmjobs_run_seconds_bucket", "enterprise", "model", "+Inf"] == 1
    assert told["llmjobs_first_token_seconds_sum", "enterprise", "model"] == pytest.approx(0.1, abs=0.05)
    assert told["llmjobs_jobs", "enterprise", "queued"] == 1
    assert told["llmjobs_jobs", "enterprise", "scheduled"] == 1
    assert 0 <= told["llmjobs_oldest_wait_seconds", "enterprise"] < 60
    assert told["llmjobs_oldest_wait_target_seconds", "enterprise"] == 77
    assert told["llmjobs_dead_letters",] == 2
    assert told["llmjobs_claims_paused",] == 1
    assert told["llmjobs_incidents_open", "breaker"] == 1
    assert told["llmjobs_incidents_open", "backlog"] == 0
    assert told["llmjobs_workers", "living"] == 1
    assert told["llmjobs_worker_slots",] == 64
    assert told["llmjobs_model_rpm_limit", "model"] == 60_000_000
    assert told["llmjobs_model_requests_total", "model"] == 5


def test_limits_are_told_with_what_was_used_of_them_in_the_last_minute(client, pool: Model, hand: Hand):
    submit(client, pool, 5)
    hand.claim(pool, 2)
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into llmjobs_poolsample (pool_id, at, requests, tokens, refusals, queued, running, rpm, tpm) "
            "select of_id, statement_timestamp() - interval '60 s', requests, tokens, refusals, 0, 0, 1, 1 "
            "from llmjobs_bucketturn where kind = 0 and of_id = %s order by turn desc limit 1",
            [pool.pk],
        )
    hand.claim(pool, 3)
    Model.objects.filter(pk=pool.pk).update(rpm=600)
    assert PoolSample.objects.count() == 1

    told = samples()

    assert told["llmjobs_model_rpm_used", "model"] == pytest.approx(3, rel=0.05)
    assert told["llmjobs_model_rpm_limit", "model"] == 600
    assert told["llmjobs_model_tpm_used", "model"] > 0
    assert told["llmjobs_model_running_jobs", "model"] == 5


def test_a_worker_that_is_lost_or_drains_does_not_count_as_living(db):
    make_worker(is_draining=True, slots=8)
    lost = make_worker(slots=16)
    type(lost).objects.filter(pk=lost.pk).update(heartbeat_at="2020-01-01T00:00:00Z")
    with connection.cursor() as cursor:
        cursor.execute(
            "update llmjobs_worker set heartbeat_at = statement_timestamp() - interval '1 min' where id = %s", [lost.pk]
        )
    told = samples()
    assert {state: told["llmjobs_workers", state] for state in ("living", "draining", "lost")} == {
        "living": 0, "draining": 1, "lost": 1,
    }  # fmt: skip
    assert told["llmjobs_worker_slots",] == 8


def test_no_label_is_without_bound_and_no_client_is_named(client, pool: Model, hand: Hand):
    many = [make_model(f"made-{number}", provider=pool.provider, made_for=client) for number in range(MODELS_MAX + 5)]
    for model in (many[0], many[-1]):
        submit(client, model)
    help_tally()
    told = samples()
    assert told["llmjobs_jobs_submitted_total", "enterprise", "made-0"] == 1
    assert told["llmjobs_jobs_submitted_total", "enterprise", "(others)"] == 1
    assert ("llmjobs_model_requests_total", "model") in told, "who is configured goes before who was made on first use"
    models = {labels[0] for name, *labels in told if name == "llmjobs_model_requests_total"}
    assert len(models) == MODELS_MAX + 1
    told_of = {total.model for total in reading.read().totals.counts}
    assert told_of == {"made-0", "(others)"}, "nor is what is read: it is added up where it lies"
    assert "acme" not in scrape()
    assert not [metric for metric in METRICS if {"client", "job", "key"} & set(metric.labels)]


def test_every_metric_is_told_in_both_formats_and_parses(client, pool: Model, hand: Hand):
    submit(client, pool)
    [claimed] = hand.claim(pool)
    hand.settle(claimed, sent_ago_s=1.0, first_token_ago_s=0.5)
    make_client("other")
    help_tally()
    plain = {family.name: family.type for family in prometheus(scrape())}
    text = scrape(accept=OPENMETRICS)
    strict = {family.name: family.type for family in openmetrics(text)}
    assert text.endswith("# EOF\n")
    expected = {metric.name.removesuffix("_total"): metric.kind for metric in METRICS}
    assert plain == expected == strict
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name


def test_counters_do_not_fall_when_jobs_are_removed_or_processes_start_anew(client, pool: Model, hand: Hand):
    submit(client, pool)
    hand.settle(*hand.claim(pool))
    help_tally()
    before = samples()
    with connection.cursor() as cursor:
        cursor.execute("delete from llmjobs_job; delete from llmjobs_attempt")
    after = samples()
    fallen = [key for key, value in before.items() if key[0].endswith("_total") and after[key] < value]
    assert not fallen


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 200), ("Bearer wrong", 401), (f"Basic {TOKEN}", 401),
     ("Bearer ", 401), ("Bearer t\xf6ken", 401), ("", 401)],
)  # fmt: skip
def test_nobody_reads_it_without_the_token(settings, authorization, status):
    settings.LLMJOBS_METRICS_OPEN, settings.LLMJOBS_METRICS_TOKEN = False, TOKEN
    answer = HttpClient().get("/metrics", headers={"Authorization": authorization} if authorization else {})
    assert answer.status_code == status
    if status == 401:
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert b"llmjobs_" not in answer.content and TOKEN.encode() not in answer.content


def test_without_a_token_only_staff_reads_it(settings):
    settings.LLMJOBS_METRICS_OPEN = False
    http = HttpClient()
    for authorization in ("Bearer", "Bearer ", "bearer  "):
        assert http.get("/metrics", headers={"Authorization": authorization}).status_code == 401
    http.force_login(make_user(make_client("acme")))
    assert http.get("/metrics").status_code == 401
    http.force_login(make_user(is_staff=True))
    assert http.get("/metrics").status_code == 401, "staff of something else"
    http.force_login(make_user(is_staff=True, permissions=("view_job",)))
    assert http.get("/metrics").status_code == 200
    assert http.post("/metrics").status_code == 405


def test_a_flood_of_scrapes_is_one_reading_of_a_fixed_number_of_statements(client, pool: Model, monkeypatch):
    monkeypatch.setattr(metrics._page, "_for_s", 60)
    submit(client, pool, 3)
    scrape()
    with CaptureQueriesContext(
        connection,
    ) as few:
        scrape()
    for number in range(5):
        submit(client, make_model(f"another-{number}"), 20)
    help_tally()
    with CaptureQueriesContext(connection) as many:
        scrape()
        for _ in range(20):
            HttpClient().get("/metrics")
    assert len(many) == len(few) <= 20


def test_when_the_database_is_away_it_says_so_once_for_all(monkeypatch):
    monkeypatch.setattr(metrics._page, "_for_s", 60)
    asked = []

    def away():
        asked.append(1)
        raise OperationalError("connection to server at db.secret.example failed")

    monkeypatch.setattr(metrics, "read", away)
    for _ in range(3):
        answer = HttpClient().get("/metrics")
        assert answer.status_code == 503
        assert b"secret" not in answer.content
    assert len(asked) == 1


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bllmjobs_\w+", expression))


def known_names() -> set[str]:
    names = set()
    for metric in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def test_the_dashboard_asks_for_what_is_there():
    dashboard = json.loads((FOLDER / "grafana.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(panels) > 15
    assert set().union(*map(names_in, expressions)) <= known_names()
    [source] = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
    for panel in panels:
        assert panel["datasource"]["uid"] == f"${{{source['name']}}}"
        assert panel["title"] and panel["description"].endswith(".")
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places) and all(x + w <= 24 for _, w, x, _ in places)


def test_the_rules_ask_for_what_is_there():
    rules = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    alerts = {rule["alert"] for rule in rules}
    assert len(alerts) == len(rules) >= 10
    for rule in rules:
        assert names_in(rule["expr"]) <= known_names(), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule["for"])
    asked = set().union(*(names_in(rule["expr"]) for rule in rules))
    assert {"llmjobs_oldest_wait_seconds", "llmjobs_model_blocked", "llmjobs_workers", "llmjobs_dead_letters",
            "llmjobs_oldest_snapshot_seconds"} <= asked  # fmt: skip
    assert any(re.search(r"\bup\{", rule["expr"]) for rule in rules), "a scrape that fails"
