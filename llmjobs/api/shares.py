"""`/api/jobs/{id}/shares`: links that show a job to whoever has them (`sharing.py`), made, listed, revoked.

A link's address is in one answer, to the POST that made it. Who makes or revokes one may read the job and change it:
to show a job to the world is more than to read it.
"""

from typing import Any

from django.http import HttpResponse, JsonResponse
from django.urls import NoReverseMatch, reverse
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.request import Request

from llmjobs import sharing
from llmjobs.api.incoming import read_json_object
from llmjobs.api.keys import lasting
from llmjobs.api.me import may_share
from llmjobs.api.schema import documented
from llmjobs.api.views import ApiView, base_url, find_job, find_to_steer
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, NotAllowed
from llmjobs.models import Job, SharedLink
from llmjobs.models.tenants import Scope
from llmjobs.representation import time_json

ID_CHARS = 24  # of the hash of the token: numbers would tell how many links there are


class SharesView(ApiView):
    scopes = {"GET": Scope.READ, "HEAD": Scope.READ, "POST": Scope.CANCEL}

    @documented("list_job_shares")
    def get(self, request: Request, job_id: str) -> HttpResponse:
        links = sharing.links_of(find_job(self.caller, job_id))
        return JsonResponse({"object": "list", "data": [_link_json(link) for link in links]})

    @documented("share_job")
    def post(self, request: Request, job_id: str) -> HttpResponse:
        job = _find_to_share(self, job_id)
        expires_in_s = _expires_in_s(request)
        path = _page_path()
        link, token = sharing.share(
            job, expires_in_s=expires_in_s, user_id=self.caller.user_id, api_key_id=self.caller.api_key_id
        )
        url = base_url(request) + path.replace("TOKEN", token)
        return JsonResponse({**_link_json(link), "url": url}, status=201)


class RevokeShareView(ApiView):
    scopes = {"POST": Scope.CANCEL}

    @documented("revoke_job_share")
    def post(self, request: Request, job_id: str, share_id: str) -> HttpResponse:
        link = _find_link(_find_to_share(self, job_id), share_id)
        sharing.revoke([link.pk])
        link.refresh_from_db(fields=["revoked_at"])
        return JsonResponse(_link_json(link))


def _find_to_share(view: ApiView, job_id: str) -> Job:
    if not may_share(view.caller):
        raise PermissionDenied(
            f"This needs the scopes {Scope.READ.value!r} and {Scope.CANCEL.value!r}.", code="insufficient_scope"
        )
    return find_to_steer(view.caller, job_id)


def _find_link(job: Job, share_id: str) -> SharedLink:
    prefix, _, start = share_id.partition("_")
    if prefix == "share" and len(start) == ID_CHARS and start.isascii() and start.isalnum():
        link = SharedLink.objects.filter(job=job, hash__startswith=start).first()
        if link is not None:
            return link
    raise NotFound("There is no such link to this job.", code="share_not_found")


def _expires_in_s(request: Request) -> float | None:
    """A body may be left out, since nothing in it must be said."""
    if not request._request.body:
        return None
    data = read_json_object(request._request)
    for name in data:
        if name != "expires_in_s":
            raise InvalidRequest(
                f"no such field: {name[:64]!r}; a link has expires_in_s", param=name, code="unknown_parameter"
            )
    return lasting("expires_in_s", data.get("expires_in_s"), most=conf.share_max_s)


def _page_path() -> str:
    """Where the site has the page. Raises NotAllowed where it has none."""
    try:
        return reverse("shared", args=["TOKEN"])
    except NoReverseMatch:
        raise NotAllowed("expected a site with llmjobs.console.urls, got one without the page of a link") from None


def _link_json(link: SharedLink) -> dict[str, Any]:
    return {
        "object": "job.share",
        "id": f"share_{link.hash[:ID_CHARS]}",
        "created_at": time_json(link.created_at),
        "expires_at": time_json(link.expires_at),
        "revoked_at": time_json(link.revoked_at),
        "last_seen_at": time_json(link.last_seen_at),
    }
