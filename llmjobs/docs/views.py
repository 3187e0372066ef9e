"""The pages under `/docs/`: the contents, a page, the search.

Open to everybody who reaches the site: nothing here asks the database or knows who asks. What a page says differs by
the name that the site is called by alone, since its commands show that name. Invariant: every answer has an ETag and
may be kept, but is asked for again before it is shown.
"""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.cache import get_conditional_response
from django.utils.http import http_date
from django.views.decorators.http import require_safe

from llmjobs.docs import contents, library, searching
from llmjobs.docs.rendering import with_site

View = Callable[..., HttpResponse]


def _kept(view: View) -> Callable[..., HttpResponseBase]:
    """A browser keeps the answer, and asks whether it is still the same."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        response["ETag"] = library.tag(response.content)
        response["Cache-Control"] = "no-cache"
        return get_conditional_response(request, etag=response["ETag"], response=response) or response

    return answer


@require_safe
@_kept
def index(request: HttpRequest) -> HttpResponse:
    return _page(request, "index.html", {"sections": contents.SECTIONS})


@require_safe
@_kept
def page(request: HttpRequest, slug: str) -> HttpResponse:
    found = contents.BY_SLUG.get(slug)
    if found is None:
        raise Http404(f"no page of the documentation is called {slug!r}")
    served = library.served(found, site_of(request))
    before, after = contents.neighbours(found)
    context = {"page": found, "rendered": served.rendered, "before": before, "after": after}
    response = _page(request, "page.html", context)
    response["Last-Modified"] = _date(served.changed_at)
    return response


@require_safe
@_kept
def search(request: HttpRequest) -> HttpResponse:
    """`?q=`: a page of what was found, or with `&as=json` the same as data, for the field that answers at once."""
    question = request.GET.get("q", "").strip()
    found = searching.search(question, library.passages())
    results = [_shown(each, site_of(request)) for each in found]
    if request.GET.get("as") == "json":
        return JsonResponse({"object": "list", "data": results})
    return _page(request, "search.html", {"question": question, "results": results})


def site_of(request: HttpRequest) -> str:
    """Like https://llm.example.org; ALLOWED_HOSTS has judged the name."""
    return f"{request.scheme}://{request.get_host()}"


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    shared = {"sections": contents.SECTIONS, "api_docs": _address("llmjobs-api:docs"), "home": _address("index")}
    return render(request, f"llmjobs/docs/{template}", {**shared, **context})


def _address(name: str) -> str | None:
    """None where the host project has no such page."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return None


def _shown(found: searching.Found, site: str) -> dict[str, str]:
    heading = found.passage.heading
    anchor = f"#{heading.id}" if heading.level > 1 else ""
    address = library.address_of(found.page.slug) + anchor
    return {"title": found.title, "page": found.page.title, "url": address, "excerpt": with_site(found.excerpt, site)}


def _date(moment: datetime) -> str:
    return http_date(moment.timestamp())
