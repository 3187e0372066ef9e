"""`GET /metrics` for Prometheus.

Who may read it: it names models, and tells what all clients together spend. So nobody may by default but operators who
are logged in; a Prometheus is given a token (`LLMJOBS_METRICS_TOKEN`), which opens nothing else. Where only the inside
reaches this site, `LLMJOBS_METRICS_OPEN` says so; DEBUG means it too.

A reading serves all who ask within KEPT_S, so that a flood of scrapes costs one. When the database is away the answer
is 503: a scrape that failed, which is what an alert looks for (`up == 0`), and no stale numbers.
"""

import hmac
import logging

from django.conf import settings
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from llmjobs.conf import conf
from llmjobs.monitoring.families import Page
from llmjobs.monitoring.keeping import Kept
from llmjobs.monitoring.reading import read
from llmjobs.time_limits import TooSlow

logger = logging.getLogger("llmjobs.monitoring")

KEPT_S = 5.0  # less than any scrape interval that makes sense
PLAIN = "text/plain; charset=utf-8"


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    if not _may_read(request):
        words = "Expected the token of LLMJOBS_METRICS_TOKEN as a bearer token, or staff who may see jobs.\n"
        return _answer(words.encode(), PLAIN, 401, {"WWW-Authenticate": 'Bearer realm="metrics"'})
    page = _page.get()
    if isinstance(page, Away):
        return _answer(b"The database can't be read just now.\n", PLAIN, 503, {"Retry-After": "5"})
    return _answer(*page.text(request.headers.get("Accept", "")), 200)


def _may_read(request: HttpRequest) -> bool:
    if settings.DEBUG or conf.metrics_open:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme:  # no look at the database for one who guesses
        expected = conf.metrics_token.encode()
        is_right = hmac.compare_digest(token.strip().encode(errors="replace"), expected)
        return bool(expected) and scheme.lower() == "bearer" and is_right
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.is_staff and user.has_perm("llmjobs.view_job")


def _answer(body: bytes, content_type: str, status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    response = HttpResponse(body, status=status, content_type=content_type, headers=headers)
    response["Cache-Control"] = "no-store"
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would mail each 503 to ADMINS
    return response


class Away:
    """The database could not be read: kept like a reading, so that a flood does not wait for it either."""


def _read() -> Page | Away:
    try:
        return Page(read())
    except (DatabaseError, TooSlow) as error:
        logger.warning("event=metrics_not_read reason=%s", error)
        return Away()


_page: Kept[Page | Away] = Kept(_read, for_s=KEPT_S)
