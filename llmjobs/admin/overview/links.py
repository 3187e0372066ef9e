"""The list behind a number, for who may open it; the empty text for others."""

from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.http import urlencode


class Links:
    def __init__(self, request: HttpRequest) -> None:
        self._user: Any = request.user

    def to(self, table: str, **filters: str) -> str:
        url = self._url(table, "changelist")
        return f"{url}?{urlencode(filters)}" if url and filters else url

    def page(self, table: str, key: Any) -> str:
        return self._url(table, "change", key)

    def jobs(self, **filters: str) -> str:
        return self.to("job", **filters)

    def dead_letters(self, **filters: str) -> str:
        return self.to("deadletter", **filters)

    def _url(self, table: str, page: str, *args: Any) -> str:
        if not any(self._user.has_perm(f"llmjobs.{verb}_{table}") for verb in ("view", "change")):
            return ""
        try:
            return reverse(f"admin:llmjobs_{table}_{page}", args=args)
        except NoReverseMatch:  # a host's admin may leave a table out
            return ""
