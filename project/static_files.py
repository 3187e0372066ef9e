"""Static files by whitenoise, as a middleware for ASGI.

Whitenoise's own middleware is synchronous: among the others it would hold a thread for every request for as long as
its answer takes, `?wait=60` included. And its answers are read by a synchronous iterator, which ASGI has to load
as a whole, with a warning. So here it only finds the files, and what it finds is answered as a whole.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from whitenoise.middleware import WhiteNoiseMiddleware

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
    found = static_file.get_response(request.method, request.META)
    body = b""
    if found.file is not None:
        with found.file:
            body = found.file.read()
    response = HttpResponse(body, status=int(found.status))
    del response["Content-Type"]  # Django's default; whitenoise names one where there is one
    for name, value in found.headers:
        response[name] = value
    return response
