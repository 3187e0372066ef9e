"""What the list of jobs and the page of a job say of a job, a function each.

The first ones read the thin row, its names and the small columns of its result: they are for the list too. Those
under "The page" read `job.details`, which `job_page.load` makes.
"""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin import display
from django.core.exceptions import ObjectDoesNotExist
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llmjobs.admin.cells import NOTHING, badge, count, duration, link_to, moment, usd
from llmjobs.models import Job
from llmjobs.states import Priority, Size, State

RESULT_COLUMNS = ("job", "usage", "cost_usd", "error_code")
BLOCKED = {
    "client_paused": "its client is paused",
    "model_paused": "its model is paused",
    "provider_paused": "its provider is paused",
    "claims_paused": "all claims are paused",
    "provider_down": "its provider is down, and is tried again",
    "provider_quota": "its provider says that the quota is used up",
    "provider_auth": "its provider refuses the key",
    "no_worker": "no worker that serves it is alive",
    "client_rate_limit": "its client has used up its requests or tokens a minute",
    "rate_limit": "its model or provider has used up its requests or tokens a minute",
    "client_concurrency": "its client runs as many jobs as it may",
    "model_concurrency": "its model runs as many calls as it may",
}


@display(description="id")
def short_id(job: Job) -> SafeString:
    """The end of the public id: its beginning is the time, the same for all neighbours."""
    return format_html('<code title="{}">…{}</code>', job.public_id, str(job.public_id)[-8:])


@display(description="status")
def status(job: Job) -> SafeString:
    if job.state == State.RUNNING and job.cancel_requested_at:
        return badge("cancelling")
    return badge(job.state)


@display(description="priority")
def priority(job: Job) -> str:
    return f"{Priority(job.priority).word}, {Size(job.size).word}"


@display(description="model")
def asked_model(job: Job) -> str:
    """What was asked for, and who serves it, if that is another."""
    return f"{job.home}, served by {job.pool}" if job.home else str(job.pool)


@display(description="attempts")
def attempts(job: Job) -> str:
    return f"{job.attempt}, {job.failures} failed" if job.failures else str(job.attempt)


@display(description="created")
def created(job: Job) -> str | SafeString:
    return moment(job.created_at)


@display(description="waited")
def waited(job: Job) -> str:
    """Since it could run (a delay and a backoff do not count) until its latest attempt, its end, or now."""
    has_started = job.started_at is not None and job.started_at >= job.available_at
    until = (job.started_at if has_started else None) or job.finished_at or clock(job)
    return duration(until - job.available_at) if until >= job.available_at else NOTHING


@display(description="ran")
def ran(job: Job) -> str:
    """Its latest attempt, where that was its last."""
    if job.started_at is None or not (job.finished_at or job.state == State.RUNNING):
        return NOTHING
    return duration((job.finished_at or clock(job)) - job.started_at)


@display(description="tokens")
def tokens(job: Job) -> str:
    return usage_text(of_result(job, "usage")) or NOTHING


@display(description="cost")
def cost(job: Job) -> str:
    return usd(of_result(job, "cost_usd"))


@display(description="error")
def error(job: Job) -> str:
    return of_result(job, "error_code") or NOTHING


def clock(job: Job) -> datetime:
    """The database's, when the job was read."""
    at: datetime = job.read_at  # type: ignore[attr-defined]
    return at


def of_result(job: Job, column: str) -> Any:
    """None until an attempt has ended: there is no row before."""
    try:
        return getattr(job.result, column)
    except ObjectDoesNotExist:
        return None


def usage_text(usage: Any) -> str:
    """ "41 + 180": input and output, as the provider counted them; in both of OpenAI's spellings."""
    if not isinstance(usage, dict):
        return ""
    counts = (
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
    )
    return " + ".join(f"{tokens:,}" for tokens in counts if isinstance(tokens, int))


# The page.


def figures(job: Job) -> list[tuple[str, Any, str]]:
    """(what, how much, a word beside it): what changes while a job goes on, for the head of its page."""
    limit = _of_request(job, "max_cost_usd")
    told = [
        ("created", created(job), ""),
        ("waited", waited(job), ""),
        ("ran", ran(job), f"attempt {job.attempt}" if job.attempt else ""),
        ("finished", moment(job.finished_at), "") if job.finished_at else ("queued again", moment(job.available_at), "")
        if job.state == State.SCHEDULED else ("retried until", moment(job.retry_until), ""),
        ("failed attempts", f"{job.failures} of {job.max_attempts}", ""),
        ("tokens", tokens(job), f"estimated {count(job.est_input_tokens)} + {count(job.est_output_tokens)}"),
        ("cost", cost(job), f"estimated {usd(job.est_usd)}" + (f", at most {usd(limit)}" if limit is not None else "")),
    ]  # fmt: skip
    if job.expires_at:
        told.append(("expires", moment(job.expires_at), "unless it starts before"))
    return told


def failure(job: Job, *, with_words: bool) -> tuple[str, str]:
    """(code, class and attempt; the provider's words), or empty. The words may quote a prompt."""
    code = of_result(job, "error_code")
    if not code:
        return "", ""
    status_text = of_result(job, "provider_status")
    where = f"HTTP {status_text}, " if status_text else ""
    attempt = f"attempt {of_result(job, 'error_attempt')}"
    words = of_result(job, "error_message") or ""
    return f"{code} ({of_result(job, 'error_class')}; {where}{attempt})", words if with_words else ""


@display(description="public id")
def public_id(job: Job) -> SafeString:
    return format_html("<code>{}</code>", job.public_id)


@display(description="model")
def model(job: Job) -> SafeString:
    served = format_html("{} at {}", link_to(job.pool), link_to(job.pool.provider))
    return format_html("{}, served by {}", link_to(job.home), served) if job.home else served


@display(description="end user")
def end_user(job: Job) -> str:
    return _of_request(job, "user") or NOTHING


@display(description="idempotency key")
def idempotency_key(job: Job) -> str:
    return _of_request(job, "idempotency_key") or NOTHING


@display(description="prompt hash")
def prompt_hash(job: Job) -> str:
    return _of_request(job, "prompt_hash") or NOTHING


@display(description="metadata")
def metadata(job: Job) -> str | SafeString:
    pairs = _of_request(job, "metadata") or {}
    return format_html_join("", "<code>{}={}</code> ", sorted(pairs.items())) or NOTHING


@display(description="limits")
def limits(job: Job) -> str:
    an_attempt, retries = duration(timedelta(seconds=job.timeout_s)), duration(timedelta(seconds=job.retry_for_s))
    return f"{job.max_attempts} failures, {an_attempt} an attempt, retries for {retries}"


def _of_request(job: Job, column: str) -> Any:
    request = job.details.request  # type: ignore[attr-defined]
    return getattr(request, column) if request else None
