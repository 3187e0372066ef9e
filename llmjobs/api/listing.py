"""`GET /api/jobs`: the filters of its query string, and pages by key, newest first.

Owns the parameters and the cursor. Does not own whose jobs they are (`access.Caller`), nor how far a search looks
(walking.py). A page looks at `SCAN_MAX` jobs at most, however rare what is asked for: it may then be short, or empty,
and `next` goes on from there.
"""

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils.crypto import salted_hmac
from django.utils.dateparse import parse_datetime

from llmjobs.access import Caller
from llmjobs.api import walking
from llmjobs.api.incoming import parameters
from llmjobs.errors import InvalidRequest
from llmjobs.models import Client, Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.states import Priority, State

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
SCAN_MAX = 10_000  # about 20 ms; without it a filter that little meets reads a client's whole history
CLOCK_MARGIN = timedelta(minutes=1)  # ids follow created_at, but for statements that ran at the same time
METADATA = "metadata."
SEARCH_CHARS_MAX = 200
FIRST_MOMENT, LAST_MOMENT = datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Query:
    """`clients`: names, or None for all that the caller sees; `search`: words, or None."""

    filters: Q = field(default_factory=Q)
    clients: tuple[str, ...] | None = None
    search: str | None = None
    created_after: datetime | None = None
    before_id: int | None = None
    limit: int = LIMIT_DEFAULT


@dataclass(frozen=True, slots=True)
class Page:
    """`cursor`: of the next page, or None at the end. `searched_to`: how far a search looked; None: to the end."""

    jobs: list[Job]
    cursor: str | None
    searched_to: datetime | None = None


def parse(query: QueryDict) -> Query:
    """Raises InvalidRequest with `param`."""
    given = parameters(query, [*_FILTERS, "client", "search", "created_after", "cursor", "limit"], prefix=METADATA)
    filters = Q()
    for name, text in given.items():
        if name in _FILTERS:
            filters &= _FILTERS[name](name, text)
    metadata = {name.removeprefix(METADATA): text for name, text in given.items() if name.startswith(METADATA)}
    if metadata:
        filters &= Q(request__metadata__contains=metadata)
    return Query(
        filters=filters,
        clients=tuple(given["client"].split(",")) if "client" in given else None,
        search=_words(given["search"]) if "search" in given else None,
        created_after=_moment("created_after", given["created_after"]) if "created_after" in given else None,
        before_id=decode_cursor(given["cursor"]) if "cursor" in given else None,
        limit=_limit(given["limit"]) if "limit" in given else LIMIT_DEFAULT,
    )


def page(caller: Caller, query: Query) -> Page:
    """The jobs of a page, newest first."""
    jobs, client_ids = caller.jobs().select_related(*JOB_RELATED), _client_ids(caller, query.clients)
    if query.search is not None and (public_id := _public_id(query.search)) is not None:
        return _named(jobs, client_ids, query, public_id)
    if query.search is not None or (client_ids is not None and len(client_ids) > 1):
        return _walked(jobs, client_ids, query)
    if client_ids is not None:
        jobs = jobs.filter(client_id__in=client_ids)
    return _listed(jobs, query)


def _client_ids(caller: Caller, names: tuple[str, ...] | None) -> list[int] | None:
    """Whose jobs are asked for, of those that the caller sees; None: everybody's."""
    if caller.is_operator:
        return None if names is None else list(Client.objects.filter(name__in=names).values_list("pk", flat=True))
    return [client.pk for client in caller.clients if names is None or client.name in names]


def _listed(jobs: QuerySet[Job], query: Query) -> Page:
    """Of one client, or of all: a range of one index."""
    jobs = jobs.order_by("-id")
    if query.before_id is not None:
        jobs = jobs.filter(pk__lt=query.before_id)
    next_id = None
    if query.filters or query.created_after:
        floor = jobs.values_list("pk", "created_at")[SCAN_MAX : SCAN_MAX + 1].first()
        if floor is not None:
            floor_id, floor_at = floor
            jobs = jobs.filter(pk__gt=floor_id)
            if query.created_after is None or floor_at > query.created_after - CLOCK_MARGIN:
                next_id = floor_id + 1
        jobs = jobs.filter(query.filters)
    if query.created_after:
        jobs = jobs.filter(created_at__gt=query.created_after)
    found = list(jobs[: query.limit + 1])
    if len(found) > query.limit:
        found = found[: query.limit]
        next_id = found[-1].pk
    return Page(found, _cursor(next_id))


def _walked(jobs: QuerySet[Job], client_ids: list[int] | None, query: Query) -> Page:
    """Of several clients, or what has certain words."""
    wanted = query.filters
    if query.created_after:
        wanted &= Q(created_at__gt=query.created_after)

    def keep(ids: walking.Ids) -> walking.Ids:
        if wanted:
            ids = list(jobs.filter(wanted, pk__in=ids).order_by().values_list("pk", flat=True))
        return ids if query.search is None else walking.with_words(ids, query.search)

    walked = walking.walk(
        client_ids,
        keep,
        before_id=query.before_id,
        wanted=query.limit + 1,
        since=query.created_after and query.created_after - CLOCK_MARGIN,
    )
    ids, next_id, to = walked.found, walked.next_id, walked.to
    found = list(jobs.filter(pk__in=ids[: query.limit]).order_by("-id"))
    if len(ids) > query.limit:
        next_id, to = ids[query.limit - 1], found[-1].created_at if found else to
    return Page(found, _cursor(next_id), None if next_id is None else to)


def _named(jobs: QuerySet[Job], client_ids: list[int] | None, query: Query, public_id: UUID) -> Page:
    found = jobs.filter(query.filters, public_id=public_id)
    if query.created_after:
        found = found.filter(created_at__gt=query.created_after)
    return Page([job for job in found if client_ids is None or job.client_id in client_ids], None)


def _public_id(words: str) -> UUID | None:
    try:
        public_id = UUID(words)
    except ValueError:
        return None
    return public_id if str(public_id) == words.lower() else None


def _cursor(next_id: int | None) -> str | None:
    return None if next_id is None else encode_cursor(next_id)


def encode_cursor(before_id: int) -> str:
    """Opaque, because ids count every client's jobs; a tag over the id also is what hides it."""
    raw = before_id.to_bytes(8)
    tag = _mac("tag", raw)
    return base64.urlsafe_b64encode(tag + _xor(raw, _mac("mask", tag))).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> int:
    try:
        token = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        token = b""
    tag, masked = token[:8], token[8:]
    raw = _xor(masked, _mac("mask", tag))
    if len(token) != 16 or not hmac.compare_digest(tag, _mac("tag", raw)):
        raise InvalidRequest("expected `next` of an earlier answer", param="cursor", code="invalid_cursor")
    return int.from_bytes(raw)


def _mac(purpose: str, data: bytes) -> bytes:
    return salted_hmac(f"llmjobs.cursor.{purpose}", data, algorithm="sha256").digest()[:8]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=False))


def _words(text: str) -> str:
    words = text.strip(" ")
    if not 0 < len(words) <= SEARCH_CHARS_MAX:
        raise InvalidRequest(f"expected 1 to {SEARCH_CHARS_MAX} characters, got {len(words)}", param="search")
    return words


def _limit(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= LIMIT_MAX:
        return int(text)
    raise InvalidRequest(f"expected a whole number from 1 to {LIMIT_MAX}, got {text[:64]!r}", param="limit")


def _moment(name: str, text: str) -> datetime:
    """ISO 8601; without an offset it is UTC. A `+` that was not encoded arrives as a space, and is meant."""
    try:
        found = parse_datetime(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        found = None
    if found is None:
        raise InvalidRequest(f"expected a time such as 2026-01-31T12:00:00Z, got {text[:64]!r}", param=name)
    if not FIRST_MOMENT.year <= found.year <= LAST_MOMENT.year:  # at the ends of the calendar arithmetic overflows
        return FIRST_MOMENT if found.year < FIRST_MOMENT.year else LAST_MOMENT
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)  # Postgres knows offsets up to 15:59


def _states(name: str, text: str) -> Q:
    words = text.split(",")
    if unknown := set(words) - set(State):
        raise InvalidRequest(f"expected some of {', '.join(State)}, got {sorted(unknown)[0][:64]!r}", param=name)
    return Q(state__in=words)


def _priorities(name: str, text: str) -> Q:
    known = {key: p.value for p in Priority for key in (p.word, str(p.value))}
    words = text.split(",")
    if unknown := set(words) - set(known):
        raise InvalidRequest(f"expected some of {', '.join(known)}, got {sorted(unknown)[0][:64]!r}", param=name)
    return Q(priority__in=[known[word] for word in words])


def _models(name: str, text: str) -> Q:
    """Of the models that were asked for, whoever serves them."""
    names = text.split(",")
    return Q(home__name__in=names) | Q(home=None, pool__name__in=names)


_FILTERS: dict[str, Callable[[str, str], Q]] = {
    "status": _states,
    "model": _models,
    "priority": _priorities,
}
