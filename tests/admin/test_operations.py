"""The page of an operation and the list of them; exports, which are operations too."""

import asyncio
import csv
import io
import json
import re
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.db.models.functions import Now
from django.test import AsyncRequestFactory
from django.test import Client as Browser
from django.urls import reverse

from llmjobs import exporting, operation_steps, operations
from llmjobs.admin import exports
from llmjobs.models import Job, Operation
from tests.admin.pages import ask, confirm, hidden_fields, list_url, logged_in, page_url, staff, text_of
from tests.factories import make_client, make_job, make_model, make_user, make_worker

pytestmark = pytest.mark.django_db

URL = "/admin/llmjobs/job/"
PROMPT = "=HYPERLINK(secret words)"


@pytest.fixture
def many(monkeypatch: Any) -> None:
    monkeypatch.setattr(operations, "IN_REQUEST_MAX", 0)


def running(user: Any, count: int = 5) -> Operation:
    client, model = make_client(), make_model()
    jobs = [make_job("dead", client=client, model=model) for _ in range(count)]
    operation = operations.start("requeue", [job.pk for job in jobs], user=user, reason="provider is back")
    Operation.objects.filter(pk=operation.pk).update(batch=2)
    return operation


def do(browser: Browser, operation: Operation, what: str, **form: Any) -> Any:
    return browser.post(reverse(f"admin:llmjobs_operation_{what}", args=[operation.pk]), form, follow=True)


def polled(browser: Browser, operation: Operation) -> str:
    url = reverse("admin:llmjobs_operation_progress", args=[operation.pk])
    return text_of(browser.post(url, headers={"X-Requested-With": "fetch"}))


def test_the_page_says_who_does_what_to_how_many_why_and_how_far_it_is(browser: Browser, root: Any, many: None) -> None:
    operation = running(root)
    operation_steps.step(operation.pk)
    page = text_of(browser.get(page_url(operation)))
    for words in ("Requeue", "root", "provider is back", "of 5", 'value="2"', "Stop", "40 %"):
        assert words in page, words
    listed = text_of(browser.get(list_url("Operation")))
    for words in ("Requeue", "root", "provider is back", "running"):
        assert words in listed, words


def test_a_page_that_is_looked_at_carries_it_out_where_no_worker_lives(browser: Browser, root: Any, many: None) -> None:
    operation = running(root)
    assert "Requeued" in polled(browser, operation)
    operation.refresh_from_db()
    assert (operation.state, operation.changed) == ("done", 5)
    over = polled(browser, operation)
    assert "data-over" in over and "Undo…" in over and ">Stop<" not in over


def test_with_a_worker_a_page_only_looks(browser: Browser, root: Any, many: None) -> None:
    operation = running(root)
    make_worker()
    polled(browser, operation)
    assert Operation.objects.get(pk=operation.pk).changed == 0


def test_stop_go_on_and_undo_by_their_buttons(browser: Browser, root: Any, many: None) -> None:
    operation = running(root)
    operation_steps.step(operation.pk)
    assert "Stopped." in text_of(do(browser, operation, "stop"))
    assert "Go on" in text_of(browser.get(page_url(operation)))
    do(browser, operation, "resume")
    assert Operation.objects.get(pk=operation.pk).state == "running"
    do(browser, operation, "stop")
    assert "It was over already." in text_of(do(browser, operation, "stop"))
    question = do(browser, operation, "undo")
    assert "Undo it" in text_of(question)
    assert Operation.objects.count() == 1, "asked once"
    fields = hidden_fields(question)
    undone = do(browser, operation, "undo", **{name: values[0] for name, values in fields.items()}, reason="by mistake")
    undoing = Operation.objects.latest("pk")
    assert (undoing.undoes, undoing.reason) == (operation, "by mistake")
    assert undone.redirect_chain == [(page_url(undoing), 302)]
    assert "undone before" in text_of(do(browser, operation, "undo", confirmed="yes")), "a second click"
    assert Operation.objects.count() == 2
    polled(browser, undoing)
    assert Job.objects.filter(state="cancelled").count() == 2
    said = " ".join(LogEntry.objects.values_list("change_message", flat=True))
    assert "Undo requeue 2 jobs: by mistake" in said


@pytest.mark.parametrize("what", ["progress", "stop", "resume", "undo", "download"])
def test_nothing_is_done_by_get_nor_by_who_may_not(browser: Browser, root: Any, many: None, what: str) -> None:
    operation = running(root)
    url = reverse(f"admin:llmjobs_operation_{what}", args=[operation.pk])
    assert browser.get(url).status_code == 405
    viewer = staff("view_operation", "view_job", "cancel_job")
    answer = viewer.post(url, {"confirmed": "yes", "reason": ""}, headers={"X-Requested-With": "fetch"})
    assert answer.status_code == (200 if what == "progress" else 403)
    assert staff("view_job").post(url).status_code == 403
    assert Browser().post(url).status_code == 302
    operation.refresh_from_db()
    assert (operation.state, operation.changed, Operation.objects.count()) == ("running", 0, 1)
    if what == "progress":
        assert ">Stop<" not in text_of(answer)


def test_who_began_one_may_look_at_it(many: None) -> None:
    user = make_user(is_staff=True, permissions=["view_job", "requeue_job"])
    operation = running(user)
    mine, other = logged_in(user), staff("view_job", "requeue_job")
    assert mine.get(page_url(operation)).status_code == 200
    assert other.get(page_url(operation)).status_code == 403
    assert mine.get(list_url("Operation")).status_code == 403, "the others' need the permission"


def test_the_words_of_a_search_are_for_who_may_read_prompts(browser: Browser, root: Any) -> None:
    job = make_job("dead", result={"error_code": "timeout", "error_message": "the-merger"})
    url = f"{URL}?q=the-merger"
    confirm(browser, url, ask(browser, url, "requeue", job, across=True))
    operation = Operation.objects.get()
    assert "the-merger" in text_of(browser.get(page_url(operation)))
    viewer = text_of(staff("view_job", "view_operation").get(page_url(operation)))
    assert "the-merger" not in viewer and "what a search found" in viewer


@pytest.mark.parametrize("key", ["nope", "0", "9" * 30, "%00"])
def test_an_operation_that_is_none_is_not_found(browser: Browser, key: str) -> None:
    assert browser.post(f"/admin/llmjobs/operation/{key}/stop/").status_code == 404


def test_a_page_costs_the_same_queries_whatever_its_operation_is(
    browser: Browser, root: Any, many: None, django_assert_max_num_queries: Any
) -> None:
    counts = []
    for size in (2, 30):
        operation = running(root, size)
        with django_assert_max_num_queries(20) as captured:
            browser.get(page_url(operation))
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_the_number_of_jobs_leads_to_them(browser: Browser, root: Any) -> None:
    jobs = [make_job("dead"), make_job("completed")]
    confirm(browser, URL, ask(browser, URL, "requeue", *jobs))
    operation = Operation.objects.get()
    url = re.search(rf'href="([^"]*operation={operation.pk})"', text_of(browser.get(page_url(operation))))
    assert url
    page = text_of(browser.get(url[1]))
    assert page_url(jobs[0]) in page and page_url(jobs[1]) not in page


# Exports.


def exported(browser: Browser, *jobs: Job, url: str = URL, **form: Any) -> Any:
    question = ask(browser, url, "export", *jobs)
    return browser.post(url, {**hidden_fields(question), "reason": "for the books", **form})


def with_prompt(**fields: Any) -> Job:
    body = {"messages": [{"role": "user", "content": PROMPT}]}
    request = {"metadata": {"run": "7"}, "user": PROMPT}
    return make_job("completed", body=body, output_text=PROMPT, request=request, **fields)


def lines_of(response: Any) -> list[Any]:
    return [json.loads(line) for line in b"".join(response.streaming_content).decode().splitlines()]


def test_an_export_has_a_line_a_job_and_is_in_the_history(browser: Browser) -> None:
    jobs = [with_prompt(), make_job("dead"), make_job("queued")]
    answer = exported(browser, *jobs, format="jsonl")
    assert answer["Content-Disposition"].startswith("attachment")
    lines = lines_of(answer)
    assert [line["id"] for line in lines] == [str(job.public_id) for job in jobs]
    assert lines[0]["metadata"] == {"run": "7"} and lines[1]["error"]["code"] == "server_error"
    operation = Operation.objects.get()
    assert (operation.state, operation.total, operation.changed) == ("done", 3, 3)
    assert LogEntry.objects.get().change_message == "Export 3 jobs: for the books"


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_content_is_exported_only_if_asked_for_by_who_may_see_it(browser: Browser, kind: str) -> None:
    jobs = [with_prompt(), make_job("dead", result={"error_message": PROMPT}), make_job("running")]
    asked = b"".join(exported(browser, *jobs, format=kind, content="on").streaming_content).decode()
    assert asked.count("secret words") >= 4
    plain = b"".join(exported(browser, *jobs, format=kind).streaming_content).decode()
    assert plain.count("secret words") == 1, "who the client says its user is, is no prompt"
    may_not = staff("view_job", "export_job")
    assert 'name="content"' not in text_of(ask(may_not, URL, "export", jobs[0]))
    forced = b"".join(exported(may_not, *jobs, format=kind, content="on").streaming_content).decode()
    assert forced.count("secret words") == 1
    with_content = Operation.objects.filter(params__content=True).get()
    sees = staff("view_operation", "view_job", "export_job")
    assert do(sees, with_content, "download").status_code == 403, "nor by another's"


def test_cells_that_a_spreadsheet_would_calculate_are_defused(browser: Browser) -> None:
    evil = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\n=1", "\N{NO-BREAK SPACE}=1", "\ufeff=1"]
    evil += ["\N{FULLWIDTH EQUALS SIGN}1", "harmless"]
    client = make_client("=cmd")
    jobs = [make_job("completed", client=client, request={"user": text}) for text in evil]
    text = b"".join(exported(browser, *jobs, format="csv").streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["user"] for row in rows] == [f"'{text}" for text in evil[:-1]] + ["harmless"]
    assert {row["client"] for row in rows} == {"'=cmd"}
    for row in rows:
        assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t")) for cell in row.values()), row


def test_an_export_holds_a_chunk_of_jobs_at_a_time(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(exporting, "CHUNK", 2)
    client, model = make_client(), make_model()
    jobs = [make_job("completed", client=client, model=model) for _ in range(5)]
    chunks = list(exported(browser, *jobs, format="jsonl").streaming_content)
    assert [chunk.count(b"\n") for chunk in chunks] == [2, 2, 1]


@pytest.mark.django_db(transaction=True)
def test_an_export_that_is_cut_off_says_how_much_was_sent_and_comes_again(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(exporting, "CHUNK", 2)
    client, model = make_client(), make_model()
    jobs = [make_job("completed", client=client, model=model) for _ in range(5)]
    answer = exported(browser, *jobs, format="jsonl")
    stream = iter(answer.streaming_content)
    next(stream), next(stream)
    answer.close()
    operation = Operation.objects.get()
    assert operation.changed == 2, "what was asked for after it had gone out"
    page = browser.get(page_url(operation))
    assert "Download again" in text_of(page)
    assert len(lines_of(do(browser, operation, "download"))) == 5
    assert Operation.objects.get().changed == 5
    last = LogEntry.objects.order_by("pk").last()
    assert last.change_message.startswith("Downloaded again"), "who took it, too"


@pytest.mark.django_db(transaction=True)
def test_under_asgi_chunks_are_sent_as_they_are_made(root: Any, monkeypatch: Any) -> None:
    """Django would read a plain iterator to its end before the first byte."""
    monkeypatch.setattr(exporting, "CHUNK", 1)
    jobs = [make_job("completed") for _ in range(3)]
    operation = operations.start("export", [job.pk for job in jobs], user=root, params={"format": "csv"})
    request = AsyncRequestFactory().post("/")
    assert isinstance(request, ASGIRequest)
    request.user = root  # type: ignore[attr-defined]
    response = exports.download(request, operation)
    assert response.is_async

    async def read() -> list[bytes]:
        try:
            return [chunk async for chunk in response]
        finally:
            await sync_to_async(connections.close_all)()  # of the thread that it was read in

    chunks = asyncio.run(read())
    assert [chunk.count(b"\r\n") for chunk in chunks] == [1, 1, 1, 1]


def test_an_operation_that_is_forgotten_is_neither_undone_nor_downloaded(browser: Browser) -> None:
    exported(browser, make_job("completed"), format="jsonl")
    Operation.objects.update(is_forgotten=True, finished_at=Now())
    operation = Operation.objects.get()
    assert "Download again" not in text_of(browser.get(page_url(operation)))
    assert do(browser, operation, "download").status_code == 404
