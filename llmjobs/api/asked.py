"""`GET /api/jobs/{id}/request`: what was submitted, in the words of a submit, so that it can be sent again.

Not told is where its end is to be told to: a URL may hold a token, and who may read a job need not know that.
"""

import json
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from llmjobs.api.schema import documented
from llmjobs.api.views import ApiView, find_job
from llmjobs.models import Job, JobRequest
from llmjobs.models.tenants import Scope
from llmjobs.states import Priority


class RequestView(ApiView):
    scopes = {"GET": Scope.READ, "HEAD": Scope.READ}

    @documented("get_job_request")
    def get(self, request: Request, job_id: str) -> HttpResponse:
        job = find_job(self.caller, job_id)
        asked: JobRequest | None = getattr(job, "request", None)
        if asked is None or not asked.body:
            raise NotFound("The request of this job was erased.", code="request_erased")
        return JsonResponse(_request_json(job, asked))


def _request_json(job: Job, asked: JobRequest) -> dict[str, Any]:
    cost_usd = asked.max_cost_usd
    return {
        "object": "job.request",
        "id": str(job.public_id),
        "endpoint": job.endpoint,
        "model": (job.home or job.pool).name,
        "body": json.loads(asked.body),
        "priority": Priority(job.priority).word,
        "options": {
            "timeout_s": job.timeout_s,
            "max_attempts": job.max_attempts,
            "retry_for_s": job.retry_for_s,
            "max_cost_usd": None if cost_usd is None else float(cost_usd),
            "on_interrupt": "keep" if job.keeps_partial else "restart",
            "user": asked.user,
        },
        "metadata": asked.metadata,
    }
