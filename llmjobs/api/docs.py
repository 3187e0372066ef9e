"""`/api/schema` and `/api/docs`: the description of the API, and a page to read and try it, from this server
alone.

Both are public, as they say nothing of anybody's jobs. They describe this API alone: what else a host project serves
with DRF, and how it has that described (SPECTACULAR_SETTINGS), is its own. The page keeps the site's policy of no
inline script and no inline style; Swagger UI draws its icons as data: images, so this one page allows those.
"""

from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, include, path, reverse
from django.views.decorators.http import require_safe
from drf_spectacular.settings import patched_settings
from drf_spectacular.views import SpectacularAPIView

from llmjobs import __version__
from llmjobs.api.errors import exception_handler
from llmjobs.api.schema import Generator

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)


class CachedGenerator(Generator):
    """The schema is the same for everybody, and takes a tenth of a second: it is made once a process."""

    def get_schema(self, request: Any = None, public: bool = False) -> dict[str, Any]:
        return _generated()


SETTINGS = {
    "TITLE": "llmjobs",
    "DESCRIPTION": "LLM calls as jobs: submit, follow live, cancel.",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.0",
    "EXTERNAL_DOCS": {},
    "PREPROCESSING_HOOKS": [],
    "POSTPROCESSING_HOOKS": [],
}


@cache
def _generated() -> dict[str, Any]:
    mounted_at = reverse("llmjobs-api:jobs").removesuffix("jobs").removeprefix("/")
    with patched_settings(SETTINGS | _external_docs()):
        generator = Generator(patterns=[path(mounted_at, include("llmjobs.api.urls"))])
        return generator.get_schema(request=None, public=True)


def _external_docs() -> dict[str, Any]:
    """Where the project has the documentation too."""
    try:
        url = reverse("llmjobs-docs:index")
    except NoReverseMatch:
        return {}
    return {"EXTERNAL_DOCS": {"url": url, "description": "Documentation: quick start, concepts, how-to, operating"}}


class SchemaView(SpectacularAPIView):
    generator_class = CachedGenerator
    authentication_classes = []
    permission_classes = []
    throttle_classes = []
    versioning_class = None
    schema = None  # it does not describe itself

    def get_exception_handler(self) -> Any:
        return exception_handler


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    response = render(request, "llmjobs/api_docs.html")
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response
