"""The list of jobs: found by what people have at hand, filtered, paged by key, never counted, never heavy."""

import itertools
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmjobs.admin import lists
from llmjobs.models import Attempt, Job
from llmjobs.states import Priority, Size
from tests.admin.pages import text_of
from tests.factories import make_client, make_job, make_model, make_worker
from tests.helpers import database_url

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/job/"


def found(browser: Browser, **query: Any) -> set[int]:
    """The jobs that the list shows, by id."""
    response = browser.get(URL, query)
    assert response.status_code == 200
    return {job.pk for job in response.context["cl"].result_list}


def test_a_job_is_found_by_its_public_id(browser: Browser) -> None:
    job, _ = make_job(), make_job()
    assert found(browser, q=str(job.public_id)) == {job.pk}
    assert found(browser, q=f"  {job.public_id.hex} ") == {job.pk}
    assert found(browser, q=str(uuid.uuid4())) == set()


def test_a_job_is_found_by_its_number(browser: Browser) -> None:
    job, _ = make_job(), make_job()
    assert found(browser, q=str(job.pk)) == {job.pk}


def test_jobs_are_found_by_the_exact_name_of_their_client(browser: Browser) -> None:
    acme, other = make_client("acme"), make_client("acme-2")
    mine = {make_job(client=acme).pk for _ in range(2)}
    make_job(client=other)
    assert found(browser, q="acme") == mine
    assert found(browser, q="acm") == set()


def test_jobs_are_found_by_their_idempotency_key(browser: Browser) -> None:
    one, two = (make_job(request={"idempotency_key": "order=17"}) for _ in range(2))
    make_job(request={"idempotency_key": "order=18"})
    assert found(browser, q="order=17") == {one.pk, two.pk}


def test_jobs_are_found_by_metadata(browser: Browser) -> None:
    job = make_job(request={"metadata": {"run": "7", "team": "x"}})
    make_job(request={"metadata": {"run": "8"}})
    assert found(browser, q="run=7") == {job.pk}
    assert found(browser, q="run = 7") == {job.pk}
    assert found(browser, q="run=9") == set()


def test_each_filter_finds_its_jobs_and_only_those(browser: Browser) -> None:
    worker = make_worker(host="node", pid=77)
    job = make_job(
        "dead", client=make_client("acme", tier="pro"), model=make_model("gpt"), priority=Priority.HIGH, size=Size.LONG
    )
    Attempt.objects.filter(job=job).update(worker_id=worker.pk)
    make_job("completed", client=make_client("other", tier="free"), model=make_model("other-model"))
    for name, value in {
        "status": "dead", "tier": "pro", "client": "acme", "model": "gpt", "priority": "high", "size": "long",
        "error": "server_error", "worker": "node:77",
    }.items():  # fmt: skip
        assert found(browser, **{name: value}) == {job.pk}, name
    assert found(browser, worker=str(worker.pk)) == {job.pk}


def test_a_job_that_its_fallback_serves_is_shown_and_found_by_what_was_asked_for(browser: Browser) -> None:
    gpt, eu = make_model("gpt"), make_model("eu")
    moved, own = make_job(model=eu, home=gpt), make_job(model=eu)
    assert found(browser, model="gpt") == found(browser, served_by="eu", model="gpt") == {moved.pk}
    assert found(browser, model="eu") == {own.pk}
    assert found(browser, served_by="eu") == {moved.pk, own.pk}
    for url in (URL, f"{URL}{moved.pk}/change/"):
        page = re.sub(r"</?a\b[^>]*>", "", text_of(browser.get(url)))
        assert "gpt, served by eu" in page, url


def test_a_filter_by_what_does_not_exist_finds_nothing(browser: Browser) -> None:
    make_job()
    names = "status tier client model served_by priority size error worker created_from"
    for name in names.split():
        assert found(browser, **{name: "nope"}) == set(), name


def test_filters_and_search_hold_together(browser: Browser) -> None:
    acme = make_client("acme")
    dead, _ = make_job("dead", client=acme), make_job("completed", client=acme)
    make_job("dead")
    assert found(browser, q="acme", status="dead") == {dead.pk}


def test_days_are_inclusive_and_read_by_the_submitters_or_the_databases_clock(browser: Browser) -> None:
    """The public id narrows the search; a submitter's clock that is hours off must not hide its jobs."""
    day = datetime(2026, 3, 5, tzinfo=UTC)
    jobs = {
        name: make_job(created_at=at, public_id=uuid.UUID(int=(int(by_submitter.timestamp() * 1000) << 80) + number))
        for number, (name, at, by_submitter) in enumerate(
            [
                ("before", day - timedelta(seconds=1), day - timedelta(seconds=1)),
                ("first", day, day - timedelta(hours=5)),
                ("last", day + timedelta(days=1, seconds=-1), day + timedelta(days=1, hours=5)),
                ("after", day + timedelta(days=1), day + timedelta(days=1)),
            ]
        )
    }
    assert found(browser, created_from="2026-03-05", created_to="2026-03-05") == {jobs["first"].pk, jobs["last"].pk}
    assert found(browser, created_from="2026-03-06") == {jobs["after"].pk}
    assert found(browser, created_to="2026-03-04") == {jobs["before"].pk}


def test_pages_follow_each_other_without_gap_or_repeat_and_back(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmjobs.admin.jobs.JobPage.list_per_page", 3)
    client, model = make_client(), make_model()
    ids = [make_job(client=client, model=model).pk for _ in range(8)]
    pages, url = [], URL
    while url:
        changelist = browser.get(url).context["cl"]
        pages.append([job.pk for job in changelist.result_list])
        newer, url = changelist.newer, changelist.older and URL + changelist.older
    assert [len(page) for page in pages] == [3, 3, 2]
    assert list(itertools.chain(*pages)) == sorted(ids, reverse=True)
    back = browser.get(URL + newer).context["cl"]
    assert [job.pk for job in back.result_list] == pages[1]
    first = browser.get(URL + back.newer).context["cl"]
    assert [job.pk for job in first.result_list] == pages[0]
    assert not first.newer


def test_a_count_stops_at_its_bound_and_says_so(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmjobs.admin.jobs.JobPage.list_per_page", 3)
    monkeypatch.setattr(lists, "COUNT_MAX", 5)
    client, model = make_client("acme"), make_model()
    for _ in range(7):
        make_job(client=client, model=model)
    assert "5+ jobs" in text_of(browser.get(URL, {"client": "acme"}))
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_job")
    assert "about 7 jobs" in text_of(browser.get(URL))


def test_a_list_says_what_a_job_is_at_a_glance(browser: Browser) -> None:
    model = make_model("gpt")
    job = make_job("completed", client=make_client("acme", tier="pro"), model=model, failures=1, attempt=2)
    page = text_of(browser.get(URL))
    for word in (str(job.public_id)[-8:], "acme", "pro", "gpt", "normal, short", "2, 1 failed", "8 + 3", "$0.0001"):
        assert word in page, word
    assert "llmjobs-good" in page


@pytest.mark.parametrize(
    ("state", "times", "waited", "ran"),
    [
        ("queued", {"available_at": -90}, "1 min 30 s", "-"),
        ("scheduled", {"available_at": 60}, "-", "-"),
        ("running", {"available_at": -90, "started_at": -30}, "1 min", "30 s"),
        ("completed", {"available_at": -90, "started_at": -60, "finished_at": -20}, "30 s", "40 s"),
        ("cancelled", {"available_at": -90, "finished_at": -30}, "1 min", "-"),
        ("queued", {"available_at": -20, "started_at": -500, "attempt": 1}, "20 s", "-"),  # requeued, or tried again
    ],
)
def test_waiting_is_counted_from_when_a_job_could_run(
    browser: Browser, state: str, times: dict[str, Any], waited: str, ran: str
) -> None:
    now = timezone.now()
    at: Any = {name: now + timedelta(seconds=s) if name.endswith("_at") else s for name, s in times.items()}
    make_job(state, **at)
    page = browser.get(URL).content.decode()
    assert re.findall(r'class="field-(?:waited|ran)">([^<]*)<', page) == [waited, ran]


def test_a_list_reads_no_prompt_and_no_output(browser: Browser) -> None:
    make_job("completed")
    with CaptureQueriesContext(connection) as captured:
        browser.get(URL)
    read = "\n".join(query["sql"] for query in captured)
    assert "llmjobs_jobresult" in read
    for column in ('"output"', '"output_text"', '"body"', '"data"'):
        assert column not in read, column


@pytest.mark.django_db(transaction=True)
def test_a_list_that_takes_too_long_says_so_instead_of_waiting(browser: Browser, monkeypatch: Any) -> None:
    make_job()
    monkeypatch.setattr(lists, "LIST_TIMEOUT_S", 0.1)
    monkeypatch.setattr("llmjobs.admin.job_filters.LIST_TIMEOUT_S", 0.1)
    with psycopg.connect(database_url()) as other:
        other.execute("lock table llmjobs_job in access exclusive mode")
        response = browser.get(URL)
    assert response.status_code == 200
    assert "narrow it by" in text_of(response)
    with connection.cursor() as cursor:
        cursor.execute("show statement_timeout")
        assert cursor.fetchone() == ("0",), "the limit must not outlive the list"


def test_the_time_limit_of_a_list_is_not_left_to_the_callers_transaction(browser: Browser) -> None:
    with connection.cursor() as cursor:
        cursor.execute("set local statement_timeout = '7min'")
        assert browser.get(URL).status_code == 200
        cursor.execute("show statement_timeout")
        assert cursor.fetchone() == ("7min",)


MANY = """
    insert into llmjobs_job (
        public_id, pool_id, client_id, tier_id, endpoint, priority, size, lane_order, state, attempt, epoch,
        est_input_tokens, est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, retry_until, started_at,
        finished_at)
    select gen_random_uuid(), %(pool)s, %(client)s, %(tier)s, '/v1/chat/completions', 5, 0, i,
        case when i %% 500 = 0 then 'dead' else 'completed' end, 1, 3, 1, 1, 1, 5, 1, 1, now(), now(), now()
    from generate_series(1, 20000) as i
"""


@pytest.fixture
def twenty_thousand_jobs() -> Job:
    """One of them; all are one client's but for the last."""
    client, model = make_client("bulk"), make_model("gpt")
    with connection.cursor() as cursor:
        cursor.execute(MANY, {"pool": model.pk, "client": client.pk, "tier": client.tier_id})
        cursor.execute("""
            insert into llmjobs_jobrequest (job_id, client_id, body, prompt_hash, idempotency_key)
            select id, client_id, '{}', '', 'key-' || id from llmjobs_job
        """)
        cursor.execute("insert into llmjobs_jobresult (job_id, output) select id, '{}' from llmjobs_job")
        job = make_job("completed", client=make_client("acme"), model=model, request={"idempotency_key": "mine"})
        cursor.execute("analyze")
    return job


def scans_of_whole_tables(queries: Any) -> Iterator[str]:
    """The tables that grow with the number of jobs and that a query would read from end to end, as the planner
    has it.
    """
    for query in queries:
        sql = query["sql"]
        if not sql.startswith("SELECT") or "llmjobs_job" not in sql:
            continue
        with connection.cursor() as cursor:
            cursor.execute("explain " + sql)
            plan = "\n".join(line for (line,) in cursor.fetchall())
        yield from re.findall(r"Seq Scan on (llmjobs_job\w*)", plan)


def test_no_list_or_search_scans_the_table(browser: Browser, twenty_thousand_jobs: Job) -> None:
    job = twenty_thousand_jobs
    middle = Job.objects.order_by("pk")[10_000].pk
    for query in (
        {}, {"p": f"lt{middle}"}, {"q": str(job.public_id)}, {"q": str(job.pk)}, {"q": "acme"}, {"q": "mine"},
        {"status": "dead"}, {"status": "queued"}, {"status": "running"}, {"client": "acme"},
        {"created_to": "2020-01-01"},
    ):  # fmt: skip
        with CaptureQueriesContext(connection) as captured:
            assert browser.get(URL, query).status_code == 200
        assert list(scans_of_whole_tables(captured)) == [], query


def test_the_whole_table_is_never_counted(browser: Browser, twenty_thousand_jobs: Job) -> None:
    with CaptureQueriesContext(connection) as captured:
        page = text_of(browser.get(URL))
    assert "about 20,001 jobs" in page
    assert not [query["sql"] for query in captured if "COUNT(" in query["sql"]]
