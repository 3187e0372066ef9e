"""Every metric that /metrics tells: name, type, labels, and what it means. The one place that names them.

Units are base units, counters end in _total. Labels are tiers, models and words of fixed lists, never clients: a label
without a bound is what takes a Prometheus down. Models are bounded too (reading.MODELS_MAX).
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` as queries use it, but for the _bucket, _sum and _count of a histogram."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


TIER, MODEL, BOTH = ("tier",), ("model",), ("tier", "model")

METRICS = (
    # The queue.
    Metric(
        "llmjobs_jobs",
        "gauge",
        ("tier", "state"),
        "Jobs that are queued, scheduled (for a retry or a later time) or running.",
    ),
    Metric(
        "llmjobs_oldest_wait_seconds",
        "gauge",
        TIER,
        "For how long the oldest queued job has waited; 0: none is queued.",
    ),
    Metric("llmjobs_oldest_wait_target_seconds", "gauge", TIER, "What it may be: the tier's backlog target."),
    Metric("llmjobs_tier_weight", "gauge", TIER, "What the tier's share goes by."),
    Metric(
        "llmjobs_dead_letters",
        "gauge",
        (),
        "Dead and failed jobs that nobody discarded or requeued; counted up to 100,000.",
    ),
    Metric("llmjobs_claims_paused", "gauge", (), "1: an operator has paused all claims."),
    # What happened, since tallies are kept.
    Metric("llmjobs_jobs_submitted_total", "counter", BOTH, "Jobs submitted."),
    Metric("llmjobs_jobs_started_total", "counter", BOTH, "Claims: an attempt each."),
    Metric("llmjobs_jobs_ended_total", "counter", ("tier", "model", "state"), "Jobs that ended, by their end."),
    Metric("llmjobs_retries_total", "counter", BOTH, "Attempts after a failure of their job."),
    Metric(
        "llmjobs_attempts_total",
        "counter",
        ("tier", "model", "outcome"),
        "Attempts that ended, by outcome; rate_limited: rejected with a 429.",
    ),
    Metric("llmjobs_rate_limited_total", "counter", BOTH, "Attempts that the provider answered with a 429."),
    Metric("llmjobs_leases_lost_total", "counter", BOTH, "Attempts whose worker was lost."),
    Metric("llmjobs_input_tokens_total", "counter", BOTH, "Input tokens of attempts."),
    Metric("llmjobs_output_tokens_total", "counter", BOTH, "Output tokens of attempts."),
    Metric("llmjobs_cost_usd_total", "counter", BOTH, "What attempts cost, in dollars, where prices are known."),
    Metric("llmjobs_wait_seconds", "histogram", BOTH, "From when a job might have started until it was claimed."),
    Metric(
        "llmjobs_first_token_seconds",
        "histogram",
        BOTH,
        "From the send until the first token, of attempts that completed.",
    ),
    Metric("llmjobs_run_seconds", "histogram", BOTH, "From the send until the end, of attempts that completed."),
    # Models and their limits.
    Metric("llmjobs_model_queued_jobs", "gauge", MODEL, "Jobs queued for the model."),
    Metric("llmjobs_model_running_jobs", "gauge", MODEL, "Calls of the model in flight."),
    Metric("llmjobs_model_requests_total", "counter", MODEL, "Requests that were reserved from the model's limit."),
    Metric(
        "llmjobs_model_rpm_limit",
        "gauge",
        MODEL,
        "Requests a minute in force: configured, or less where the provider says so.",
    ),
    Metric("llmjobs_model_rpm_used", "gauge", MODEL, "Requests of the last minute."),
    Metric("llmjobs_model_tpm_limit", "gauge", MODEL, "Tokens a minute in force."),
    Metric("llmjobs_model_tpm_used", "gauge", MODEL, "Tokens of the last minute."),
    Metric("llmjobs_model_paused", "gauge", MODEL, "1: an operator has paused the model or its provider."),
    Metric(
        "llmjobs_model_blocked",
        "gauge",
        ("model", "reason"),
        "1: its calls are stopped: by its rate limit, or by a breaker (provider_quota, provider_auth, provider_down).",
    ),
    # Workers, and who is told of ends.
    Metric(
        "llmjobs_workers",
        "gauge",
        ("state",),
        "Worker processes: living, draining, lost (a heartbeat that is too old; for an hour).",
    ),
    Metric("llmjobs_worker_slots", "gauge", (), "Slots of the workers that live or drain."),
    Metric("llmjobs_worker_slots_used", "gauge", (), "Of these, in use: running jobs."),
    Metric("llmjobs_worker_heartbeat_age_seconds", "gauge", (), "The oldest heartbeat of a worker that is not lost."),
    Metric(
        "llmjobs_webhook_deliveries",
        "gauge",
        ("state",),
        "Webhook deliveries that are pending or failed; counted up to 100,000.",
    ),
    Metric("llmjobs_webhook_overdue_seconds", "gauge", (), "By how much the delivery that waits longest is late."),
    Metric(
        "llmjobs_handler_calls",
        "gauge",
        ("state",),
        "Calls of the host's handlers that are pending or dead; counted up to 100,000.",
    ),
    # What operators are told of.
    Metric("llmjobs_incidents_open", "gauge", ("kind",), "Open incidents."),
    Metric(
        "llmjobs_oldest_snapshot_seconds",
        "gauge",
        (),
        "Age of the oldest transaction with a snapshot: it keeps dead rows in all tables.",
    ),
    # Of the scrape itself.
    Metric("llmjobs_build_info", "gauge", ("version",), "1."),
    Metric("llmjobs_reading_seconds", "gauge", (), "How long reading all this from the database took."),
)
