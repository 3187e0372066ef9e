"""Finding jobs by what people have at hand: what may be typed into the search field, and what it is taken for.

Owns what each text may mean and by which index that is found; job_filters.py has the filters. Read-only. A text that
means several things finds the jobs of all. What no index serves (a provider's request id: an index on it would make
every settle write five) is looked for among the newest rows only, after everything else found nothing, and the page
says so. Words of errors may quote prompts: only who may see content searches them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Max, Q, QuerySet, TextField
from django.db.models.functions import Cast

from llmjobs.admin.filters import as_id, as_uuid
from llmjobs.admin.lists import TooSlow, time_limit
from llmjobs.models import Attempt, Client, Job, JobRequest, JobResult, Model
from llmjobs.states import DEAD_LETTERS

HELP = (
    "An id or its first 8 characters or more, a number, a client, a model, an end user, an idempotency key, an error "
    "code, a prompt's hash or its beginning, a provider's request id, or metadata as key=value. Exactly, but for "
    "words of errors."
)
FOUND_MAX = 1_000  # of jobs that are named one by one
LOOK_S = 0.15  # for each thing that the text may mean
NEWEST_JOBS = 100_000
NEWEST_ATTEMPTS = 200_000
NEWEST_ERRORS = 5_000
PREFIX = re.compile(r"[0-9a-f]{8,31}")
HASH = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")
SUFFIX = re.compile(r"[0-9a-f]{8,12}")


@dataclass(frozen=True, slots=True)
class Found:
    """`by` is what the text was taken for; `ids` where the jobs are named, newest first, else all those of `jobs`.

    `is_late`: there was no time to look.
    """

    by: str
    ids: list[int] | None = None
    jobs: Q | None = None
    is_late: bool = False

    @property
    def is_cut(self) -> bool:
        return self.ids is not None and len(self.ids) >= FOUND_MAX

    def condition(self) -> Q:
        return Q(pk__in=self.ids) if self.jobs is None else self.jobs

    def named(self) -> "Found":
        """As ids, so that several can be put together without a plan that walks through all jobs."""
        if self.ids is not None:
            return self
        try:
            with time_limit(LOOK_S, using=Job.objects.db):
                ids = Job.objects.filter(self.condition()).order_by("-pk").values_list("pk", flat=True)[:FOUND_MAX]
                return Found(self.by, list(ids))
        except TooSlow:
            return Found(self.by, [], is_late=True)


def search(queryset: QuerySet[Job], text: str, *, may_see_content: bool) -> tuple[QuerySet[Job], str]:
    """The jobs that `text` names, and a note for the page: what it was taken for, and how far was looked."""
    text = text.replace("\0", "").strip()
    if not text:
        return queryset, ""
    if public_id := as_uuid(text):
        return queryset.filter(public_id=public_id), ""
    meanings = [meaning for meaning in _meanings(text) if meaning is not None]
    looked_at = ""
    if all(meaning.is_late for meaning in meanings):
        more, looked_at = _looked_for(text, may_see_content=may_see_content)
        meanings += more
    if sum(not meaning.is_late for meaning in meanings) > 1:
        meanings = [meaning.named() for meaning in meanings]  # there may be no time for that either
    found = [meaning for meaning in meanings if not meaning.is_late]
    if late := [meaning.by for meaning in meanings if meaning.is_late]:
        looked_at += f" There was no time to look for {' and for '.join(late)}."
    if not found:
        return queryset.none(), f"Nothing is called exactly that.{looked_at}"
    if len(found) > 1:
        ids = {pk for meaning in found for pk in meaning.ids or ()}
        queryset = queryset.filter(pk__in=ids)
    else:
        queryset = queryset.filter(found[0].condition())
    return queryset, _note(found) + looked_at


def _note(found: list[Found]) -> str:
    note = f"Found by {' and by '.join(meaning.by for meaning in found)}."
    if cut := [meaning.by for meaning in found if meaning.is_cut]:
        note += f" Of those by {' and by '.join(cut)} the newest {FOUND_MAX:,}."
    return note


# By an index.


def _meanings(text: str) -> Iterator[Found | None]:
    """What `text` is the exact name of; each is asked for by its index."""
    if text.lower().startswith("sha256:"):
        yield _hash(text)
        return
    yield _ids("its idempotency key", _of_clients(idempotency_key=text[:255]))
    key, is_pair, value = text.partition("=")
    if is_pair:
        yield _metadata(key.strip(), value.strip())
        return
    if (number := as_id(text)) is not None:
        yield _ids("its number", Job.objects.filter(pk=number))
    digits, by_id = text.lower().replace("-", ""), None
    if PREFIX.fullmatch(digits):
        first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
        newest = Job.objects.filter(public_id__gte=first, public_id__lte=last).order_by("-public_id")
        by_id = _ids("the beginning of its id", newest)
        yield by_id
    if by_id is None:  # among ten thousand clients a hash is looked for in a tenth of a second: not for an id
        yield _hash(text)
    if client := Client.objects.filter(name=text).only("pk").first():
        yield Found("its client", jobs=Q(client=client))
    if model := Model.objects.filter(name=text).only("pk").first():
        yield Found("its model", jobs=Q(home=model) | Q(home=None, pool=model))
    if JobResult.objects.filter(error_code=text[:128]).exists():
        yield Found("its error code", jobs=Q(result__error_code=text[:128]))
    if JobRequest.objects.filter(user=text[:256]).exists():
        yield Found("its end user", jobs=Q(request__user=text[:256]))


def _hash(text: str) -> Found | None:
    if not (match := HASH.fullmatch(text.lower())):
        return None
    prefix = f"sha256:{match[1]}"
    return _ids("its prompt's hash", _of_clients(prompt_hash__gte=prefix, prompt_hash__lte=prefix + "g"))


def _of_clients(**wanted: str) -> QuerySet[Any]:
    """Over all clients, so that an index that begins with the client serves it: a probe a client."""
    return JobRequest.objects.filter(client__in=Client.objects.values("pk"), **wanted)


def _metadata(key: str, value: str) -> Found | None:
    """By an index of what metadata hold. What very many have is better walked to from the newest job on."""
    held = JobRequest.objects.exclude(metadata={}).filter(metadata__contains={key: value})  # as the index has it
    found = _ids("its metadata", held)
    if found is not None and found.is_cut:
        return Found("its metadata", jobs=Q(request__metadata__contains={key: value}))
    return found


def _ids(by: str, rows: QuerySet[Any], column: str = "pk") -> Found | None:
    try:
        with time_limit(LOOK_S, using=rows.db):
            ids = list(rows.values_list(column, flat=True)[:FOUND_MAX])
    except TooSlow:
        return Found(by, [], is_late=True)
    return Found(by, sorted(set(ids), reverse=True)) if ids else None


# Among the newest, where no index serves.


def _looked_for(text: str, *, may_see_content: bool) -> tuple[list[Found], str]:
    """What the first look finds, with those that there was no time for; and how far was looked."""
    late, looked = [], []
    for by, where, rows, column in _looks(text, may_see_content=may_see_content):
        found = _ids(by, rows.order_by("-pk"), column)
        if found is not None and not found.is_late:
            return [found], f" Looked at {where}."
        if found is not None:
            late.append(found)
        else:
            looked.append(where)
    return late, f" Looked at {'; at '.join(looked)}." if looked else ""


def _looks(text: str, *, may_see_content: bool) -> Iterable[tuple[str, str, QuerySet[Any], str]]:
    """(what it would be, where is looked, the rows, their column that names the job)."""
    if " " not in text:
        attempts = _newest(Attempt, NEWEST_ATTEMPTS).filter(provider_request_id=text[:255])
        yield "the provider's request id", f"the newest {NEWEST_ATTEMPTS:,} attempts", attempts, "job_id"
    digits = text.lower().replace("-", "").lstrip("…")
    if SUFFIX.fullmatch(digits):
        jobs = _newest(Job, NEWEST_JOBS).annotate(text=Cast("public_id", TextField())).filter(text__endswith=digits)
        yield "the end of its id", f"the newest {NEWEST_JOBS:,} jobs", jobs, "pk"
    if may_see_content:
        newest = Job.objects.filter(state__in=sorted(DEAD_LETTERS)).order_by("-pk").values("pk")[:NEWEST_ERRORS]
        worded = Job.objects.filter(pk__in=newest, result__error_message__icontains=text[:200])
        yield "words of its error", f"the newest {NEWEST_ERRORS:,} dead and failed jobs", worded, "pk"


def _newest(table: Any, number: int) -> QuerySet[Any]:
    most = table.objects.aggregate(most=Max("pk"))["most"] or 0
    found: QuerySet[Any] = table.objects.filter(pk__gt=most - number)
    return found
