"""Where a job stands, in one sentence: what it waits for and who holds it up, who runs it, or how it ended.

Owns the words and the links. Reads only what `job_page.load` has read.
"""

from datetime import timedelta

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmjobs.admin.cells import duration, link_to, moment
from llmjobs.admin.job_columns import BLOCKED, clock, of_result
from llmjobs.admin.job_story import followed
from llmjobs.admin.tenants import jobs_url
from llmjobs.models import Attempt, Job, Worker
from llmjobs.places import Place
from llmjobs.states import State


def standing(job: Job, place: Place | None, worker: Worker | None, latest: Attempt | None) -> str | SafeString:
    match job.state:
        case State.SCHEDULED:
            return _scheduled(job)
        case State.QUEUED:
            return _queued(job, place)
        case State.RUNNING:
            return _running(job, worker, latest)
        case _:
            return _over(job, latest)


def _scheduled(job: Job) -> SafeString:
    left = job.available_at - clock(job)
    when = f"in {duration(left)}" if left > timedelta(0) else "it is due, and held to its model's budget of retries"
    at = format_html("not before {} ({})", moment(job.available_at), when)
    if not job.attempt:
        return format_html("Waits for its time: {}.", at)
    code = of_result(job, "error_code")
    why = f" ended with {code}" if code else " failed"
    left_over = max(0, job.max_attempts - job.failures)
    return format_html(
        "Backs off: attempt {}{}. It is queued again {}; it may fail {} {} more.",
        *(job.attempt, why, at, left_over, "time" if left_over == 1 else "times"),
    )


def _queued(job: Job, place: Place | None) -> str | SafeString:
    if place is None:
        return "Just started, or ended: read the page again."
    if place.blocked_by:
        words = BLOCKED.get(place.blocked_by, place.blocked_by)
        url = _blocked_url(job, place.blocked_by)
        reason = format_html('<a href="{}">{}</a>', url, words) if url else words
        eta = f" It is expected to start in about {_eta(place)}." if place.eta_s is not None else ""
        return format_html("Waits, because {}. It is number {} in line.{}", reason, f"{place.position + 1:,}", eta)
    eta = f", and expected to start in about {_eta(place)}" if place.eta_s is not None else ""
    return format_html("Number {} in line for {}{}.", f"{place.position + 1:,}", link_to(job.pool), eta)


def _eta(place: Place) -> str:
    return duration(timedelta(seconds=place.eta_s or 0.0))


def _blocked_url(job: Job, reason: str) -> str:
    """Where an operator sees, or mends, what holds it up."""
    if reason in ("client_paused", "client_rate_limit"):
        return reverse("admin:llmjobs_client_change", args=[job.client_id])
    if reason in ("model_paused", "rate_limit"):
        return reverse("admin:llmjobs_model_change", args=[job.pool_id])
    if reason.startswith("provider_"):
        return reverse("admin:llmjobs_provider_change", args=[job.pool.provider_id])
    if reason in ("no_worker", "claims_paused"):
        return reverse("admin:llmjobs_worker_changelist")
    if reason == "client_concurrency":
        return jobs_url(status="running", client=job.client.name)
    if reason == "model_concurrency":
        return jobs_url(status="running", served_by=job.pool.name)
    return ""


def _running(job: Job, worker: Worker | None, latest: Attempt | None) -> SafeString:
    by = link_to(worker) if worker else str(job.worker_id)[:8]
    since = duration(clock(job) - job.started_at) if job.started_at else ""
    doing = "is being aborted: a cancel was asked for" if job.cancel_requested_at else f"runs for {since}"
    said = ""
    if latest is not None and latest.sent_at and latest.first_token_at:
        said = f"; its first token came after {duration(latest.first_token_at - latest.sent_at)}"
    return format_html("Attempt {} {}, held by {}{}.", job.attempt, doing, by, said)


def _over(job: Job, latest: Attempt | None) -> SafeString:
    at = moment(job.finished_at)
    code = of_result(job, "error_code")
    if job.state == State.COMPLETED:
        tries = "" if job.attempt == 1 else f", in attempt {job.attempt}"
        return format_html("Completed {}{}.", at, tries)
    if job.state in (State.CANCELLED, State.EXPIRED) and not job.attempt:
        return format_html("{} {}, before it started.", job.state.capitalize(), at)
    status = of_result(job, "provider_status")
    why = f": {code}" + (f" (HTTP {status})" if status else "") if code else ""
    words = f" {followed(latest, with_words=False)}" if latest is not None and latest.error_code else ""
    return format_html("{} {}{}, after {} failed {}.{}", job.state.capitalize(), at, why, job.failures,
                       "attempt" if job.failures == 1 else "attempts", words)  # fmt: skip
