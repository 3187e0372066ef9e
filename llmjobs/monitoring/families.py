"""A reading as families of metrics, in Prometheus's text format or OpenMetrics. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as PLAIN
from prometheus_client.exposition import generate_latest as plain
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.registry import Collector

from llmjobs import __version__
from llmjobs.histograms import Histogram
from llmjobs.models.incidents import Kind as IncidentKind
from llmjobs.monitoring.catalogue import METRICS
from llmjobs.monitoring.catalogue import Metric as Described
from llmjobs.monitoring.reading import Pool, Reading
from llmjobs.states import TERMINAL
from llmjobs.tallies import OTHERS, Total

OPENMETRICS_NAME = "application/openmetrics-text"
ENDS = sorted(state.value for state in TERMINAL)
Values = Mapping[tuple[str, ...], float]  # by the values of its labels, in their order


class Page(Collector):
    """What a reading comes to, written once in each format that somebody asks for."""

    def __init__(self, reading: Reading) -> None:
        self._families = families(reading)
        self._texts: dict[str, bytes] = {}

    def text(self, accept: str) -> tuple[bytes, str]:
        """And its content type. The plain format, unless the Accept header knows OpenMetrics."""
        encode, content_type = (openmetrics, OPENMETRICS) if OPENMETRICS_NAME in accept else (plain, PLAIN)
        if content_type not in self._texts:
            self._texts[content_type] = encode(self)
        return self._texts[content_type], content_type

    def collect(self) -> Sequence[Metric]:
        return self._families


def families(reading: Reading) -> list[Metric]:
    values = {**_of_queue(reading), **_of_totals(reading), **_of_pools(reading.pools), **_of_rest(reading)}
    histograms = _histograms(reading)
    return [
        _histogram(metric, histograms[metric.name])
        if metric.kind == "histogram"
        else _plain(metric, values[metric.name])
        for metric in METRICS
    ]


def _plain(metric: Described, values: Values) -> Metric:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Described, histograms: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, histogram in histograms.items():
        buckets = [("+Inf" if le_s == inf else f"{le_s:g}", number) for le_s, number in histogram.cumulative()]
        family.add_metric(labels, buckets=buckets, sum_value=histogram.sum_s)
    return family


def _of_queue(reading: Reading) -> dict[str, Values]:
    return {
        "llmjobs_jobs": {(tier.name, s): float(getattr(tier, s)) for tier in reading.tiers for s in WAITING},
        "llmjobs_oldest_wait_seconds": {(tier.name,): tier.oldest_s or 0.0 for tier in reading.tiers},
        "llmjobs_oldest_wait_target_seconds": {(name,): target_s for name, target_s in reading.targets_s.items()},
        "llmjobs_tier_weight": {(tier.name,): tier.weight for tier in reading.tiers},
    }


WAITING = ("queued", "scheduled", "running")
JOBS = {
    "submitted": "llmjobs_jobs_submitted_total", "started": "llmjobs_jobs_started_total",
    "retried": "llmjobs_retries_total",
}  # fmt: skip
ATTEMPTS = {"rate_limited": "llmjobs_rate_limited_total", "lost": "llmjobs_leases_lost_total"}
ENDED, ATTEMPTED = "llmjobs_jobs_ended_total", "llmjobs_attempts_total"
USED: dict[str, Callable[[Total], float]] = {
    "llmjobs_input_tokens_total": lambda total: total.input_tokens,
    "llmjobs_output_tokens_total": lambda total: total.output_tokens,
    "llmjobs_cost_usd_total": lambda total: float(total.usd),
}


def _of_totals(reading: Reading) -> dict[str, Values]:
    """What happened. What is rare begins at 0, or its first time would be missed by who looks at increases.

    Of a tier or model that is gone nothing is told: its counters end.
    """
    found: dict[str, Counter[tuple[str, ...]]] = {
        name: Counter() for name in (*JOBS.values(), *ATTEMPTS.values(), *USED, ENDED, ATTEMPTED)
    }
    for total in reading.totals.counts:
        if not total.tier or not total.model:
            continue
        key = (total.tier, total.model)
        for name in (*JOBS.values(), *ATTEMPTS.values()):
            found[name][key] += 0
        for state in ENDS:
            found[ENDED][(*key, state)] += 0
        if total.of == "attempt":
            found[ATTEMPTED][(*key, total.word)] += total.number
            for name, used in USED.items():
                found[name][key] += used(total)  # type: ignore[assignment]  # a Counter adds floats too
        known = (JOBS if total.of == "job" else ATTEMPTS).get(total.word)
        if known is not None:
            found[known][key] += total.number
        elif total.of == "job":
            found[ENDED][(*key, total.word)] += total.number
        if total.word == "retried":  # a start like any other
            found[JOBS["started"]][key] += total.number
    return dict(found)


def _of_pools(pools: Sequence[Pool]) -> dict[str, Values]:
    def by(value: str, *, named: bool = False) -> Values:
        return {
            (pool.name or OTHERS,): float(found)
            for pool in pools
            if (found := getattr(pool, value)) is not None and (pool.name or not named)
        }

    return {
        "llmjobs_model_queued_jobs": by("queued"),
        "llmjobs_model_running_jobs": by("running"),
        "llmjobs_model_requests_total": by("requests"),
        "llmjobs_model_rpm_limit": by("rpm", named=True),
        "llmjobs_model_rpm_used": by("used_rpm", named=True),
        "llmjobs_model_tpm_limit": by("tpm", named=True),
        "llmjobs_model_tpm_used": by("used_tpm", named=True),
        "llmjobs_model_paused": by("is_paused", named=True),
        "llmjobs_model_blocked": {(pool.name, pool.blocked_by): 1.0 for pool in pools if pool.name and pool.blocked_by},
    }


def _of_rest(reading: Reading) -> dict[str, Values]:
    rest = reading.rest
    return {
        "llmjobs_dead_letters": {(): rest["dead_letters"]},
        "llmjobs_claims_paused": {(): float(rest["is_paused"])},
        "llmjobs_workers": {(state,): rest[f"workers_{state}"] for state in ("living", "draining", "lost")},
        "llmjobs_worker_slots": {(): rest["slots"]},
        "llmjobs_worker_slots_used": {(): float(sum(tier.running for tier in reading.tiers))},
        "llmjobs_worker_heartbeat_age_seconds": _known(rest["heartbeat_s"]),
        "llmjobs_webhook_deliveries": {(state,): rest[f"deliveries_{state}"] for state in ("pending", "failed")},
        "llmjobs_webhook_overdue_seconds": {(): rest["deliveries_overdue_s"] or 0.0},
        "llmjobs_handler_calls": {(state,): rest[f"calls_{state}"] for state in ("pending", "dead")},
        "llmjobs_incidents_open": {(kind,): rest["incidents"].get(kind, 0) for kind in IncidentKind.values},
        "llmjobs_oldest_snapshot_seconds": {(): rest["oldest_snapshot_s"] or 0.0},
        "llmjobs_build_info": {(__version__,): 1.0},
        "llmjobs_reading_seconds": {(): reading.took_s},
    }


def _known(value: float | None) -> Values:
    return {} if value is None else {(): value}


MEASURES = {
    "wait": "llmjobs_wait_seconds", "run": "llmjobs_run_seconds", "first_token": "llmjobs_first_token_seconds",
}  # fmt: skip


def _histograms(reading: Reading) -> dict[str, dict[tuple[str, ...], Histogram]]:
    found: dict[str, dict[tuple[str, ...], Histogram]] = {name: defaultdict(Histogram) for name in MEASURES.values()}
    for time in reading.totals.times:
        if time.tier and time.model:
            of, numbers = found[MEASURES[time.measure]][time.tier, time.model], time.histogram.numbers
            of.add((le_s, number, time.histogram.sums_s[le_s]) for le_s, number in numbers.items())
    return found
