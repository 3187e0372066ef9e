"""Every knob of llmjobs in one table: name, type, default, bounds, and why.

Owns the names and the bounds. Does not own the values: a knob `lease_s` is the Django setting
`LLMJOBS_LEASE_S`, read when it is asked for, so that `override_settings` works; this site fills the settings
from environment variables of the same names.

    from llmjobs.conf import conf
    conf.lease_s

Invariant: what `conf` returns has the type and the bounds that the table gives (`checks.py` proves it of a
host's settings).
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

PREFIX = "LLMJOBS_"


@dataclass(frozen=True, slots=True)
class Knob:
    """`type` is int, float (takes an int too), bool or str; `least` and `most` are inclusive, and for numbers."""

    name: str
    type: type
    default: Any
    least: float
    most: float
    why: str

    @property
    def setting(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return "a text"
        return f"{'a whole number' if self.type is int else 'a number'} from {self.least:,} to {self.most:,}"

    def accepts(self, value: Any) -> bool:
        if self.type in (bool, str):
            return isinstance(value, self.type)
        numbers = (int,) if self.type is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and self.least <= value <= self.most

    def parse(self, text: str) -> Any:
        """The value that `text`, an environment variable's, stands for. Raises ValueError if none is accepted."""
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        value = words.get(text.strip().lower()) if self.type is bool else self.type(text.strip())
        if not self.accepts(value):
            raise ValueError(text)
        return value


MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
KIB, MIB = 1024, 1024 * 1024

# fmt: off
KNOBS: tuple[Knob, ...] = (
    # Leases: who may write to a running job, and how soon a dead worker's jobs are taken back.
    Knob("lease_s",                  float, 12,        2,    HOUR_S,       "Four heartbeats: one lost packet or a slow commit must not cost a paid call."),
    Knob("heartbeat_s",              float, 3,         0.1,  10 * MINUTE_S, "A quarter of the lease; one small UPDATE a worker."),
    Knob("reclaim_every_s",          float, 2,         0.1,  HOUR_S,       "A killed worker's jobs run again within lease_s + reclaim_every_s."),
    Knob("reclaim_grace_s",          float, 10,        0,    HOUR_S,       "A job this long past its timeout_s is taken back whatever its worker's heartbeat says."),

    # The worker's loops: each at its own pace, each with a bounded batch.
    Knob("poll_s",                   float, 0.5,       0.05, MINUTE_S,     "The net under NOTIFY: what a lost wake-up may cost."),
    Knob("sweep_every_s",            float, 2,         0.1,  HOUR_S,       "Late commits, due retries, expiries: how long they may wait to be seen."),
    Knob("full_sweep_every_s",       float, 60,        1,    DAY_S,        "For news of a process that stood still in mid-write; it walks all that no snapshot let go."),
    Knob("event_tick_ms",            int,   50,        5,    5_000,        "Deltas of all jobs in one INSERT; below what a reader of text notices."),
    Knob("settle_tick_ms",           int,   20,        1,    5_000,        "Settles collected into one commit; a slot is free only after it."),
    Knob("settle_batch_max",         int,   100,       1,    10_000,       "Bounds the locks of one settle."),
    Knob("claim_batch_max",          int,   100,       1,    1_000,        "Bounds how long the turnstile is held."),
    Knob("fold_rows_max",            int,   1_000,     100,  1_000_000,    "Inbox rows folded in one claim, so that a backlog of them gets done in steps."),
    Knob("drain_timeout_s",          float, 0,         0,    7 * DAY_S,    "How long a drain waits for running calls; 0: as long as the longest timeout_s among them."),

    # One provider call.
    Knob("connect_timeout_s",        float, 5,         0.1,  10 * MINUTE_S, "A provider that does not accept in this time is down; nothing was sent, so the retry is free."),
    Knob("first_token_timeout_s",    float, 60,        0.1,  HOUR_S,       "Long prompts and reasoning take tens of seconds before the first token."),
    Knob("between_tokens_timeout_s", float, 30,        0.1,  HOUR_S,       "A stream silent for this long is dead."),
    Knob("timeout_s",                float, 120,       1,    DAY_S,        "A whole attempt, where the job does not say."),
    Knob("timeout_max_s",            float, HOUR_S,    1,    DAY_S,        "The most that a job may ask for: it occupies a slot for so long."),
    Knob("output_max_bytes",         int,   16 * MIB,  KIB,  512 * MIB,    "A provider that never stops must not fill the worker's memory or the table."),

    # Retries: every job ends.
    Knob("max_attempts",             int,   5,         1,    100,          "Failures after which a job is dead, where it does not say."),
    Knob("max_attempts_max",         int,   20,        1,    100,          "The most that a job may ask for."),
    Knob("retry_for_s",              float, DAY_S,     1,    30 * DAY_S,   "Bounds all retries of a job together, free ones included."),
    Knob("retry_for_max_s",          float, 7 * DAY_S, 1,    30 * DAY_S,   "The most that a job may ask for."),
    Knob("backoff_base_s",           float, 1,         0.01, HOUR_S,       "Full jitter: a retry waits between 0 and base * 2^failures."),
    Knob("backoff_cap_s",            float, 300,       0.01, DAY_S,        "The longest wait between two tries."),
    Knob("retry_share",              float, 0.2,       0,    100,          "A model's retries, as a share of what it completes: a storm of them would keep it down."),
    Knob("retry_min_per_s",          float, 10,        0,    100_000,      "So many retries a second each model may have in any case."),

    # What a submit may carry.
    Knob("body_max_bytes",           int,   4 * MIB,   KIB,  256 * MIB,    "Larger than any model's context as text; more is answered with 413."),
    Knob("bulk_max_bytes",           int,   64 * MIB,  KIB,  1024 * MIB,   "The body of POST /api/jobs/bulk, kept on disk while it is read; each of its lines may have body_max_bytes."),
    Knob("bulk_lines_max",           int,   10_000,    1,    1_000_000,    "Lines of one POST /api/jobs/bulk: a few seconds' work; more is refused before any of it is taken."),
    Knob("messages_max",             int,   2_000,     1,    100_000,      "Bounds the validation of one request."),
    Knob("metadata_keys_max",        int,   16,        0,    1_000,        "As the OpenAI API has it."),
    Knob("metadata_key_chars_max",   int,   64,        1,    1_000,        "As the OpenAI API has it."),
    Knob("metadata_value_chars_max", int,   512,       1,    100_000,      "As the OpenAI API has it."),

    # Admission.
    Knob("backlog_max",              int,   1_000_000, 1,    1_000_000_000, "Jobs of all clients that wait at once, within 1 %; a client's own limits stand in its tier."),
    Knob("pools_per_client_max",     int,   100,       0,    1_000_000,    "Pools made on first use, where a provider takes any model: a client's typing errors are bounded."),
    Knob("lag_tokens",               float, 100_000,   0,    1e12,         "What a client that was paused or at its limit may catch up on, by its weight of 1."),
    Knob("default_rpm",              int,   500,       1,    100_000_000,  "Requests a minute of a model without a limit of its own."),
    Knob("default_tpm",              int,   30_000,    1,    1_000_000_000_000, "Tokens a minute of a model without a limit of its own."),

    # Rate limits.
    Knob("send_ahead_s",             float, 1,         0.1,  10,           "How far ahead a claim hands out times to send: longer costs fewer claims, and decides earlier who is next."),
    Knob("portfolio_z",              float, 2,         0,    10,           "The margin for tokens in flight, in standard deviations of their sum; 0: as the policy `expected`."),
    Knob("slow_down_ramp_s",         float, 60,        1,    DAY_S,        "A rate that a provider's slow_down has halved doubles again in this time."),
    Knob("breaker_strikes",          int,   3,         1,    1_000,        "So many refused keys in a row, with no answer between, stop a provider's jobs; a quota error does at once."),
    Knob("down_strikes",             int,   10,        1,    1_000,        "So many failed connections and server errors in a row, with no answer between, stop a provider's jobs."),
    Knob("probe_s",                  float, 30,        0.1,  HOUR_S,       "A stopped provider is tried with one call after this time, then after twice as long, and so on; one that is down six times as soon."),
    Knob("probe_max_s",              float, 600,       0.1,  DAY_S,        "The longest time between two such tries."),
    Knob("fallback_waiting_max",     int,   100,       1,    100_000,      "Jobs of a blocked model that wait at its fallback at once; the others stay, should it come back."),
    Knob("operator_webhook_url",     str,   "",        0,    0,            "Told when a provider's jobs are stopped, and when they go on, beside the e-mail to ADMINS; empty: nobody."),
    Knob("operator_webhook_secret",  str,   "",        0,    0,            "Signs these as Standard Webhooks (whsec_…); empty: they are not signed."),

    # What operators are told of, beside a provider's jobs that are stopped. Nothing of it changes what runs.
    Knob("watch_every_s",            float, 10,        1,    HOUR_S,       "How often one process of all looks whether something is wrong: some milliseconds."),
    Knob("alert_clear_s",            float, 60,        0,    DAY_S,        "What is gone for so long is over: who is told must not hear of each flicker."),
    Knob("backlog_target_s",         float, 300,       1,    30 * DAY_S,   "A job that waits longer is a backlog, where its tier has no target; four times that is critical."),
    Knob("alert_no_worker_s",        float, 60,        1,    DAY_S,        "Jobs wait that no worker serves, for so long: longer than a restart takes."),
    Knob("alert_blocked_s",          float, 120,       15,   6_000,        "A model's rate limit blocks it all that time while jobs wait: longer than a minute's window takes to pass."),
    Knob("alert_dead_letters",       int,   20,        1,    1_000_000,    "So many in ten minutes, and twice as many as usual, are a rise."),
    Knob("alert_webhooks",           int,   20,        1,    1_000_000,    "So many deliveries were given up within an hour, or were tried three times in vain."),
    Knob("alert_snapshot_s",         float, 300,       10,   DAY_S,        "A transaction that is open for so long keeps dead rows from being removed: every query gets slower."),
    Knob("site_url",                 str,   "",        0,    0,            "Where this site is, like https://llm.example.org: what operators are told has a link then; empty: it has a path."),

    # Estimates.
    Knob("short_output_tokens",      int,   256,       1,    1_000_000,    "Up to this many expected output tokens a job is `short`."),
    Knob("default_output_tokens",    int,   256,       1,    1_000_000,    "What an answer is expected to have before a client's settled jobs taught better."),

    # Who is told of a job's end.
    Knob("webhook_timeout_s",        float, 15,        0.1,  10 * MINUTE_S, "A receiver's answer is not waited for longer; it shall answer first, and work then."),
    Knob("webhook_retry_for_s",      float, DAY_S,     0,    30 * DAY_S,   "A receiver that is down for a night gets all that it missed; then a delivery counts as failed."),
    Knob("webhook_backoff_base_s",   float, 5,         0.01, HOUR_S,       "Full jitter: a retry waits between half and all of base * 2^tries."),
    Knob("webhook_backoff_cap_s",    float, HOUR_S,    0.01, DAY_S,        "The longest wait between two tries."),
    Knob("webhook_concurrency",      int,   32,        1,    1_000,        "Deliveries of a worker at once."),
    Knob("webhook_per_receiver",     int,   4,         1,    1_000,        "Of these, to one host: a slow one must not take them all."),
    Knob("webhook_allow_private",    bool,  False,     0,    0,            "Deliver to private, loopback and link-local addresses: for demos and closed networks alone."),
    Knob("webhook_secret_overlap_s", float, DAY_S,     0,    30 * DAY_S,   "A secret that was rotated signs beside the new one for so long."),
    Knob("handler_tries_max",        int,   20,        1,    1_000,        "A handler that raises is called again so often, then it is left to an operator."),

    # Retention.
    Knob("keep_jobs_days",           float, 30,        0,    36_500,       "Finished jobs, with all that belongs to them, are removed after that; 0: never. What was spent stays counted."),
    Knob("keep_bodies_days",         float, 0,         0,    36_500,       "Requests, outputs and events are removed sooner than their jobs; 0: with them."),
    Knob("prune_every_s",            float, 60,        0.1,  DAY_S,        "How often one worker looks for what is past its age."),
    Knob("prune_rows",               int,   500,       1,    10_000,       "Jobs removed in one transaction: its locks last milliseconds."),

    # Viewers.
    Knob("wait_max_s",               float, 60,        0,    HOUR_S,       "Longest ?wait=: below the idle timeout of common proxies."),
    Knob("sse_keepalive_s",          float, 15,        0.1,  10 * MINUTE_S, "A comment line so often keeps proxies from closing a quiet stream."),
    Knob("viewer_buffer_max",        int,   1_000,     1,    1_000_000,    "Events a slow viewer may lag behind before it is dropped; it can resume."),
    Knob("viewers_per_client_max",   int,   200,       1,    1_000_000,    "One client's viewers in one web process."),
    Knob("catchup_every_s",          float, 15,        0.1,  HOUR_S,       "A read without a wake-up: the net under NOTIFY for viewers."),

    # What users do for themselves, on the page or through the API.
    Knob("users_make_keys",          bool,  True,      0,    0,            "A client's users make and revoke its API keys; never an operator's. Off: only the admin does."),
    Knob("keys_per_client_max",      int,   50,        1,    100_000,      "Valid keys, with those made within a day, that a client may have when its users make another."),
    Knob("users_key_max_s",          float, 0,         0,    3650 * DAY_S, "The longest that a key which a user makes is valid; 0: as long as the user says, for ever too."),
    Knob("share_links",              bool,  True,      0,    0,            "Links that show one job to whoever has them. Off: none is made, and those that were made show nothing."),
    Knob("share_default_s",          float, 7 * DAY_S, 60,   3650 * DAY_S, "How long a link is valid, where who makes it does not say."),
    Knob("share_max_s",              float, 30 * DAY_S, 60,  3650 * DAY_S, "The longest that a link may be valid: what is forgotten ends by itself."),
    Knob("shares_per_job_max",       int,   20,        1,    1_000,        "Valid links of one job."),

    # Idempotency.
    Knob("idempotency_keep_s",       float, DAY_S,     60,   365 * DAY_S,  "How long a repeated Idempotency-Key finds the first job."),
    Knob("retry_join_s",             float, 900,       0,    DAY_S,        "How long an SDK's own retry of a post, equal and with the same API key, joins the first job; 0: it makes another."),

    # Where things are.
    Knob("listen_dsn",               str,   "",        0,    0,            "A direct DSN for LISTEN and the heartbeat, where DATABASE_URL goes through a pooler; empty: the same."),
    Knob("prepare_statements",       bool,  True,      0,    0,            "Plans are kept by session, which saves 2 to 10 ms a claim. false: DATABASE_URL goes through a PgBouncer older than 1.21."),
    Knob("metrics_token",            str,   "",        0,    0,            "Opens /metrics, as a bearer token; empty: only operators who are logged in may read it."),
    Knob("metrics_open",             bool,  False,     0,    0,            "Whoever reaches this site may read /metrics: for sites that only the inside reaches."),
    Knob("log_format",               str,   "line",    0,    0,            "Of this site's logs: `line` for people (key=value), `json` for machines (an object a line)."),
    Knob("provider_traceparent",     bool,  False,     0,    0,            "Tell providers of the trace that a call belongs to (traceparent): for servers of one's own."),
    Knob("provider_keys_env",        str,   "*_API_KEY", 0,    0,          "Names (patterns, by commas) of variables that a provider's api_key_env may name, or an operator could send out SECRET_KEY."),
    Knob("data_dir",                 str,   ".data",   0,    0,            "Where this site keeps the embedded Postgres and its secret key; relative to the checkout."),
    Knob("pg_bin",                   str,   "",        0,    0,            "The folder of the Postgres binaries for the embedded server; empty: looked for."),
)
# fmt: on

_BY_SETTING = {knob.setting: knob for knob in KNOBS}


class Conf:
    """Reads a knob when it is asked for: the setting if the project has it, else the default."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        knob = _BY_SETTING.get(PREFIX + name.upper())
        if knob is None or knob.name != name:
            raise AttributeError(f"llmjobs has no knob {name!r}{_suggestion(name, (k.name for k in KNOBS))}")
        return getattr(settings, knob.setting, knob.default)


conf = Conf()


def default(name: str) -> Any:
    """For the few who need a knob before there are settings."""
    return _BY_SETTING[PREFIX + name.upper()].default


def from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that the LLMJOBS_* variables of `environ` stand for, by their names.

    Raises ImproperlyConfigured for a name that is no knob, and for a value that is not of its type or out of
    bounds.
    """
    found = {}
    for name, text in environ.items():
        if not name.upper().startswith(PREFIX):
            continue
        knob = _BY_SETTING.get(name)
        if knob is None:
            raise ImproperlyConfigured(f"{name} is not a setting of llmjobs{_suggestion(name, _BY_SETTING)}")
        try:
            found[name] = knob.parse(text)
        except ValueError:
            raise ImproperlyConfigured(f"{name}: expected {knob.expected}, got {text!r}") from None
    return found


def flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A site's own yes or no. Raises ImproperlyConfigured for any other word, which must not pass for no."""
    text = environ.get(name, "")
    if not text:
        return default
    try:
        return bool(Knob(name, bool, default, 0, 0, "").parse(text))
    except ValueError:
        raise ImproperlyConfigured(f"{name}: expected true or false, got {text!r}") from None


def problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the LLMJOBS_* settings among `values`, a sentence each."""
    found = []
    for name, value in values.items():
        if not name.upper().startswith(PREFIX):
            continue
        knob = _BY_SETTING.get(name)
        if knob is None:
            found.append(f"{name} is not a setting of llmjobs{_suggestion(name, _BY_SETTING)}")
        elif not knob.accepts(value):
            found.append(f"{name}: expected {knob.expected}, got {value!r}")
    return found


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
