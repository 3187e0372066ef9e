"""Who asks: keys, sessions, scopes. Every route asks the same way."""

import json
from datetime import timedelta

import pytest
from django.test import Client as HttpClient
from django.utils import timezone

from llmjobs.models import ApiKey, Job
from llmjobs.states import State
from tests.api.conftest import MESSAGES, Api, assert_error
from tests.factories import make_client, make_job, make_key, make_tier, make_user

pytestmark = pytest.mark.django_db

ROUTES = [
    ("GET", "jobs", "read"),
    ("POST", "jobs", "submit"),
    ("GET", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90", "read"),
    ("GET", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90?wait=1", "read"),
    ("DELETE", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90", "cancel"),
    ("POST", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90/cancel", "cancel"),
    ("GET", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90/request", "read"),
    ("GET", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90/shares", "read"),
    ("GET", "usage", "read"),
    ("GET", "stats", "read"),
    ("GET", "models", "read"),
]


def call(api: Api, method: str, path: str):
    return api.http.generic(method, f"/api/{path}", headers=api.headers)


# Keys.


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_wants_to_know_who_asks(method, path, scope):
    response = call(Api(None), method, path)

    assert_error(response, 401, "invalid_api_key")
    assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_wants_its_scope(acme, method, path, scope):
    others = sorted({"submit", "read", "cancel"} - {scope})

    error = assert_error(call(Api(make_key(acme, scopes=others)), method, path), 403, "insufficient_scope")
    assert scope in error["message"]
    assert call(Api(make_key(acme, scopes=[scope])), method, path).status_code not in (401, 403)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Bearer llmj_unknown",
        "bearer x",
        "Basic YTpi",
        "Token {key}",
        "{key}",
        "Bearer é",
    ],
)
def test_a_header_without_a_key_of_ours_is_a_stranger(header, acme):
    key = make_key(acme)

    response = HttpClient().get("/api/jobs", headers={"Authorization": header.format(key=key)})

    assert_error(response, 401, "invalid_api_key")


def test_a_key_works_with_spaces_around_it_and_any_case_of_bearer(acme):
    key = make_key(acme)

    for header in (f"Bearer {key}", f"bearer  {key} ", f"BEARER {key}"):
        assert HttpClient().get("/api/jobs", headers={"Authorization": header}).status_code == 200


def test_an_expired_key_says_when_it_expired(acme):
    api = Api(make_key(acme, expires_at=timezone.now() - timedelta(seconds=1)))

    error = assert_error(api.get("jobs"), 401, "invalid_api_key")
    assert "expired on 20" in error["message"]


def test_a_key_expires_by_itself(acme):
    assert Api(make_key(acme, expires_at=timezone.now() + timedelta(hours=1))).get("jobs").status_code == 200


def test_a_revoked_key_stops_at_once(acme):
    api = Api(make_key(acme))
    assert api.get("jobs").status_code == 200

    ApiKey.objects.update(revoked_at=timezone.now())

    error = assert_error(api.get("jobs"), 401, "invalid_api_key")
    assert "revoked on 20" in error["message"]


def test_a_refused_key_makes_no_job(acme, model):
    api = Api(make_key(acme, expires_at=timezone.now() - timedelta(seconds=1)))

    assert_error(api.submit(), 401, "invalid_api_key")
    assert not Job.objects.exists()


def test_a_client_may_have_several_keys_and_losing_one_stops_no_other(acme):
    first, second = make_key(acme), make_key(acme)
    ApiKey.objects.filter(prefix=first[:12]).update(revoked_at=timezone.now())

    assert Api(first).get("jobs").status_code == 401
    assert Api(second).get("jobs").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_key_works_while_an_admin_holds_its_row(acme, django_db_blocker):
    """An open transaction of somebody else must not stop the requests that note the key's use."""
    from django.db import connections

    api = Api(make_key(acme))
    holder = connections["default"].copy()
    try:
        holder.set_autocommit(False)
        with holder.cursor() as cursor:
            cursor.execute("select 1 from llmjobs_apikey for update")
            with connections["default"].cursor() as own:
                own.execute("set lock_timeout = '1s'")
            assert api.get("jobs").status_code == 200
        assert ApiKey.objects.get().last_used_at is None
    finally:
        holder.rollback()
        holder.close()


def test_an_operators_key_submits_only_with_that_scope_too(operator, model):
    assert_error(operator.submit(), 403, "insufficient_scope")
    both = Api(make_key(make_client(), scopes=["operator", "submit"]))
    assert both.submit().status_code == 202


# Sessions.


def session_of(user, *, enforce_csrf: bool = False) -> HttpClient:
    http = HttpClient(enforce_csrf_checks=enforce_csrf)
    http.force_login(user)
    return http


def test_a_user_sees_the_jobs_of_its_clients(acme):
    other = make_client("other")
    mine, theirs, _ = make_job(client=acme), make_job(client=other), make_job()

    listed = session_of(make_user(acme, other)).get("/api/jobs").json()["data"]

    assert [job["id"] for job in listed] == [str(theirs.public_id), str(mine.public_id)]


def post_job(http: HttpClient, **headers: str):
    body = json.dumps({"model": "gpt", "messages": MESSAGES})
    return http.post("/api/jobs", body, content_type="application/json", headers=headers)


def test_a_user_submits_for_its_client(acme, model):
    response = post_job(session_of(make_user(acme)))

    assert (response.status_code, response.json()["client"]) == (202, "acme")


def test_a_user_of_no_client_can_not_submit(model):
    assert_error(post_job(session_of(make_user())), 403, "no_client")
    assert not Job.objects.exists()


def test_a_user_of_several_clients_says_which_one_it_acts_for(model):
    tier = make_tier(rpm=7)
    http = session_of(make_user(make_client("acme"), make_client("beta", tier=tier)))
    make_client("others")

    error = assert_error(post_job(http), 400, "client_required", "LLMJobs-Client")
    assert "acme, beta" in error["message"]
    for name in ("others", "nobody", "Acme", ""):
        assert_error(post_job(http, **{"LLMJobs-Client": name}), 404, "client_not_found", "LLMJobs-Client")
        assert_error(http.get("/api/jobs", headers={"LLMJobs-Client": name}), 404, "client_not_found", "LLMJobs-Client")
    assert http.generic("TRACE", "/api/jobs", headers={"LLMJobs-Client": "nobody"}).status_code == 405
    assert not Job.objects.exists()

    for name in ("acme", "beta"):
        response = post_job(http, **{"LLMJobs-Client": name})
        assert (response.status_code, response.json()["client"]) == (202, name)
        assert ("x-ratelimit-limit-requests" in response) == (name == "beta"), "the chosen one's limits"
    for chosen in ({}, {"LLMJobs-Client": "acme"}):
        listed = http.get("/api/jobs", headers=chosen).json()["data"]
        assert [job["client"] for job in listed] == ["beta", "acme"], "it sees the jobs of all its clients"


def test_a_key_acts_for_its_own_client_and_no_other(api, model):
    make_client("others")
    assert api.submit(headers={"LLMJobs-Client": "acme"}).json()["client"] == "acme"
    assert_error(api.submit(headers={"LLMJobs-Client": "others"}), 404, "client_not_found", "LLMJobs-Client")


def test_a_session_needs_its_csrf_token_to_change_something(acme, model):
    http = session_of(make_user(acme), enforce_csrf=True)
    job = make_job(client=acme)

    assert_error(post_job(http), 403, "csrf_failed")
    assert_error(http.delete(f"/api/jobs/{job.public_id}"), 403, "csrf_failed")
    assert_error(http.post(f"/api/jobs/{job.public_id}/cancel"), 403, "csrf_failed")
    assert http.get("/api/jobs").status_code == 200

    http.get("/api/docs")  # sets the cookie
    token = http.cookies["csrftoken"].value
    assert post_job(http, **{"X-CSRFToken": token}).status_code == 202


def test_a_key_needs_no_csrf_token(acme, model):
    http = HttpClient(enforce_csrf_checks=True)

    assert post_job(http, Authorization=f"Bearer {make_key(acme)}").status_code == 202


def test_a_key_wins_over_a_session(acme, model):
    other = make_client("other")
    http = session_of(make_user(acme))

    assert post_job(http, Authorization=f"Bearer {make_key(other)}").json()["client"] == "other"
    assert http.get("/api/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_proxys_basic_authentication_leaves_the_session_alone(acme):
    assert session_of(make_user(acme)).get("/api/jobs", headers={"Authorization": "Basic YTpi"}).status_code == 200


def test_an_inactive_user_is_a_stranger(acme):
    user = make_user(acme)
    http = session_of(user)
    user.is_active = False
    user.save()

    assert_error(http.get("/api/jobs"), 401, "invalid_api_key")


def test_staff_sees_all_jobs_with_the_permission_to_view_them_and_their_content(acme):
    job = make_job(client=acme)

    allowed = session_of(make_user(is_staff=True, permissions=("view_job", "view_job_content")))
    assert allowed.get(f"/api/jobs/{job.public_id}").status_code == 200
    without_content = make_user(is_staff=True, permissions=("view_job",))
    for user in (make_user(is_staff=True), without_content, make_user(permissions=("view_job", "view_job_content"))):
        assert session_of(user).get(f"/api/jobs/{job.public_id}").status_code == 404


def test_staff_cancels_others_jobs_with_the_permission_to_cancel_them(acme):
    job = make_job(client=acme)
    path = f"/api/jobs/{job.public_id}/cancel"

    viewer = session_of(make_user(is_staff=True, permissions=("view_job", "view_job_content")))
    assert_error(viewer.post(path), 403, "insufficient_scope")
    assert Job.objects.get(pk=job.pk).state == State.QUEUED
    canceller = session_of(make_user(is_staff=True, permissions=("view_job", "view_job_content", "cancel_job")))
    assert canceller.post(path).json()["status"] == "cancelled"
