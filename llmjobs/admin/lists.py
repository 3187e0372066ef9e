"""Lists of tables that may hold millions of rows: pages by key, counts with a bound, and an end to every statement.

`KeysetChangeList` is Django's list with three things taken out: OFFSET, the exact count, and sorting by any column.
The cursor travels in the page's own parameter: `p=lt123` is the page below the row 123, `p=gt123` the one above it.

A filter that no index serves would walk through the table until it has a page. So what takes longer than `TRY_S` is
walked in steps, from the cursor on, for `WALK_S` in all. What was found until then is shown, with a word on
how far was looked, and the next page goes on from there: no row is left out, and none of a million has an index more.

Invariant: a list costs a range of an index or `TRY_S` and `WALK_S`, or a step of it ends after `LIST_TIMEOUT_S` and
it says so.
"""

import itertools
import time
from typing import Any

from django.contrib import messages
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db import connections
from django.db.models import Max, Min, QuerySet
from django.http import HttpRequest

from llmjobs.time_limits import TooSlow as TooSlow
from llmjobs.time_limits import time_limit as time_limit

COUNT_MAX = 10_000  # counted exactly up to here: 2 ms of an index
COUNT_TIMEOUT_S = 0.05  # a count is worth no more
TRY_S = 0.1  # where an index serves, a page is a matter of milliseconds
WALK_S = 0.1
FIRST_STEP, STEP_MAX = 5_000, 320_000  # numbers that a step goes down (or up)
LIST_TIMEOUT_S = 5  # of a statement that an index or a step bounds: it waits for a lock, or the disk


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

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        queryset = super().get_queryset(request, *args, **kwargs)
        self.search_note = getattr(request, "search_note", "")  # what the search took the text for (job_search.py)
        return queryset

    def get_results(self, request: HttpRequest) -> None:
        self.older = self.newer = self.looked_at = ""
        try:
            self.result_list = self._page(request.GET.get(PAGE_VAR, ""))
        except TooSlow:
            self.result_list = []
            messages.error(
                request, "This filter walks through too many rows: narrow it by a client, a model or a date."
            )
        if self.looked_at:
            self.result_count, self.count_text = len(self.result_list), f"{len(self.result_list):,} or more"
        elif self.older or self.newer:
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
        is_upward = is_placed and side == "gt"
        rows, reached = self._rows(int(key) if is_placed else None, is_upward=is_upward)
        has_more = len(rows) > self.list_per_page
        rows = rows[: self.list_per_page]
        if is_upward:
            rows.reverse()
        if reached is not None and not has_more:  # it goes on from where was looked, with a page or none
            self._link(reached, rows, is_upward=is_upward, is_placed=is_placed)
            return rows
        if rows and (is_upward or has_more):
            self.older = self.get_query_string({PAGE_VAR: f"lt{rows[-1].pk}"})
        if rows and (has_more if is_upward else is_placed):
            self.newer = self.get_query_string({PAGE_VAR: f"gt{rows[0].pk}"})
        if not rows and is_placed:  # past an end: back to the first page
            self.newer = self.get_query_string()
        return rows

    def _link(self, reached: int, rows: list[Any], *, is_upward: bool, is_placed: bool) -> None:
        onward, back = (f"gt{reached}", f"lt{reached + 1}") if is_upward else (f"lt{reached}", f"gt{reached - 1}")
        self.looked_at = f"Looked at numbers {'up' if is_upward else 'down'} to {reached:,}."
        if is_upward:
            self.newer = self.get_query_string({PAGE_VAR: onward})
            self.older = self.get_query_string({PAGE_VAR: f"lt{rows[-1].pk}" if rows else back})
        else:
            self.older = self.get_query_string({PAGE_VAR: onward})
            if is_placed:
                self.newer = self.get_query_string({PAGE_VAR: f"gt{rows[0].pk}" if rows else back})

    def _rows(self, key: int | None, *, is_upward: bool) -> tuple[list[Any], int | None]:
        """A page and one more, from `key` on, and how far was looked; None: to the end, or as far as was needed."""
        placed = self.queryset if key is None else self.queryset.filter(**{f"pk__{'gt' if is_upward else 'lt'}": key})
        try:
            with time_limit(TRY_S, using=self.queryset.db):
                return list(placed.order_by("pk" if is_upward else "-pk")[: self.list_per_page + 1]), None
        except TooSlow:
            return self._walked(key, is_upward=is_upward)

    def _walked(self, key: int | None, *, is_upward: bool) -> tuple[list[Any], int | None]:
        least, most = self._ends()
        rows: list[Any] = []
        at, size = key if key is not None else most + 1, FIRST_STEP
        until = time.monotonic() + WALK_S
        for number in itertools.count():
            began_at = time.monotonic()
            within = {"pk__gt": at, "pk__lte": at + size} if is_upward else {"pk__lt": at, "pk__gte": at - size}
            step = self.queryset.filter(**within).order_by("pk" if is_upward else "-pk")
            left_s = max(0.001, until - began_at)
            try:  # the first step is taken whatever it costs: a page must get further than the one before
                with time_limit(left_s if number else LIST_TIMEOUT_S, using=self.queryset.db):
                    rows += step[: self.list_per_page + 1 - len(rows)]
            except TooSlow:
                if not number:
                    raise
                return rows, at
            at = at + size if is_upward else at - size
            if len(rows) > self.list_per_page or (at >= most if is_upward else at <= least):
                return rows, None
            took_s, left_s = time.monotonic() - began_at, until - time.monotonic()
            # Half of what would fit, at the pace of this step.
            size = min(STEP_MAX, 8 * size, int(size * left_s / took_s / 2))
            if size < 100:
                return rows, at
        raise AssertionError("unreachable")

    def _ends(self) -> tuple[int, int]:
        """The least and the greatest key of the table."""
        ends = self.model._default_manager.using(self.queryset.db)
        with time_limit(LIST_TIMEOUT_S, using=self.queryset.db):
            found = ends.aggregate(least=Min("pk"), most=Max("pk"))
        return found["least"] or 0, found["most"] or 0
