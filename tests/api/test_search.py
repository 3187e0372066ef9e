"""GET /api/jobs?search=: words of one's own jobs, and lists of several clients."""

from urllib.parse import quote, urlencode

import pytest
from django.db import connection
from django.test import Client as HttpClient

from llmjobs.api import walking
from llmjobs.models import Job
from llmjobs.sql import load
from llmjobs.states import State
from tests.api.conftest import Api, assert_error
from tests.factories import make_client, make_job, make_key, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """A page is not shorter because the machine is busy: what time does to it has tests of its own."""
    monkeypatch.setattr(walking, "WALK_S", 60.0)


def search(api, words: str, **more: str):
    return api.get(f"jobs?{urlencode({'search': words, **more})}", headers={})


def found(answer) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [job["id"] for job in answer.json()["data"]]


def chat(*words: str) -> dict:
    return {"messages": [{"role": "user", "content": text} for text in words], "temperature": 0.5}


def id_of(job: Job) -> str:
    return str(job.public_id)


@pytest.fixture
def jobs(acme, model) -> dict[str, Job]:
    """Each is found by its name, as a word."""

    def job(name: str, **fields) -> Job:
        return make_job(State.COMPLETED, **{"client": acme, "model": model, "output_text": ".", **fields})

    part = {"type": "text", "text": "About Parts"}
    return {
        "prompt": job("prompt", body=chat("hello", 'The Prompt said "no"\nand\\or ÄRGER 100% a_b')),
        "parts": job("parts", body={"messages": [{"role": "user", "content": [{"type": "image_url"}, part]}]}),
        "instructions": job("instructions", body={"instructions": "instructions", "input": "x"}),
        "input": job("input", body={"input": "An Input"}),
        "embedding": job("embedding", body={"input": ["one", "embedding"]}),
        "items": job("items", body={"input": [{"role": "user", "content": "items"}]}),
        "answer": job("answer", body=chat("x"), output_text="The ANSWER, at length"),
        "metadata": job("metadata", body=chat("x"), request={"metadata": {"case": "Metadata 42"}}),
    }


def test_words_are_found_wherever_they_stand_in_any_case(api, jobs):
    for name, job in jobs.items():
        for words in (name, name.upper(), f" {name[:-1]}"):
            assert found(search(api, words)) == [id_of(job)], words
    for words in ('said "NO"', 'no"\nand\\or', "and\\OR", "100%", "a_b", "hello"):
        assert found(search(api, words)) == [id_of(jobs["prompt"])], words
    for nothing in ("100_", "a%b", "messages", "role", "temperature", "image_url", "case", "0.5", "user", "n\\nand"):
        assert found(search(api, nothing)) == [], nothing
    answer = search(api, "nothing of that").json()
    assert (answer["next"], answer["searched_to"]) == (None, None)


def test_a_jobs_id_finds_it_alone(api, jobs, acme):
    job = jobs["prompt"]
    quoting = make_job(client=acme, body=chat(f"look at {job.public_id}"))
    assert found(search(api, str(job.public_id).upper())) == [id_of(job)]
    assert found(search(api, f"at {job.public_id}")) == [id_of(quoting)]
    assert found(search(api, str(job.public_id), status="queued")) == []


def test_it_goes_with_the_other_filters(api, jobs, acme):
    running = make_job(State.RUNNING, client=acme, body=chat("a prompt too"))
    assert found(search(api, "prompt")) == [id_of(running), id_of(jobs["prompt"])]
    assert found(search(api, "prompt", status="running")) == [id_of(running)]
    assert found(search(api, "42", **{"metadata.case": "Metadata 42"})) == [id_of(jobs["metadata"])]
    assert found(search(api, "prompt", created_after="2199-01-01")) == []
    assert found(search(api, "prompt", client="nobody")) == []


def test_nobody_finds_anothers_words(stranger, jobs):
    for words in (*jobs, id_of(jobs["prompt"])):
        answer = search(stranger, words, client="acme")
        assert (found(answer), answer.json()["searched_to"]) == ([], None), words
    http = HttpClient()
    http.force_login(make_user())
    assert http.get("/api/jobs?search=prompt").json()["data"] == []


def test_what_was_erased_is_found_no_more(api, jobs):
    for name in ("prompt", "answer", "metadata"):
        api.delete(f"jobs/{jobs[name].public_id}")
        assert found(search(api, name)) == []


@pytest.mark.parametrize("words", ["", " ", "x" * 201, "a\0b"])
def test_what_can_be_no_search_is_named(api, words):
    assert_error(search(api, words), 400, "invalid_text" if "\0" in words else "invalid_value", "search")


def test_pages_go_on_where_the_walk_ended_and_leave_nothing_out(api, acme, model, monkeypatch):
    monkeypatch.setattr(walking, "STEPS", (2, 3))
    monkeypatch.setattr(walking, "WALK_MAX", 5)
    wanted = [make_job(client=acme, model=model, body=chat("needle" if n % 8 == 0 else "hay")) for n in range(25)][::8]
    seen, cursors = [], []
    query = "search=needle&limit=1"
    while True:
        answer = api.get(f"jobs?{query}" + (f"&cursor={quote(cursors[-1])}" if cursors else "")).json()
        assert len(answer["data"]) <= 1
        seen += [job["id"] for job in answer["data"]]
        assert (answer["searched_to"] is None) == (answer["next"] is None)
        if answer["next"] is None:
            break
        cursors.append(answer["next"])
    assert seen == [id_of(job) for job in reversed(wanted)]
    assert len(cursors) > 3, "pages may be empty"


def test_a_walk_that_takes_too_long_ends_after_its_first_step(api, acme, model, monkeypatch):
    """Time is up at once: each page still gets further."""
    monkeypatch.setattr(walking, "STEPS", (2,))
    monkeypatch.setattr(walking, "WALK_S", -1.0)
    job = make_job(client=acme, model=model, body=chat("needle"))
    for _ in range(4):
        make_job(client=acme, model=model)
    cursor, pages = "", 0
    while True:
        answer = api.get(f"jobs?search=needle{cursor}").json()
        pages += 1
        if answer["data"]:
            break
        cursor = f"&cursor={quote(answer['next'])}"
    assert (pages, [found["id"] for found in answer["data"]]) == (3, [id_of(job)])


def test_a_first_step_that_hangs_is_told_as_one(api, jobs, monkeypatch):
    monkeypatch.setattr(walking, "FIRST_STEP_S", 0.05)
    monkeypatch.setattr(walking, "newest", lambda *args: walking.connection.cursor().execute("select pg_sleep(9)"))
    assert_error(search(api, "prompt"), 503, "database_unavailable")


def test_a_search_costs_a_fixed_number_of_queries_a_step(api, jobs, django_assert_max_num_queries):
    search(api, "prompt")
    with django_assert_max_num_queries(11):
        search(api, "prompt", status="completed")


# Several clients.


def test_a_user_of_several_clients_pages_through_the_jobs_of_all(monkeypatch, model):
    acme, beta, other = make_client("acme"), make_client("beta"), make_client("other")
    http = HttpClient()
    http.force_login(make_user(acme, beta))
    jobs = [make_job(client=client, model=model) for client in (acme, beta, other, acme, acme, other, beta)]
    own = [id_of(job) for job in reversed(jobs) if job.client != other]
    monkeypatch.setattr(walking, "STEPS", (1, 2))

    def pages(query: str) -> list[list[str]]:
        every, cursor = [], None
        while True:
            answer = http.get(f"/api/jobs?{query}" + (f"&cursor={quote(cursor)}" if cursor else "")).json()
            assert "searched_to" not in answer
            every.append([job["id"] for job in answer["data"]])
            cursor = answer["next"]
            if cursor is None:
                return every

    assert pages("") == [own]
    assert pages("limit=2") == [own[:2], own[2:4], own[4:]]
    assert pages("client=acme") == [[id_of(job) for job in reversed(jobs) if job.client == acme]]
    assert pages("client=acme,beta,other") == [own]
    assert pages("client=other") == [[]]
    assert pages("status=completed") == [[]]
    assert [job for page in pages("status=queued&limit=1") for job in page] == own


def test_the_jobs_of_several_clients_come_from_short_ranges_of_their_own(acme, model):
    """Whatever the planner believes: with `=` it walked through everybody's jobs for a client that it did not know."""
    for _ in range(50):
        make_job(client=acme, model=model)
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_job")
        params = {"clients": [acme.pk, make_client().pk], "before_id": None}
        cursor.execute("set local enable_seqscan = off")
        cursor.execute("explain " + load("newest_jobs", rows=20), params)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index Scan using job_of_client" in plan, plan
    assert "client_id >= c.id" in plan


def test_an_operator_searches_everybodys_or_one_clients(jobs, model):
    theirs = make_job(client=make_client("beta"), model=model, body=chat("another prompt"))
    operator = Api(make_key(scopes=["operator"]))
    assert found(search(operator, "prompt")) == [id_of(theirs), id_of(jobs["prompt"])]
    assert found(search(operator, "prompt", client="beta")) == [id_of(theirs)]
    assert found(search(operator, "prompt", client="beta,acme")) == [id_of(theirs), id_of(jobs["prompt"])]
