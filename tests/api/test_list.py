"""GET /api/jobs."""

from datetime import timedelta
from urllib.parse import quote, urlencode

import pytest

from llmjobs.api import listing
from llmjobs.models import Job
from llmjobs.states import Priority, State
from tests.api.conftest import assert_error
from tests.factories import make_client, make_job, make_model

pytestmark = pytest.mark.django_db


def ids(response) -> list[str]:
    assert response.status_code == 200, response.content
    return [job["id"] for job in response.json()["data"]]


def id_of(job: Job) -> str:
    return str(job.public_id)


def pages(api, query: str) -> list[list[str]]:
    """Every page, following `next`."""
    found, cursor = [], None
    while True:
        answer = api.get(f"jobs?{query}" + (f"&cursor={quote(cursor)}" if cursor else ""))
        found.append(ids(answer))
        cursor = answer.json()["next"]
        if cursor is None:
            return found


def test_jobs_are_listed_newest_first(api, acme, model):
    jobs = [make_job(client=acme, model=model) for _ in range(3)]

    response = api.get("jobs")

    assert ids(response) == [id_of(job) for job in reversed(jobs)]
    assert response.json()["object"] == "list"
    assert response.json()["next"] is None


def test_a_client_sees_its_own_jobs_only(api, stranger, acme):
    mine = make_job(client=acme)

    assert ids(api.get("jobs")) == [id_of(mine)]
    assert ids(stranger.get("jobs")) == []


def test_an_operator_sees_all_and_whoever_chooses_a_client_chooses_among_what_it_sees(api, operator, acme):
    mine = make_job(client=acme)
    other = make_job(client=make_client("other"))

    assert ids(operator.get("jobs")) == [id_of(other), id_of(mine)]
    assert ids(operator.get("jobs?client=acme")) == [id_of(mine)]
    assert ids(operator.get("jobs?client=acme,other")) == [id_of(other), id_of(mine)]
    assert ids(api.get("jobs?client=acme,other")) == [id_of(mine)]
    assert ids(api.get("jobs?client=other")) == ids(api.get("jobs?client=nobody")) == []


# Filters.


@pytest.fixture
def jobs(acme, model) -> dict[str, Job]:
    other = make_model("other")
    return {
        "queued": make_job(client=acme, model=model, request={"metadata": {"case": "1", "team": "a"}}),
        "high": make_job(client=acme, model=model, priority=Priority.HIGH, request={"metadata": {"case": "2"}}),
        "completed": make_job(State.COMPLETED, client=acme, model=other),
        "failed": make_job(State.FAILED, client=acme, model=other, request={"metadata": {"case": "1"}}),
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=completed", ["completed"]),
        ("status=completed,failed", ["failed", "completed"]),
        ("status=dead", []),
        ("model=other", ["failed", "completed"]),
        ("model=gpt,other", ["failed", "completed", "high", "queued"]),
        ("model=unknown", []),
        ("priority=high", ["high"]),
        ("priority=1", ["high"]),
        ("priority=normal,1&status=queued", ["high", "queued"]),
        ("metadata.case=1", ["failed", "queued"]),
        ("metadata.case=1&metadata.team=a", ["queued"]),
        ("metadata.case=3", []),
        ("metadata.a.b%20%22c%22=%27%3B--", []),
        ("created_after=2000-01-01", ["failed", "completed", "high", "queued"]),
        ("created_after=2999-01-01T00:00:00Z", []),
        ("created_after=0001-01-01T00:00:00%2B14:00", ["failed", "completed", "high", "queued"]),
        ("created_after=9999-12-31T23:59:59-14:00", []),
        ("created_after=2999-01-01T00:00:00%2B23:59", []),
    ],
)
def test_a_filter_lets_through_what_it_says(api, jobs, query, expected):
    assert ids(api.get(f"jobs?{query}")) == [id_of(jobs[name]) for name in expected]


@pytest.mark.parametrize("offset", ["Z", "%2B00:00", "+00:00", ""])
def test_created_after_is_exact_and_takes_every_offset(api, jobs, offset):
    """Also a + that was not encoded, and arrives as a space."""
    base = jobs["queued"].created_at.replace(tzinfo=None)
    Job.objects.filter(pk=jobs["high"].pk).update(created_at=jobs["queued"].created_at + timedelta(microseconds=1))
    Job.objects.filter(pk__gt=jobs["high"].pk).update(created_at=jobs["queued"].created_at - timedelta(hours=1))

    assert ids(api.get(f"jobs?created_after={base.isoformat()}{offset}")) == [id_of(jobs["high"])]


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("status=done", "invalid_value", "status"),
        ("status=", "invalid_value", "status"),
        ("status=queued,done", "invalid_value", "status"),
        ("priority=urgent", "invalid_value", "priority"),
        ("priority=2", "invalid_value", "priority"),
        ("created_after=yesterday", "invalid_value", "created_after"),
        ("created_after=2026-13-01T00:00:00Z", "invalid_value", "created_after"),
        ("limit=0", "invalid_value", "limit"),
        ("limit=101", "invalid_value", "limit"),
        ("limit=-1", "invalid_value", "limit"),
        ("limit=ten", "invalid_value", "limit"),
        ("limit=%D9%A1", "invalid_value", "limit"),
        ("cursor=x", "invalid_cursor", "cursor"),
        ("cursor=", "invalid_cursor", "cursor"),
        ("cursor=%C3%A9", "invalid_cursor", "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAA", "invalid_cursor", "cursor"),
        ("model=%00", "invalid_text", "model"),
        ("metadata.a=%00", "invalid_text", "metadata.a"),
        ("metadata.=a", "unknown_parameter", "metadata."),
        ("metadata=a", "unknown_parameter", "metadata"),
        ("order=asc", "unknown_parameter", "order"),
        ("limit=1&limit=2", "duplicate_parameter", "limit"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(api, query, code, param):
    assert_error(api.get(f"jobs?{query}"), 400, code, param)


# Pages.


def test_a_page_has_twenty_jobs_and_at_most_a_hundred(api, acme, model):
    for _ in range(21):
        make_job(client=acme, model=model)

    assert len(ids(api.get("jobs"))) == 20
    assert len(ids(api.get("jobs?limit=100"))) == 21


def test_pages_hold_each_job_once_while_others_are_submitted(api, acme, model):
    jobs = [make_job(client=acme, model=model) for _ in range(7)]
    first = api.get("jobs?limit=3")
    make_job(client=acme, model=model)

    second = api.get(f"jobs?limit=3&cursor={first.json()['next']}")
    third = api.get(f"jobs?limit=3&cursor={second.json()['next']}")

    assert [*ids(first), *ids(second), *ids(third)] == [id_of(job) for job in reversed(jobs)]
    assert third.json()["next"] is None


def test_a_cursor_tells_nothing_and_can_not_be_forged(api, acme, model):
    for _ in range(2):
        make_job(client=acme, model=model)
    cursor = api.get("jobs?limit=1").json()["next"]

    assert listing.decode_cursor(cursor) == Job.objects.latest("id").pk
    forged = cursor[:-2] + ("AA" if not cursor.endswith("AA") else "BA")
    assert_error(api.get(f"jobs?cursor={forged}"), 400, "invalid_cursor", "cursor")


def test_a_rare_filter_reads_a_bounded_number_of_jobs_and_goes_on_from_there(api, acme, model, monkeypatch):
    monkeypatch.setattr(listing, "SCAN_MAX", 4)
    rare = [make_job(client=acme, model=model, priority=Priority.LOW)]
    for _ in range(9):
        make_job(client=acme, model=model)
    rare.append(make_job(client=acme, model=model, priority=Priority.LOW))

    found = pages(api, "priority=low")

    assert found == [[id_of(rare[1])], [], [id_of(rare[0])]]


def test_what_was_created_lately_is_not_looked_for_in_the_whole_history(api, acme, model, monkeypatch):
    monkeypatch.setattr(listing, "SCAN_MAX", 2)
    for _ in range(6):
        make_job(client=acme, model=model)
    Job.objects.update(created_at=Job.objects.latest("id").created_at - timedelta(days=1))
    new = make_job(client=acme, model=model)

    after = (new.created_at - timedelta(hours=1)).isoformat()
    assert pages(api, urlencode({"created_after": after})) == [[id_of(new)]]


def test_a_page_costs_the_same_few_queries_however_long_it_is(api, acme, model, django_assert_max_num_queries):
    for state in State:
        for _ in range(3):
            make_job(state, client=acme, model=model)
    api.get("jobs")

    with django_assert_max_num_queries(4):  # key, jobs, places of the queued, texts of the running
        assert len(ids(api.get("jobs?limit=100"))) == 24
