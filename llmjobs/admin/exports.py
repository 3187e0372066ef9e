"""An export as a download: written while it is sent, kept nowhere, bounded in memory.

Under ASGI Django would read a plain iterator to its end before it sends the first byte, so there the chunks come one
by one from the request's own thread. How many jobs were sent is written down at the end, or where the reader left.
"""

from collections.abc import AsyncIterator, Generator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from llmjobs.admin.pages import may_see_content
from llmjobs.exporting import lines
from llmjobs.models import Operation
from llmjobs.operation_verbs import EXPORT

TYPES = {"jsonl": "application/jsonl; charset=utf-8", "csv": "text/csv; charset=utf-8"}


def download(request: HttpRequest, operation: Operation) -> StreamingHttpResponse:
    """By a POST of who may export; with content, of who may see that too, now."""
    has_content = bool(operation.params.get("content"))
    if not request.user.has_perm(EXPORT.permission) or (has_content and not may_see_content(request)):
        raise PermissionDenied
    kind = operation.params["format"]
    chunks = _sent(operation, kind, has_content)
    body: Any = _one_by_one(chunks) if isinstance(request, ASGIRequest) else chunks
    name = f"jobs-{operation.pk}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(body, content_type=TYPES[kind], headers=headers)


def _sent(operation: Operation, kind: str, has_content: bool) -> Generator[bytes]:
    sent = 0
    try:
        for text, jobs in lines(operation.pk, format=kind, has_content=has_content):
            yield text.encode()
            sent += jobs
    finally:
        Operation.objects.filter(pk=operation.pk, changed__lt=sent).update(changed=sent)


async def _one_by_one(chunks: Generator[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := await sync_to_async(lambda: next(chunks, b""))():
            yield chunk
    finally:
        await sync_to_async(chunks.close)()
