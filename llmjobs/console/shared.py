"""`/shared/<token>/`: one job, read-only, for whoever has the link.

Owns the page and what it asks for while the job goes on. Does not own what a link shows nor for how long
(`sharing.py`). Nobody is asked who he is: no session is read and no cookie set. Invariant: a link that is unknown, over
or revoked has one answer, and no answer is kept by a cache, found by a search engine, or told to another site.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps

from django.db import Error
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from llmjobs import sharing
from llmjobs.models.tenants import hash_key
from llmjobs.sharing import Shared
from llmjobs.states import State

HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}
SAFE = ("GET", "HEAD")
RETRY_AFTER_S = 2
KEPT_S = 1.0  # a link that many watch costs one reading a second
KEPT_MAX = 64
NUMBER_CHARS_MAX = 10

View = Callable[[HttpRequest, str], HttpResponseBase]


def _private(view: View) -> View:
    """Whatever goes wrong is told here: Django would log a refusal with the address, which has the token in it."""

    @csrf_exempt  # what changes nothing is not asked for a token; the check would log the address, too
    @wraps(view)
    def answer(request: HttpRequest, token: str) -> HttpResponseBase:
        try:
            response = view(request, token) if request.method in SAFE else HttpResponseNotAllowed(SAFE)
        except Error:
            response = _page(request, None, status=503)
            response["Retry-After"] = str(RETRY_AFTER_S)
        for name, value in HEADERS.items():
            response[name] = value
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    return answer


@_private
def page(request: HttpRequest, token: str) -> HttpResponse:
    shared = sharing.shown(token)
    return _page(request, shared, status=200 if shared else 404)


@_private
def text(request: HttpRequest, token: str) -> HttpResponse:
    """What was written since: `?epoch=` and `?length=` of the answer before. Of another epoch all of it."""
    shared = _latest(token)
    if shared is None:
        return JsonResponse({"is_over": True}, status=404)
    seen = _number(request, "length") if _number(request, "epoch") == shared.epoch else 0
    is_whole = not 0 < seen <= len(shared.text)
    return JsonResponse({
        "epoch": shared.epoch,
        "length": len(shared.text),
        "is_whole": is_whole,
        "text": shared.text if is_whole else shared.text[seen:],
        "standing": standing(shared),
        "is_over": shared.is_terminal,
    })  # fmt: skip


def standing(shared: Shared) -> str:
    """In words for who knows nothing of queues; of an answer that is whole none."""
    if shared.status == State.COMPLETED:
        return ""
    if shared.is_terminal:
        return _("It ended without a whole answer.")
    return _("The answer is being written…") if shared.status == State.RUNNING else _("It waits to start…")


def _page(request: HttpRequest, shared: Shared | None, *, status: int) -> HttpResponse:
    context = {"shared": shared, "standing": shared and standing(shared), "is_away": status == 503}
    return render(request, "shared.html", context, status=status)


def _number(request: HttpRequest, name: str) -> int:
    given = request.GET.get(name, "")
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= NUMBER_CHARS_MAX else 0


_kept: OrderedDict[str, tuple[float, Shared]] = OrderedDict()  # by the hash of its token
_lock = threading.Lock()


def _latest(token: str) -> Shared | None:
    """As of KEPT_S ago at most, while the job goes on."""
    key, now_s = hash_key(token), time.monotonic()
    with _lock:
        until_s, shared = _kept.get(key, (0.0, None))
    if shared is not None and now_s < until_s:
        return shared
    shared = sharing.shown(token, with_messages=False)
    with _lock:
        _kept.pop(key, None)
        if shared is not None and not shared.is_terminal:
            _kept[key] = (now_s + KEPT_S, shared)
            while len(_kept) > KEPT_MAX:
                _kept.popitem(last=False)
    return shared
