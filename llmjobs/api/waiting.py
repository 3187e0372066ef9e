"""`GET /api/jobs/{id}?wait=30`: the one route that waits, as a coroutine around the plain view.

Owns the wait, not the answer: the view is asked, and asked again when the job is terminal or the time is
over, with the key checked both times. Invariant: in between the request holds no database connection and no
thread, so that thousands may wait in one process.
"""

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from llmjobs import events
from llmjobs.api.views import JobView

_job = JobView.as_view()


@csrf_exempt  # as DRF's views are: a session is checked by its authentication
@transaction.non_atomic_requests  # a project's ATOMIC_REQUESTS is for views that are no coroutines
async def job(request: HttpRequest, job_id: str) -> HttpResponseBase:
    answer = sync_to_async(_job)
    response: HttpResponseBase = await answer(request, job_id)
    waits_for: tuple[int, float] | None = getattr(response, "waits_for", None)
    if waits_for is None:
        return response
    await let_thread_go()
    await events.wait_terminal(*waits_for)
    return await answer(request, job_id)


# For the schema, which asks a URL's callback for its DRF view.
job.cls, job.initkwargs = JobView, {}  # type: ignore[attr-defined]


async def let_thread_go() -> None:
    """Close this request's connections and end its thread; the next synchronous call makes both anew.

    Under ASGI each request in progress has a thread of its own for synchronous code, which asgiref keeps
    until the request ends.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or context not in SyncToAsync.context_to_thread_executor:
        return  # under WSGI, or a test client: the thread is the caller's
    await sync_to_async(connections.close_all)()
    SyncToAsync.context_to_thread_executor.pop(context).shutdown(wait=False)
