"""The site's addresses, and `/bare`: what POST /api/jobs is measured beside, in the same process.

A bare view is what DRF's tutorial would have here, less all that can be left out: no authentication, no permission, no
serializer; JSON in, one row by the ORM in autocommit, JSON out. Server, middleware and connection pool are the site's.
As at any site, Django's own handler answers it.
"""

from typing import Any

from django.db import models
from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

TABLE = "create table bench_row (id bigserial primary key, body jsonb not null, created_at timestamptz not null)"


class Row(models.Model):
    body: Any = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "bench"
        db_table = "bench_row"
        managed = False


class Bare(APIView):
    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request) -> Response:
        row = Row.objects.create(body=request.data)
        return Response({"id": row.pk, "created_at": row.created_at}, status=201)


# Under `api/` it takes the API's own road to a thread (project/one_hop.py), which another site's view has not.
urlpatterns = [path("bare", Bare.as_view()), path("api/bare", Bare.as_view()), path("", include("project.urls"))]
