"""A tenant is alone: each address of the HTTP API and each WebSocket, as everybody who may not use it.

The addresses come from the URL patterns (addresses.py); what each of them owes stands in the tables here, and an
address that stands in none fails.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client as Browser
from django.utils import timezone

from llmjobs import sharing
from llmjobs.live.hub import current_hub
from llmjobs.live.threads import in_hub_thread, in_slow_thread, in_thread
from llmjobs.models import ApiKey, Job, SharedLink
from llmjobs.states import State
from tests.factories import make_client, make_job, make_key, make_model, make_user
from tests.live.callers import ORIGIN, Socket, Stream, closed_at, has_nothing, session_of
from tests.security.addresses import admin_paths, http_addresses, plain_routes, socket_routes

pytestmark = pytest.mark.django_db(transaction=True)

JOB = "api/jobs/<str:job_id>"
OF_A_JOB = {  # another's job is no job: 404
    ("GET", JOB): "read",
    ("DELETE", JOB): "cancel",
    ("POST", f"{JOB}/cancel"): "cancel",
    ("GET", f"{JOB}/events"): "read",
    ("GET", f"{JOB}/request"): "read",
    ("GET", f"{JOB}/shares"): "read",
    ("POST", f"{JOB}/shares"): "cancel",
    ("POST", f"{JOB}/shares/<str:share_id>/revoke"): "cancel",
}
OF_THE_CALLER = {  # answers everybody with what is theirs
    ("GET", "api/jobs"): "read",
    ("POST", "api/jobs"): "submit",
    ("POST", "api/jobs/bulk"): "submit",
    ("GET", "api/events"): "read",
    ("GET", "api/stats"): "read",
    ("GET", "api/models"): "read",
}
OF_A_CLIENT = {("GET", "api/usage"): "read"}  # its own, or the one of a user's that it names
OF_SESSIONS = {("GET", "api/keys"), ("POST", "api/keys"), ("POST", "api/keys/<str:key_id>/revoke")}
OF_ANY_CALLER = {("GET", "api/me")}
PUBLIC = {("GET", "api/schema"), ("GET", "api/docs")}
PAGES = {("GET", path) for path in ("", "account/", "login/", "logout/", "favicon.ico")}  # tests/console
DOCS = {("GET", "docs/"), ("GET", "docs/search/"), ("GET", "docs/<slug:slug>/")}  # about nobody: tests/docs
# About nobody's jobs: tests/postgres/test_metrics.py (a token of its own), tests/api/test_health.py.
WATCHED = {("GET", "metrics"), ("GET", "healthz"), ("GET", "readyz")}
SOCKETS = {"ws/jobs/<str:job_id>/", "ws/jobs/", "ws/queue/"}
# For who has the token of a link: tests/api/test_shares.py.
SHARED = {("GET", "shared/<str:token>/"), ("GET", "shared/<str:token>/text")}
NEED_A_KEY = {**OF_A_JOB, **OF_THE_CALLER, **OF_A_CLIENT}
ASK_WHO = {*NEED_A_KEY, *OF_SESSIONS, *OF_ANY_CALLER}

CANARY = "canary-of-acme"
TAIL = "?wait=1"


def test_every_address_stands_in_a_table():
    assert http_addresses() == {*ASK_WHO, *SHARED, *PUBLIC, *PAGES, *DOCS, *WATCHED}
    assert socket_routes() == SOCKETS


@dataclass
class Ground:
    """acme has a job that waits, and one that ended; the others have nothing."""

    job: Job
    ended: Job
    token: str  # of a link to the job that waits
    share_id: str
    key_id: str
    strangers: dict[str, dict[str, str]]  # who: how its requests carry it
    others: dict[str, dict[str, str]]
    operator: dict[str, str]

    def path(self, route: str, job: Job | None = None) -> str:
        """A link and a key are those of acme that there are."""
        route = route.replace("<str:job_id>", str((job or self.job).public_id))
        return "/" + route.replace("<str:share_id>", self.share_id).replace("<str:key_id>", self.key_id)

    def unchanged(self) -> bool:
        if SharedLink.objects.filter(revoked_at=None).count() != 1 or ApiKey.objects.earliest("id").revoked_at:
            return False
        states = list(Job.objects.order_by("id").values_list("state", "cancel_requested_at", "request__body"))
        return [(state, asked, CANARY in body) for state, asked, body in states] == [
            (State.QUEUED, None, True), (State.COMPLETED, None, True),
        ]  # fmt: skip


def make_ground() -> Ground:
    acme, other, model = make_client(CANARY), make_client("other"), make_model("gpt")
    body = {"messages": [{"role": "user", "content": CANARY}]}
    request = {"metadata": {"m": CANARY}}
    jobs = [
        make_job(state, client=acme, model=model, body=body, request=request, output_text=CANARY)
        for state in (State.QUEUED, State.COMPLETED)
    ]
    key, _ = ApiKey.objects.issue(acme, name=CANARY)
    link, token = sharing.share(jobs[0], expires_in_s=None)
    past = timezone.now() - timedelta(seconds=1)
    inactive = make_user(acme)
    browser = Browser()
    browser.force_login(inactive)
    User.objects.filter(pk=inactive.pk).update(is_active=False)
    return Ground(
        *jobs,
        token=token,
        share_id=f"share_{link.hash[:24]}",
        key_id=f"key_{key.hash[:24]}",
        strangers={
            "nobody": {},
            "an unknown key": {"key": "llmj_unknown"},
            "an empty key": {"key": ""},
            "an expired key": {"key": make_key(acme, expires_at=past)},
            "a revoked key": {"key": make_key(acme, revoked_at=past)},
            "a forged session": {"cookie": "sessionid=forged"},
            "a user who was made inactive": {"cookie": f"sessionid={browser.cookies['sessionid'].value}"},
        },
        others={
            "another client's key": {"key": make_key(other)},
            "another client's user": {"cookie": session_of(other)},
            "a user of no client": {"cookie": session_of()},
            "staff without permissions": {"cookie": _staff()},
            "staff that may see jobs and not their content": {"cookie": _staff("view_job")},
        },
        operator={"key": make_key(other, scopes=["operator"])},
    )


def _staff(*permissions: str) -> str:
    browser = Browser()
    browser.force_login(make_user(is_staff=True, permissions=permissions))
    return f"sessionid={browser.cookies['sessionid'].value}"


@pytest.fixture
async def ground(transactional_db) -> AsyncIterator[Ground]:
    hub = current_hub()
    yield await in_thread(make_ground)
    await hub.close()
    for run in (in_thread, in_hub_thread, in_slow_thread):
        await run(bool)


async def ask(method: str, path: str, who: dict[str, str], **headers: str) -> tuple[int, str]:
    """Status and code of the error, or the body's text. A stream's is what came at once."""
    async with Stream(path, method=method, **who, **headers) as answer:
        if answer.headers.get("content-type") == "text/event-stream":
            return answer.status, (await answer._chunk()).decode()
        text = (await answer.body()).decode()
    return answer.status, json.loads(text)["error"]["code"] if answer.status >= 400 else text


# HTTP.


async def test_a_stranger_gets_no_answer_from_any_address(ground):
    for who, carried in ground.strangers.items():
        for method, route in ASK_WHO:
            for job in (ground.job, ground.ended):
                status, code = await ask(method, ground.path(route, job), carried)
                if "cookie" in carried and method != "GET":
                    assert status in (401, 403), (who, method, route)
                else:
                    assert (status, code) == (401, "invalid_api_key"), (who, method, route)
    assert await in_thread(ground.unchanged)


async def test_a_key_without_the_scope_gets_no_answer_either(ground):
    for (method, route), scope in NEED_A_KEY.items():
        others = sorted({"submit", "read", "cancel"} - {scope})
        key = await in_thread(lambda others=others: make_key(ground.job.client, scopes=others))
        for job in (ground.job, ground.ended):
            answered = await ask(method, ground.path(route, job), {"key": key})
            assert answered == (403, "insufficient_scope"), (method, route)
    assert await in_thread(ground.unchanged)


async def test_anothers_job_is_no_job_at_any_address(ground):
    """In the words in which one that does not exist is none."""
    for who, carried in ground.others.items():
        for method, route in OF_A_JOB:
            for job in (ground.job, ground.ended):
                for tail in ("", TAIL) if route == JOB and method == "GET" else ("",):
                    status, code = await ask(method, ground.path(route, job) + tail, carried)
                    if "cookie" in carried and method != "GET":
                        assert (status, code) == (403, "csrf_failed"), (who, method, route)
                    else:
                        assert (status, code) == (404, "job_not_found"), (who, method, route)
    assert await in_thread(ground.unchanged)


async def test_what_an_address_shows_is_the_callers_own(ground):
    for who, carried in ground.others.items():
        for method, route in OF_THE_CALLER:
            if method != "GET":
                continue
            for query in ("", f"?client={CANARY}", f"?metadata.m={CANARY}") if route == "api/jobs" else ("",):
                status, text = await ask(method, ground.path(route) + query, carried)
                assert status == 200, (who, route, text)
                assert CANARY not in text, (who, route)
                assert str(ground.job.public_id) not in text, (who, route)


async def test_a_clients_month_and_keys_are_for_who_belongs_to_it(ground):
    """Whoever asks, and whichever client they name."""
    for who, carried in {**ground.others, "an operator": ground.operator}.items():
        for method, route in (*OF_A_CLIENT, *OF_SESSIONS):
            path = ground.path(route)
            for named in ({}, {"llmjobs-client": CANARY}):
                status, text = await ask(method, path, carried, **named)
                assert CANARY not in text, (who, route)
                if named:
                    assert (status, text) in ((404, "client_not_found"), (403, "csrf_failed")), (who, route)
    assert await in_thread(ground.unchanged)


async def test_whoever_has_a_link_reads_that_job_and_no_other_thing(ground):
    status, text = await ask("GET", f"/shared/{ground.token}/", {})
    assert (status, text.count(CANARY), str(ground.job.public_id) in text) == (200, 1, False), "the prompt alone"
    status, text = await ask("GET", f"/shared/{ground.token}/text", {})
    assert (status, CANARY in text) == (200, False)
    for path in (f"/shared/{ground.token[:-1]}/", f"/shared/{ground.token}x/", f"/shared/{ground.job.public_id}/"):
        async with Stream(path) as answer:
            assert (answer.status, CANARY in (await answer.body()).decode()) == (404, False)


async def test_the_feed_of_another_client_stays_silent(ground):
    for who in ("another client's key", "another client's user", "a user of no client"):
        async with Stream("/api/events?since=0", **ground.others[who]) as stream:
            assert "canary" not in (await stream._chunk()).decode()
            await has_nothing(stream)


async def test_a_job_is_its_submitters_whatever_the_body_says(ground):
    """There is no field for another client; one that says so is refused."""

    def submit() -> Any:
        key = ground.others["another client's key"]["key"]
        body = {"model": "gpt", "messages": [{"role": "user", "content": "x"}]}
        headers = {"Authorization": f"Bearer {key}"}
        post = lambda **more: Browser().post(  # noqa: E731
            "/api/jobs", json.dumps(body | more), content_type="application/json", headers=headers
        )
        return post(client=CANARY).status_code, post().json()["client"]

    assert await in_thread(submit) == (400, "other")


async def test_an_operator_is_let_in_where_others_are_not(ground):
    """That the tests above can fail: the addresses are right, and the job is there."""
    for method, route in OF_A_JOB:
        job = ground.ended if method == "DELETE" else ground.job
        status, _ = await ask(method, ground.path(route, job), ground.operator)
        assert status in (200, 201, 204), (method, route)
    status, text = await ask("GET", "/api/jobs", ground.operator)
    assert CANARY in text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_view_that_says_nothing_of_its_methods_takes_get_alone(db, method):
    """So that the tables above are whole."""
    key = make_key()
    for route in plain_routes():
        path = "/" + route.replace("<str:job_id>", "019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90")
        response = Browser().generic(method, path, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 405, route


# WebSockets.


def socket_path(ground: Ground, route: str) -> str:
    return "/" + route.replace("<str:job_id>", str(ground.job.public_id))


def as_a_page(carried: dict[str, str]) -> dict[str, str]:
    """A browser names its origin; without one a socket without a key is not even accepted."""
    return carried if "key" in carried else {**carried, "origin": ORIGIN}


async def test_a_stranger_is_closed_with_4404_at_every_socket(ground):
    for who, carried in ground.strangers.items():
        for route in SOCKETS:
            assert await closed_at(socket_path(ground, route), **as_a_page(carried)) == 4404, (who, route)


async def test_a_key_without_the_scope_to_read_is_closed_at_every_socket(ground):
    key = await in_thread(lambda: make_key(ground.job.client, scopes=["submit", "cancel"]))
    for route in SOCKETS:
        assert await closed_at(socket_path(ground, route), key) == 4403, route


async def test_anothers_job_is_no_job_for_a_socket(ground):
    for who, carried in ground.others.items():
        assert await closed_at(socket_path(ground, "ws/jobs/<str:job_id>/"), **as_a_page(carried)) == 4404, who


async def test_anothers_feed_stays_silent(ground):
    for carried in ground.others.values():
        async with Socket("/ws/jobs/?since=0", **as_a_page(carried)) as feed:
            await has_nothing(feed)


async def test_the_queues_statistics_are_for_operators_alone(ground):
    """Of the staff also who may see jobs and no prompt: these are numbers alone, and the admin shows them."""
    others = dict(ground.others)
    staff = others.pop("staff that may see jobs and not their content")
    async with Socket("/ws/queue/", **as_a_page(staff)) as queue:
        assert (await queue.next())[0]["total"] == 2
    acmes = {"acme's own key": {"key": await in_thread(lambda: make_key(ground.job.client))}}
    for who, carried in {**others, **acmes}.items():
        assert await closed_at("/ws/queue/", **as_a_page(carried)) == 4404, who
    async with Socket("/ws/queue/", **ground.operator) as queue:
        assert (await queue.next())[0]["total"] == 2


# Places.


async def test_streams_and_sockets_of_a_client_share_its_places_and_no_other_clients(ground, settings):
    settings.LLMJOBS_VIEWERS_PER_CLIENT_MAX = 2
    key = await in_thread(lambda: make_key(ground.job.client))
    another = await in_thread(lambda: make_key(ground.job.client))  # many keys gain nothing
    path = ground.path(f"{JOB}/events")
    async with Socket("/ws/jobs/", key), Stream(path, key) as first:
        assert first.status == 200
        for refused in (path, "/api/events"):
            assert await ask("GET", refused, {"key": another}) == (429, "too_many_viewers")
        assert await closed_at("/ws/jobs/", another) == 4429
        assert (await ask("GET", "/api/events", ground.others["another client's key"]))[0] == 200


# The admin's pages.


def test_no_page_of_the_admin_is_for_who_is_no_staff(db):
    """Nothing of the page is told: who is not logged in as staff is led to the login, whatever the address."""
    member = Browser()
    member.force_login(make_user(make_client("acme"), permissions=("view_job", "view_job_content", "cancel_job")))
    paths = admin_paths()
    assert len(paths) > 50
    assert {"index", "llmjobs_job_changelist", "llmjobs_job_change", "llmjobs_client_add"} <= set(paths)
    for name, path in paths.items():
        if name == "login":
            continue
        for response in (Browser().get(path), member.get(path), member.post(path, {"action": "cancel"})):
            assert response.status_code == 302, (name, path)
            assert re.match(r"/admin/login/|/admin/$", response["Location"]), (name, response["Location"])
