"""What may be typed into the search field: each thing by its index or among the newest, and what the page says."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.admin import job_search, lists
from llmjobs.admin.job_filters import first_created
from llmjobs.models import Attempt, Job, JobRequest
from tests.admin.pages import staff, text_of
from tests.admin.test_job_list import found
from tests.factories import make_client, make_job, make_model

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/job/"


@pytest.fixture
def job() -> Job:
    """One of its kind among others."""
    other = make_job("completed", client=make_client("other"), model=make_model("other-model"))
    make_job("dead", client=other.client, model=other.pool, result={"error_code": "other", "error_message": "No."})
    job = make_job(
        "dead", client=make_client("acme"), model=make_model("gpt"),
        request={"metadata": {"run": "7", "team": "x"}, "user": "jane", "idempotency_key": "order-17"},
        result={"error_code": "quota_gone", "error_message": "You exceeded your Quota of boats."},
        public_id="0ac1e57c-94be-7cf8-a74a-ad79e14b401a",
    )  # fmt: skip
    Attempt.objects.filter(job=job).update(provider_request_id="req_42")
    return job


def note(browser: Browser, **query: Any) -> str:
    return str(browser.get(URL, query).context["cl"].search_note)


def test_a_job_is_found_by_all_that_people_have_at_hand(browser: Browser, job: Job) -> None:
    digest = JobRequest.objects.get(job=job).prompt_hash
    for text, by in {
        "0ac1e57c": "the beginning of its id", "0AC1E57C-94be-7c": "the beginning of its id",
        "e14b401a": "the end of its id", "…e14b401a": "the end of its id", str(job.pk): "its number",
        "acme": "its client", "gpt": "its model", "jane": "its end user", "order-17": "its idempotency key",
        "quota_gone": "its error code",
        digest: "its prompt's hash", digest[:20]: "its prompt's hash", digest[7:19]: "its prompt's hash",
        digest[7:].upper(): "its prompt's hash", "run=7": "its metadata", " team = x ": "its metadata",
        "req_42": "the provider's request id", "quota OF boats": "words of its error",
    }.items():  # fmt: skip
        assert found(browser, q=text) == {job.pk}, text
        assert by in note(browser, q=text), text
    for text in (
        "0ac1e57d",
        "0ac1e57",
        "acm",
        "jan",
        "order-1",
        "quota_gon",
        digest[7:18] + "z",
        "run=8",
        "req_4",
        "run=",
    ):
        assert found(browser, q=text) == set(), text
        assert "Nothing is called exactly that." in note(browser, q=text), text


def test_a_text_that_means_several_things_finds_the_jobs_of_all(browser: Browser, job: Job) -> None:
    same = make_job(client=make_client("jane"), model=make_model("order-17"))
    assert found(browser, q="jane") == found(browser, q="order-17") == {job.pk, same.pk}
    assert "its client and by its end user" in note(browser, q="jane")


def test_search_and_filters_hold_together(browser: Browser, job: Job) -> None:
    alive = make_job(client=job.client, model=job.pool, request={"metadata": {"run": "7"}})
    assert found(browser, q="run=7") == {job.pk, alive.pk}
    assert found(browser, q="run=7", status="dead") == {job.pk}
    assert found(browser, q="run=7", status="dead", client="other") == set()


def test_words_of_errors_are_for_who_may_see_content(job: Job) -> None:
    """They may quote a prompt, and a search that finds them would say what stands there."""
    viewer = staff("view_job")
    assert found(viewer, q="quota of boats") == set()
    assert found(viewer, q="quota_gone") == {job.pk}
    assert found(staff("view_job", "view_job_content"), q="quota of boats") == {job.pk}


def test_the_page_says_how_far_it_looked(browser: Browser, job: Job, monkeypatch: Any) -> None:
    assert "the newest 200,000 attempts" in note(browser, q="nothing-of-the-sort")
    monkeypatch.setattr(job_search, "FOUND_MAX", 1)
    make_job(
        client=job.client, model=job.pool, request={"user": "jane"}, public_id="0ac1e57c-94be-7cf8-a74a-ad79e14b401b"
    )
    assert len(found(browser, q="0ac1e57c")) == 1
    assert "the newest 1" in note(browser, q="0ac1e57c")
    assert len(found(browser, q="jane")) == 2, "what is one condition needs no bound"


def test_what_there_was_no_time_for_is_told(browser: Browser, job: Job, monkeypatch: Any) -> None:
    """Not found is not the same as not there."""
    real = job_search.time_limit

    def hurried(seconds: float, *, using: str) -> Any:
        raise lists.TooSlow

    monkeypatch.setattr(job_search, "time_limit", hurried)
    assert "There was no time to look for its idempotency key" in note(browser, q="order-17")
    monkeypatch.setattr(job_search, "time_limit", real)
    assert found(browser, q="order-17") == {job.pk}


def test_what_could_not_be_named_beside_another_is_told_too(browser: Browser, job: Job, monkeypatch: Any) -> None:
    """A client's name that is also an idempotency key: found by both, or it is said that one is missing."""
    keyed = make_job(client=job.client, model=job.pool, request={"idempotency_key": "acme"})
    assert "by its idempotency key and by its client" in note(browser, q="acme")
    late = job_search.Found("its client", [], is_late=True)
    monkeypatch.setattr(job_search.Found, "named", lambda found: found if found.jobs is None else late)
    assert "Found by its idempotency key. There was no time to look for its client." in note(browser, q="acme")
    assert found(browser, q="acme") == {keyed.pk}


def test_all_filters_hold_together_in_the_address(browser: Browser, job: Job) -> None:
    now = timezone.now()
    Job.objects.filter(pk=job.pk).update(
        has_webhook=True, failures=3, attempt=3, endpoint="/v1/responses", created_at=now - timedelta(minutes=5)
    )
    Job.objects.exclude(pk=job.pk).update(created_at=now - timedelta(days=30))
    job.result.error_class, job.result.cost_usd = "unknown", "1.5"
    job.result.save()
    worker = Attempt.objects.get(job=job).worker_id
    filters = {
        "status": "dead,failed", "client": "acme", "model": "gpt", "served_by": "gpt", "error": "quota_gone",
        "error_class": "unknown", "failures": "2", "cost_over": "1.49", "worker": str(worker), "webhook": "yes",
        "endpoint": "responses", "priority": "normal", "size": "short", "tier": job.tier.name, "created_within": "1h",
        "created_from": (now - timedelta(minutes=6)).isoformat(), "finished_within": "1d", "q": "acme",
        "created_to": (now + timedelta(minutes=6)).strftime("%Y-%m-%dT%H:%M+00:00"), "finished_from": "2020-01-01",
    }  # fmt: skip
    assert found(browser, **filters) == {job.pk}
    for name, value in {
        "status": "queued,running", "failures": "5", "cost_over": "1.5", "webhook": "no", "endpoint": "embeddings",
        "error_class": "transient", "created_to": (now - timedelta(minutes=6)).isoformat(), "finished_to": "2020-01-01",
    }.items():  # fmt: skip
        assert found(browser, **{**filters, name: value}) == set(), name


def test_the_first_job_of_a_time_is_found_by_halving(browser: Browser) -> None:
    assert first_created(timezone.now()) <= 1
    began, client, model = timezone.now() - timedelta(days=1), make_client(), make_model()
    jobs = [
        make_job(client=client, model=model, created_at=began + timedelta(minutes=number // 2)) for number in range(12)
    ]
    for gone in (0, 3, 4, 9):
        Job.objects.filter(pk=jobs[gone].pk).delete()
    rows = list(Job.objects.order_by("pk").values_list("pk", "created_at"))
    for minute in (-1, 0, 1, 1.5, 2, 3, 4.5, 5, 6):
        at = began + timedelta(minutes=minute)
        bound = first_created(at)
        assert [pk for pk, _ in rows if pk >= bound] == [pk for pk, created_at in rows if created_at >= at], minute


@pytest.mark.parametrize(
    "query",
    ["status=dead,nope", "status=,", "failures=x", "failures=99999999999", "cost_over=nan", "cost_over=-1",
     "cost_over=1e99", "created_within=2y", "created_from=2026-13-01T00:00", "created_from=9999-12-31T23:59",
     "created_to=0001-01-01T00:00", "finished_to=T", "worker=:1", "webhook=maybe", "endpoint=x", "q=sha256:zz",
     "q=sha256:", "q=…", "q=%F0%9F%9A%A2"],
)  # fmt: skip
def test_nonsense_finds_nothing_and_never_fails(browser: Browser, job: Job, query: str) -> None:
    response = browser.get(f"{URL}?{query}")
    assert response.status_code == 200
    assert not response.context["cl"].result_list or "9999" in query


def test_a_walk_goes_on_from_page_to_page_without_gap_or_repeat(browser: Browser, monkeypatch: Any) -> None:
    """A filter without an index: what was found so far is shown, and each page looks further."""
    client, model = make_client(), make_model()
    ids = [make_job(client=client, model=model, priority=1 if number % 3 else 5).pk for number in range(20)]
    wanted = [pk for number, pk in enumerate(ids) if number % 3 == 0]
    monkeypatch.setattr(lists, "FIRST_STEP", 4)
    monkeypatch.setattr(lists, "WALK_S", 0)  # a step a page
    seen, real, url, pages = [], lists.time_limit, f"{URL}?priority=normal", 0

    def hurried(seconds: float, *, using: str) -> Any:
        if seconds == lists.TRY_S:
            raise lists.TooSlow
        return real(seconds, using=using)

    monkeypatch.setattr(lists, "time_limit", hurried)
    while url:
        response = browser.get(url)
        changelist = response.context["cl"]
        seen += [job.pk for job in changelist.result_list]
        pages += 1
        if changelist.older:
            assert "Looked at numbers down to" in text_of(response)
            assert "or more jobs" in text_of(response)
        last, url = url, changelist.older and URL + changelist.older
    assert seen == sorted(wanted, reverse=True)
    assert pages >= 5
    back, url = [], URL + browser.get(last).context["cl"].newer
    while url != URL and len(back) < 40:
        changelist = browser.get(url).context["cl"]
        back = [job.pk for job in changelist.result_list] + back
        url = URL + changelist.newer
    assert set(back) >= set(wanted[3:]), "and up again"


def test_a_page_of_a_walk_is_cut_where_it_is_full(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmjobs.admin.jobs.JobPage.list_per_page", 2)
    client, model = make_client(), make_model()
    ids = [make_job(client=client, model=model).pk for _ in range(6)]
    monkeypatch.setattr(lists, "TRY_S", lists.TRY_S)
    real = lists.time_limit

    def hurried(seconds: float, *, using: str) -> Any:
        if seconds == lists.TRY_S:
            raise lists.TooSlow
        return real(seconds, using=using)

    monkeypatch.setattr(lists, "time_limit", hurried)
    first = browser.get(URL).context["cl"]
    assert [job.pk for job in first.result_list] == [ids[5], ids[4]]
    second = browser.get(URL + first.older).context["cl"]
    assert [job.pk for job in second.result_list] == [ids[3], ids[2]]
    back = browser.get(URL + second.newer).context["cl"]
    assert [job.pk for job in back.result_list] == [ids[5], ids[4]]
