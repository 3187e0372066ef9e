"""Links that show one job: made and revoked through the API, and what the page behind one tells whom."""

import json
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.core.asgi import get_asgi_application
from django.test import Client as HttpClient
from django.utils import timezone

from llmjobs import sharing
from llmjobs.console import shared
from llmjobs.models import ApiKey, JobEvent, JobResult, SharedLink
from llmjobs.states import SEQ_EPOCH, State
from project.one_hop import one_hop
from tests.api.conftest import Api, assert_error
from tests.api.test_one_hop import asked
from tests.api.test_schema import schema, validator  # noqa: F401 - a fixture
from tests.factories import make_job, make_key, make_user

pytestmark = pytest.mark.django_db

SECRETS = ("acme", "m-secret", "u-secret", "k-secret", "sys-secret", "tool-secret", "pic-secret", "chatcmpl-1")
BODY = {
    "messages": [
        {"role": "system", "content": "sys-secret"},
        {"role": "user", "content": "<b>Why</b> & how?"},
        {"role": "assistant", "content": "Before.", "tool_calls": [{"id": "tool-secret", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "tool-secret", "content": "tool-secret"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://x.example/?pic-secret"}},
                {"type": "text", "text": "And this?"},
            ],
        },
    ]
}


@pytest.fixture
def job(acme, model):
    request = {"metadata": {"m": "m-secret"}, "user": "u-secret", "idempotency_key": "k-secret"}
    return make_job(
        State.COMPLETED, client=acme, model=model, body=BODY, request=request, output_text="Because <i>so</i>."
    )


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    shared._kept.clear()


def share(api, job, **fields):
    return api.post(f"jobs/{job.public_id}/shares", fields or None)


def path_of(answer) -> str:
    assert answer.status_code == 201, answer.content
    return answer.json()["url"].removeprefix("http://testserver")


def anyone() -> HttpClient:
    return HttpClient(raise_request_exception=False)


def test_whoever_has_the_link_reads_what_was_said_and_nothing_else(api, job):
    answer = anyone().get(path_of(share(api, job)))

    text = answer.content.decode()
    assert answer.status_code == 200
    for words in ("&lt;b&gt;Why&lt;/b&gt; &amp; how?", "Before.", "And this?", "Because &lt;i&gt;so&lt;/i&gt;.", "gpt"):
        assert words in text
    for secret in (*SECRETS, str(job.public_id), "0.0001", "$"):
        assert secret not in text, secret
    assert "Instructions to the model and the work of tools are not shown." in text
    assert (answer["Cache-Control"], answer["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert answer["X-Robots-Tag"] == "noindex, nofollow"
    assert not answer.cookies
    assert "Cookie" not in answer.get("Vary", "")


def test_the_link_is_told_once_and_its_token_is_kept_nowhere(schema, api, job):  # noqa: F811
    made = share(api, job).json()

    validator(schema, "NewShare").validate(made)
    token = made["url"].rstrip("/").rpartition("/")[2]
    assert len(token) == 43
    listed = api.get(f"jobs/{job.public_id}/shares")
    validator(schema, "ShareList").validate(listed.json())
    assert [link["id"] for link in listed.json()["data"]] == [made["id"]]
    assert token not in listed.content.decode()
    assert token not in str(list(SharedLink.objects.values()))


def test_a_link_lasts_a_week_or_as_long_as_was_said_within_bounds(api, job, settings):
    settings.LLMJOBS_SHARE_MAX_S = 864_000.0
    for fields in ({}, {"expires_in_s": 60}, {"expires_in_s": None}):
        share(api, job, **fields)
    lives_s = [(link.expires_at - link.created_at).total_seconds() for link in SharedLink.objects.order_by("id")]
    assert lives_s == [604_800, 60, 604_800]
    for wrong in (0, -1, 864_001, "60", True, 1e300):
        assert_error(share(api, job, expires_in_s=wrong), 400, "invalid_value", "expires_in_s")
    assert_error(share(api, job, client="x"), 400, "unknown_parameter", "client")
    settings.LLMJOBS_SHARE_MAX_S = 100.0
    assert share(api, job).status_code == 201
    newest = SharedLink.objects.latest("id")
    assert (newest.expires_at - newest.created_at).total_seconds() == 100


def test_a_link_that_is_unknown_expired_revoked_or_whose_job_is_gone_has_one_answer(api, job, acme, settings):
    page = anyone()
    paths = {name: path_of(share(api, job)) for name in ("expired", "revoked", "off")}
    links = dict(zip(paths, SharedLink.objects.order_by("id"), strict=True))
    SharedLink.objects.filter(pk=links["expired"].pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    revoked = api.post(f"jobs/{job.public_id}/shares/share_{links['revoked'].hash[:24]}/revoke")
    assert revoked.status_code == 200
    again = api.post(f"jobs/{job.public_id}/shares/share_{links['revoked'].hash[:24]}/revoke")
    assert again.json() == revoked.json()
    assert page.get(paths["off"]).status_code == 200
    gone = make_job(State.COMPLETED, client=acme)
    paths["erased"] = path_of(share(api, gone))
    api.delete(f"jobs/{gone.public_id}")
    assert not SharedLink.objects.filter(job=gone).exists()
    raced = make_job(State.COMPLETED, client=acme, request={"idempotency_key": "k"})
    api.delete(f"jobs/{raced.public_id}")  # the row of its request is kept, for the key
    paths["raced"] = "/shared/raced/"
    SharedLink.objects.create(job=raced, hash=sharing.hash_key("raced"), expires_at=timezone.now() + timedelta(days=1))
    settings.LLMJOBS_SHARE_LINKS = False
    paths |= {"none": "/shared/x/", "long": f"/shared/{'x' * 500}/", "odd": "/shared/%00%ff/"}

    answers = {name: page.get(path) for name, path in paths.items()}
    texts = {name: page.get(f"{path}text") for name, path in paths.items()}

    assert {name: answer.status_code for name, answer in (answers | texts).items()} == dict.fromkeys(paths, 404)
    assert len({answer.content for answer in answers.values()}) == 1
    assert {text.content for text in texts.values()} == {b'{"is_over": true}'}
    assert all(answer["Cache-Control"] == "no-store" for answer in (*answers.values(), *texts.values()))
    settings.LLMJOBS_SHARE_LINKS = True
    assert [name for name, path in paths.items() if page.get(path).status_code == 200] == ["off"]


def test_to_share_is_more_than_to_read(api, stranger, acme, job):
    made = share(api, job).json()
    revoke = f"jobs/{job.public_id}/shares/{made['id']}/revoke"
    for scopes in (["read"], ["cancel"], ["submit", "read"], ["submit", "cancel"]):
        key = Api(make_key(acme, scopes=scopes))
        assert_error(share(key, job), 403, "insufficient_scope")
        assert_error(key.post(revoke), 403, "insufficient_scope")
    for path in (f"jobs/{job.public_id}/shares", revoke):
        assert_error(stranger.post(path), 404, "job_not_found", "id")
    assert_error(stranger.get(f"jobs/{job.public_id}/shares"), 404, "job_not_found", "id")
    other = make_job(client=acme)
    assert_error(api.post(f"jobs/{other.public_id}/shares/{made['id']}/revoke"), 404, "share_not_found")
    assert_error(api.post(f"jobs/{job.public_id}/shares/1/revoke"), 404, "share_not_found")
    assert SharedLink.objects.get().revoked_at is None


def test_it_is_known_who_made_a_link(api, acme, job):
    share(api, job)
    user = make_user(acme)
    http = HttpClient()
    http.force_login(user)
    body = {"content_type": "application/json", "data": "{}"}
    assert http.post(f"/api/jobs/{job.public_id}/shares", **body).status_code == 201
    made = SharedLink.objects.order_by("id").values_list("created_by", "api_key_id")
    assert list(made) == [(None, ApiKey.objects.get().pk), (user.pk, None)]
    checked = HttpClient(enforce_csrf_checks=True)
    checked.force_login(user)
    assert_error(checked.post(f"/api/jobs/{job.public_id}/shares", **body), 403, "csrf_failed")


def test_a_job_has_so_many_links_and_those_that_are_over_do_not_pile_up(api, job, settings, monkeypatch):
    settings.LLMJOBS_SHARES_PER_JOB_MAX = 2
    monkeypatch.setattr(sharing, "GONE_KEPT", 3)
    for _ in range(2):
        share(api, job)
    assert_error(share(api, job), 409, "not_allowed")
    for _ in range(6):
        sharing.revoke(SharedLink.objects.values_list("pk", flat=True))
        assert share(api, job).status_code == 201
    assert SharedLink.objects.count() == 4


def test_what_can_not_be_shared_says_why(api, acme, job, settings):
    api.delete(f"jobs/{job.public_id}")
    assert "erased" in assert_error(share(api, job), 409, "not_allowed")["message"]
    settings.LLMJOBS_SHARE_LINKS = False
    assert "switched off" in assert_error(share(api, make_job(client=acme)), 409, "not_allowed")["message"]


# While it goes on.


def test_the_page_of_a_job_that_runs_goes_on_by_itself(api, acme, model):
    job = make_job(State.RUNNING, client=acme, model=model)
    seq = job.epoch * SEQ_EPOCH
    JobEvent.objects.create(job=job, seq=seq + 1, type="delta", data={"text": "Once 🙂"})
    path = path_of(share(api, job))
    page = anyone().get(path)
    assert "Once 🙂</div>" in page.content.decode()
    assert 'data-length="6"' in page.content.decode()
    assert "shared.js" in page.content.decode()

    def text(**seen):
        shared._kept.clear()
        return anyone().get(f"{path}text", seen).json()

    first = text()
    assert first == {
        "epoch": job.epoch, "length": 6, "is_whole": True, "text": "Once 🙂",
        "standing": "The answer is being written…", "is_over": False,
    }  # fmt: skip
    JobEvent.objects.create(job=job, seq=seq + 2, type="delta", data={"text": " upon"})
    more = text(epoch=first["epoch"], length=first["length"])
    assert (more["is_whole"], more["text"], more["length"]) == (False, " upon", 11)
    for odd in ("-1", "x", "99", "9" * 400, ""):
        assert text(epoch=first["epoch"], length=odd)["text"] == "Once 🙂 upon"

    JobResult.objects.create(job=job, output_text="Another text")
    type(job).objects.filter(pk=job.pk).update(
        state="completed", worker_id=None, finished_at=timezone.now(), epoch=job.epoch + 1
    )
    last = text(epoch=first["epoch"], length=11)
    assert (last["is_whole"], last["text"], last["standing"], last["is_over"]) == (True, "Another text", "", True)
    assert "shared.js" not in anyone().get(path).content.decode()


def test_many_who_watch_one_job_cost_one_reading_a_moment(api, acme, django_assert_num_queries):
    path = path_of(share(api, make_job(State.RUNNING, client=acme)))
    anyone().get(path)
    with django_assert_num_queries(1):
        for _ in range(5):
            assert anyone().get(f"{path}text").status_code == 200
    with django_assert_num_queries(1):
        assert anyone().get(path).status_code == 200
    for number in range(shared.KEPT_MAX + 3):
        shared._kept[str(number)] = shared._kept[next(iter(shared._kept))]
    shared._kept.move_to_end(sharing.hash_key(path.split("/")[2]), last=False)
    other = path_of(share(api, make_job(State.RUNNING, client=acme)))
    anyone().get(f"{other}text")
    assert len(shared._kept) == shared.KEPT_MAX


@pytest.mark.parametrize(
    "state", [State.QUEUED, State.SCHEDULED, State.FAILED, State.DEAD, State.CANCELLED, State.EXPIRED]
)
def test_how_it_stands_is_said_without_words_of_errors(api, acme, state):
    page = anyone().get(path_of(share(api, make_job(state, client=acme)))).content.decode()
    expected = "It waits to start…" if state in (State.QUEUED, State.SCHEDULED) else "It ended without a whole answer."
    assert expected in page
    assert "too long for the model" not in page
    assert "provider" not in page


def test_long_texts_are_cut_and_it_is_said(api, job, monkeypatch):
    monkeypatch.setattr(sharing, "TEXT_CHARS_MAX", 12)
    page = anyone().get(path_of(share(api, job))).content.decode()
    assert "Because &lt;i&gt;s</div>" in page
    assert "Shown are the first 12 characters of the answer." in page


# What is told to whom.


def test_when_it_was_opened_last_is_kept_to_the_minute(api, job, django_assert_num_queries):
    path = path_of(share(api, job))
    anyone().get(path)
    seen_at = SharedLink.objects.get().last_seen_at
    assert seen_at is not None
    with django_assert_num_queries(1):
        anyone().get(path)
    assert api.get(f"jobs/{job.public_id}/shares").json()["data"][0]["last_seen_at"] is not None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_it_is_read_only(api, job, method):
    path = path_of(share(api, job))
    for each in (path, f"{path}text"):
        answer = HttpClient(enforce_csrf_checks=True).generic(method, each)
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")


def test_its_token_is_in_no_line_of_the_log(api, job, caplog, monkeypatch):
    path = path_of(share(api, job))
    token = path.split("/")[2]
    caplog.set_level(0)
    anyone().get(path)
    anyone().get(f"{path}text")
    anyone().post(path)
    anyone().get(path[:-1])
    SharedLink.objects.all().delete()
    anyone().get(path)
    anyone().get(f"{path}text")
    monkeypatch.setattr(sharing, "load", lambda name: "select 1/0")
    answer = anyone().get(path)
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    lines = [record.getMessage() for record in caplog.records if record.name != "django.db.backends"]
    assert not [line for line in lines if token in line]


def test_a_site_without_the_page_makes_no_links(api, job, monkeypatch):
    monkeypatch.setattr("llmjobs.api.shares.reverse", lambda *args, **kwargs: (_ for _ in ()).throw(_no_page()))
    assert_error(share(api, job), 409, "not_allowed")
    assert not SharedLink.objects.exists()


def _no_page():
    from django.urls import NoReverseMatch

    return NoReverseMatch("shared")


def test_a_bodyless_order_needs_no_type_and_one_with_a_body_does(api, job):
    path = f"/api/jobs/{job.public_id}/shares"
    assert api.http.generic("POST", path, headers=api.headers).status_code == 201
    text = api.http.generic("POST", path, json.dumps({}), content_type="text/plain", headers=api.headers)
    assert_error(text, 415, "unsupported_media_type")


@pytest.mark.django_db(transaction=True)
def test_a_body_whose_length_nobody_says_is_heeded(api, job):
    """As it comes over HTTP/2."""
    headers = {"authorization": api.headers["Authorization"], "content_type": "application/json"}
    ask = async_to_sync(asked)
    path, site = f"/api/jobs/{job.public_id}/shares", one_hop(get_asgi_application())

    assert ask(site, path, "POST", b'{"expires_in_s": 1}', **headers)[0] == 400
    assert ask(site, path, "POST", b"", transfer_encoding="chunked", **headers)[0] == 201
