"""Lists of tables that may hold millions of rows: pages by key, counts with a bound, and an end to every statement.

`KeysetChangeList` is Django's list with three things taken out: OFFSET, the exact count, and sorting by any column.
The cursor travels in the page's own parameter: `p=lt123` is the page below the row 123, `p=gt123` the one above it.

Invariant: a list costs a range of an index, or it ends after `LIST_TIMEOUT_S` and says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db import OperationalError, connections, transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from psycopg.errors import QueryCanceled

COUNT_MAX = 10_000  # counted exactly up to here: 2 ms of an index
COUNT_TIMEOUT_S = 0.5  # a count is worth no more
LIST_TIMEOUT_S = 5  # a filter without an index walks the table; a page that takes longer should be narrowed


class TooSlow(Exception):
    """The statement was ended by `time_limit`."""


@contextmanager
def time_limit(seconds: float, *, using: str) -> Iterator[None]:
    """Ends a statement inside that takes longer, with TooSlow. What was written inside is rolled back then."""
    connection = connections[using]
    is_nested = connection.in_atomic_block
    try:
        with transaction.atomic(using=using), connection.cursor() as cursor:
            if is_nested:  # else the limit goes with the transaction
                cursor.execute("select current_setting('statement_timeout')")
                before = cursor.fetchone()[0]
            cursor.execute("select set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))])
            yield
            if is_nested:
                cursor.execute("select set_config('statement_timeout', %s, true)", [before])
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise TooSlow from error
        raise


def count_text(queryset: QuerySet[Any]) -> tuple[int, str]:
    """(rows, at most COUNT_MAX + 1; how many to tell people). A whole table is estimated by what ANALYZE found."""
    try:
        with time_limit(COUNT_TIMEOUT_S, using=queryset.db):
            if not queryset.query.where:
                rows = _estimated_rows(queryset)
                if rows > COUNT_MAX:
                    return COUNT_MAX + 1, f"about {rows:,}"
            # In the list's own order: without it a scan of the table may look cheaper than the index.
            rows = queryset.values("pk")[: COUNT_MAX + 1].count()
    except TooSlow:
        return COUNT_MAX + 1, "many"
    return rows, f"{COUNT_MAX:,}+" if rows > COUNT_MAX else f"{rows:,}"


def _estimated_rows(queryset: QuerySet[Any]) -> int:
    connection = connections[queryset.db]
    table = connection.ops.quote_name(queryset.model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute("select reltuples::bigint from pg_class where oid = %s::regclass", [table])
        return int(cursor.fetchone()[0])


class KeysetChangeList(ChangeList):
    """Newest first by primary key. `older` and `newer` are the query strings of the next pages, or ""."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        self.older = self.newer = ""
        try:
            with time_limit(LIST_TIMEOUT_S, using=self.queryset.db):
                self.result_list = self._page(request.GET.get(PAGE_VAR, ""))
        except TooSlow:
            self.result_list = []
            messages.error(
                request, "This filter walks through too many rows: narrow it by a client, a model or a date."
            )
        if self.older or self.newer:
            self.result_count, self.count_text = count_text(self.queryset)
        else:
            self.result_count, self.count_text = len(self.result_list), f"{len(self.result_list):,}"
        self.show_full_result_count = False
        self.full_result_count = None
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False
        self.paginator = None

    def _page(self, cursor: str) -> list[Any]:
        """The rows of the page at `cursor`; one that makes no sense is the first page. Sets `older` and `newer`."""
        side, key = cursor[:2], cursor[2:]
        is_placed = side in ("lt", "gt") and key.isascii() and key.isdigit() and len(key) < 19
        queryset = self.queryset
        if is_placed:
            queryset = queryset.filter(**{f"pk__{side}": int(key)})
        is_upward = is_placed and side == "gt"
        rows = list(queryset.order_by("pk" if is_upward else "-pk")[: self.list_per_page + 1])
        has_more = len(rows) > self.list_per_page
        rows = rows[: self.list_per_page]
        if is_upward:
            rows.reverse()
        if rows and (is_upward or has_more):
            self.older = self.get_query_string({PAGE_VAR: f"lt{rows[-1].pk}"})
        if rows and (has_more if is_upward else is_placed):
            self.newer = self.get_query_string({PAGE_VAR: f"gt{rows[0].pk}"})
        if not rows and is_placed:  # past an end: back to the first page
            self.newer = self.get_query_string()
        return rows
