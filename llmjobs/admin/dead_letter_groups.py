"""Dead letters in groups: which there are, how many, since when, and what the newest of each says.

Reads only, by a fixed number of statements whatever there is. Owns what a filter means, as a query of the page, as a
condition of statements and as the jobs that an operation is about. Invariant: these three say the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from llmjobs.models import Client, DeadLetter, Job, JobResult, Model
from llmjobs.models.dead_letters import STATES
from llmjobs.sql import load

GROUPS_MAX = 50
HOURS = 24
WORDS_CHARS_MAX = 300
NO_CODE = "(none)"  # in a query: of those that have no error code, or class
SINCE = {"1h": timedelta(hours=1), "6h": timedelta(hours=6), "24h": timedelta(hours=24), "7d": timedelta(days=7)}
VALUE_CHARS_MAX = 300
PINNED = {"enable_hashagg": "off", "enable_seqscan": "off", "enable_bitmapscan": "off", "work_mem": "32MB"}


@dataclass(frozen=True, slots=True)
class Filter:
    """As the query has it, "" for any. `until` is no part of the page's: it keeps out what comes after a question."""

    error: str = ""
    error_class: str = ""
    state: str = ""
    model: str = ""
    client: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, query: Mapping[str, Any], *, prefix: str = "") -> "Filter":
        asked = {name: str(query.get(prefix + name, "")) for name in NAMES}
        return cls(**{name: text.replace("\0", "").strip()[:VALUE_CHARS_MAX] for name, text in asked.items()})

    def query(self, *, prefix: str = "") -> list[tuple[str, str]]:
        return [(prefix + name, getattr(self, name)) for name in NAMES if getattr(self, name)]

    def words(self) -> str:
        """In one line, for a history."""
        asked = replace(self, until="").query()
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asked) or "all"

    def conditions(self) -> dict[str, Any] | None:
        """Of the statements; a name that nobody has, or a time that is none, finds nothing: None."""
        pool = Model.objects.filter(name=self.model).only("pk").first() if self.model else None
        client = Client.objects.filter(name=self.client).only("pk").first() if self.client else None
        until = _moment(self.until)
        if (self.model and not pool) or (self.client and not client) or (self.until and not until):
            return None
        if (self.since and self.since not in SINCE) or (self.state and self.state not in dict(STATES)):
            return None
        return {
            "error": {"": None, NO_CODE: ""}.get(self.error, self.error),
            "class": {"": None, NO_CODE: ""}.get(self.error_class, self.error_class),
            "state": self.state or None,
            "pool": pool and pool.pk,
            "client": client and client.pk,
            "since": timezone.now() - SINCE[self.since] if self.since else None,
            "until": until,
        }

    def jobs(self) -> QuerySet[Job]:
        """Whose dead letters these are."""
        found = self.conditions()
        if found is None:
            return Job.objects.none()
        columns = {
            "error": "error_code", "class": "error_class", "state": "state", "pool": "pool_id", "client": "client_id",
            "since": "since__gte", "until": "since__lte",
        }  # fmt: skip
        asked = {columns[name]: value for name, value in found.items() if value is not None}
        return Job.objects.filter(pk__in=DeadLetter.objects.filter(**asked).values("job_id"))


NAMES = tuple(Filter.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Group:
    """`client`: "" where it is of several, of which there are `clients`. `hours`: the last 24, the oldest first."""

    error: str
    error_class: str
    state: str
    model: str
    client: str
    jobs: int
    clients: int
    first_at: datetime
    last_at: datetime
    newest: int
    hours: tuple[int, ...]
    words: str  # of the newest job's error; for who may see them

    def filter(self, within: Filter) -> Filter:
        return replace(
            within, error=self.error or NO_CODE, error_class=self.error_class or NO_CODE, state=self.state,
            model=self.model, client=self.client or within.client,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Groups:
    """The largest ones; `number` and `jobs` are of all that match. `read_at`: by the database's clock."""

    shown: Sequence[Group] = ()
    number: int = 0
    jobs: int = 0
    read_at: datetime | None = None


def groups(asked: Filter, *, by_client: bool, with_words: bool) -> Groups:
    conditions = asked.conditions()
    if conditions is None:
        return Groups()
    with transaction.atomic(), in_order_of_an_index():
        rows = _rows("dead_letter_groups", conditions | {"by_client": by_client}, groups=GROUPS_MAX)
    if not rows:
        return Groups()
    models = dict(Model.objects.filter(pk__in={row["pool_id"] for row in rows}).values_list("pk", "name"))
    clients = dict(Client.objects.filter(pk__in={row["client_id"] for row in rows}).values_list("pk", "name"))
    hours = _hours(rows, conditions, by_client=by_client)
    words = _words([row["newest"] for row in rows]) if with_words else {}
    shown = [
        Group(
            error=row["error_code"],
            error_class=row["error_class"],
            state=row["state"],
            model=models.get(row["pool_id"], ""),
            client=clients.get(row["client_id"], "") if by_client or row["clients"] == 1 else "",
            hours=hours[nth],
            words=words.get(row["newest"], ""),
            **{name: row[name] for name in ("jobs", "clients", "first_at", "last_at", "newest")},
        )
        for nth, row in enumerate(rows)
    ]
    return Groups(shown, rows[0]["groups"], rows[0]["total"], rows[0]["read_at"])


@contextmanager
def in_order_of_an_index() -> Iterator[None]:
    """Inside a transaction: what is grouped is read in its order, and neither hashed nor sorted."""
    told = "select set_config(name, setting, true) from unnest(%s::text[], %s::text[]) as t (name, setting)"
    with connection.cursor() as cursor:
        cursor.execute("select name, current_setting(name) from unnest(%s::text[]) as t (name)", [list(PINNED)])
        before = dict(cursor.fetchall())
        cursor.execute(told, [list(PINNED), list(PINNED.values())])
        yield
        cursor.execute(told, [list(before), list(before.values())])


def _hours(rows: Sequence[dict[str, Any]], conditions: dict[str, Any], *, by_client: bool) -> list[tuple[int, ...]]:
    columns = {
        "errors": "error_code", "classes": "error_class", "states": "state", "pools": "pool_id", "clients": "client_id",
    }  # fmt: skip
    params = {name: [row[column] for row in rows] for name, column in columns.items()}
    counts = [[0] * HOURS for _ in rows]
    for row in _rows("dead_letter_hours", params | conditions | {"by_client": by_client}):
        counts[row["nth"] - 1][HOURS - 1 - row["hours_ago"]] += row["jobs"]
    return [tuple(hours) for hours in counts]


def _words(job_ids: Sequence[int]) -> dict[int, str]:
    results = JobResult.objects.filter(pk__in=job_ids).values_list("pk", "error_message")
    return {pk: (message or "")[:WORDS_CHARS_MAX] for pk, message in results}


def _moment(text: str) -> datetime | None:
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return found if found is None or timezone.is_aware(found) else None


def _rows(statement: str, params: dict[str, Any], **literals: int) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(load(statement, **literals), params)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
