"""Static files by whitenoise, as a middleware for ASGI.

Whitenoise's own middleware is synchronous: among the others it would hold a thread for every request for as long as
its answer takes, `?wait=60` included. And its answers are read by a synchronous iterator, which ASGI has to load
as a whole, with a warning. So here it only finds the files, and what it finds is answered as a whole.

Invariant: an answer has the length that it names. Whitenoise notes lengths when the server starts; of a file that was
changed since, as an upgrade in place does it, a browser would cut the end off, or wait for ever for the rest.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import Response

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


@sync_and_async_middleware
def static_files(get_response: GetResponse) -> GetResponse:
    files = WhiteNoiseMiddleware()

    def answer(request: HttpRequest) -> HttpResponseBase:
        return _find(files, request) or cast("HttpResponseBase", get_response(request))

    async def answer_async(request: HttpRequest) -> HttpResponseBase:
        response = None
        if request.path_info.startswith(files.static_prefix):  # a file is read: not in the event loop
            response = await sync_to_async(_find, thread_sensitive=False)(files, request)
        return response or await cast("Awaitable[HttpResponseBase]", get_response(request))

    return answer_async if iscoroutinefunction(get_response) else answer


def _find(files: WhiteNoiseMiddleware, request: HttpRequest) -> HttpResponse | None:
    find = files.find_file if files.autorefresh else files.files.get
    static_file = find(request.path_info)
    if static_file is None:
        return None
    try:
        found, body = _read(static_file.get_response(request.method, request.META))
        if not (is_as_it_was := _is_whole(found, body)):
            whole = {name: value for name, value in request.META.items() if name != "HTTP_RANGE"}
            found, body = _read(static_file.get_response(request.method, whole))
    except FileNotFoundError:
        return None
    response = HttpResponse(body, status=int(found.status))
    del response["Content-Type"]  # Django's default; whitenoise names one where there is one
    for name, value in found.headers:
        response[name] = value
    if not is_as_it_was:
        response["Content-Length"] = str(len(body))
        response["Cache-Control"] = "no-cache"
        del response["ETag"], response["Last-Modified"]
    return response


def _read(found: Response) -> tuple[Response, bytes]:
    if found.file is None:
        return found, b""
    with found.file:
        return found, found.file.read()


def _is_whole(found: Response, body: bytes) -> bool:
    """Whether the file still has the length that whitenoise noted when the server started."""
    return found.file is None or dict(found.headers)["Content-Length"] == str(len(body))
