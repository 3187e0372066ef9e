"""`GET /api/usage?month=2026-11`: the usage of a client in a month (`usage.py`)."""

import re
from datetime import date

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from llmjobs import usage
from llmjobs.api.authentication import client_of
from llmjobs.api.schema import documented
from llmjobs.api.views import ApiView
from llmjobs.errors import InvalidRequest
from llmjobs.models.tenants import Scope

MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])", re.ASCII)


class UsageView(ApiView):
    scopes = {"GET": Scope.READ, "HEAD": Scope.READ}
    query_parameters = {"GET": ("month",), "HEAD": ("month",)}

    @documented("get_usage")
    def get(self, request: Request) -> HttpResponse:
        month = _month(request.query_params["month"]) if "month" in request.query_params else None
        return JsonResponse(usage.of_month(client_of(self.caller), month))


def _month(text: str) -> date:
    found = MONTH.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"expected a month such as 2026-11, got {text[:64]!r}", param="month")
    return date(int(found[1]), int(found[2]), 1)
