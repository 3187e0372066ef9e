"""The filters beside a list: choices, a text with suggestions, a range of days or moments.

Each answers from an index, or is walked within the list's bounds. None counts, and none lists ten thousand clients: a
text filter takes the exact name and suggests the first few. A value that makes no sense finds nothing; it never
fails. One that is `is_folded` is shown closed, until it is set.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.admin import ListFilter, ModelAdmin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone

SUGGESTIONS_MAX = 50
VALUE_CHARS_MAX = 300
ID_DIGITS_MAX = 19
YEARS = range(1900, 9000)  # arithmetic and every zone have room around these


class QueryFilter(ListFilter):
    """Takes its own parameters out of the query string. A subclass says which (`parameters`) and what they mean."""

    parameters: ClassVar[tuple[str, ...]]
    is_folded: ClassVar[bool] = False

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], page: ModelAdmin) -> None:
        super().__init__(request, params, model, page)
        for name in self.parameters:
            if name in params:
                # Postgres has no NUL in text; here it can only be a probe.
                text = params.pop(name)[-1].replace("\0", "").strip()[:VALUE_CHARS_MAX]
                if text:
                    self.used_parameters[name] = text

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return cls.parameters

    def expected_parameters(self) -> list[str | None]:
        return list(self.parameters)

    def has_output(self) -> bool:
        return True

    @property
    def value(self) -> str:
        return str(self.used_parameters.get(self.parameters[0], ""))

    def kept(self, changelist: ChangeList) -> list[tuple[str, str]]:
        """The other parameters of the list, for a form that must not lose them."""
        return [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name not in self.parameters
            for value in (values if isinstance(values, list) else [values])
        ]


class ChoiceFilter(QueryFilter):
    """One of a few words. `options` gives (word in the URL, what people read, value in the column)."""

    template = "admin/llmjobs/filter_choice.html"
    column: ClassVar[str]

    def options(self) -> Iterable[tuple[str, str, Any]]:
        raise NotImplementedError

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], page: ModelAdmin) -> None:
        super().__init__(request, params, model, page)
        self._options = list(self.options())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value:
            return queryset
        values = [column for word, _, column in self._options if word == self.value]
        return queryset.filter(**{self.column: values[0]}) if values else queryset.none()

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        yield {
            "selected": not self.value,
            "query_string": changelist.get_query_string(remove=list(self.parameters)),
            "display": "All",
        }
        for word, text, _ in self._options:
            yield {
                "selected": word == self.value,
                "query_string": changelist.get_query_string({self.parameters[0]: word}),
                "display": text,
            }


class TextFilter(QueryFilter):
    """A field to type into. `suggestions` gives (value, label) for the browser's own list."""

    template = "admin/llmjobs/filter_text.html"
    placeholder: ClassVar[str] = ""

    def suggestions(self) -> Iterable[tuple[str, str]]:
        return ()

    def matching(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return self.matching(queryset, self.value) if self.value else queryset

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        yield {
            "name": self.parameters[0],
            "value": self.value,
            "suggestions": list(self.suggestions())[:SUGGESTIONS_MAX],
            "kept": self.kept(changelist),
            "clear": changelist.get_query_string(remove=list(self.parameters)),
        }


class DaysFilter(QueryFilter):
    """From a day to a day, both inclusive, in the zone that the admin shows times in."""

    template = "admin/llmjobs/filter_days.html"
    column: ClassVar[str]

    def bounds(self) -> tuple[datetime | None, datetime | None, bool]:
        """(from, before, whether both could be read)."""
        start, end = (str(self.used_parameters.get(name, "")) for name in self.parameters)
        try:
            since = _midnight(start) if start else None
            before = _midnight(end) + timedelta(days=1) if end else None
        except (ValueError, OverflowError):
            return None, None, False
        return since, before, True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        since, before, is_readable = self.bounds()
        if not is_readable:
            return queryset.none()
        return self.between(queryset, since, before)

    def between(self, queryset: QuerySet[Any], since: datetime | None, before: datetime | None) -> QuerySet[Any]:
        if since:
            queryset = queryset.filter(**{f"{self.column}__gte": since})
        if before:
            queryset = queryset.filter(**{f"{self.column}__lt": before})
        return queryset

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        yield {
            "names": self.parameters,
            "fields": [
                {"name": name, "label": label, "value": self.used_parameters.get(name, "")}
                for name, label in zip(self.parameters, ("From", "To"), strict=True)
            ],
            "is_set": bool(self.used_parameters),
            "kept": self.kept(changelist),
            "clear": changelist.get_query_string(remove=list(self.parameters)),
        }


class MomentsFilter(DaysFilter):
    """Within the last hour, day or week; or from a day or a moment on, to another.

    `parameters` are three: within, from, to. A moment is ISO 8601, to the minute, as links from charts have it.
    """

    template = "admin/llmjobs/filter_moments.html"
    WITHIN: ClassVar[dict[str, tuple[str, timedelta]]] = {
        "1h": ("last hour", timedelta(hours=1)),
        "1d": ("last day", timedelta(days=1)),
        "7d": ("last week", timedelta(days=7)),
    }

    def bounds(self) -> tuple[datetime | None, datetime | None, bool]:
        within, start, end = (str(self.used_parameters.get(name, "")) for name in self.parameters)
        if within and within not in self.WITHIN:
            return None, None, False
        try:
            since = _moment(start, is_end=False) if start else None
            before = _moment(end, is_end=True) if end else None
        except (ValueError, OverflowError):
            return None, None, False
        if within:
            recent = timezone.now() - self.WITHIN[within][1]
            since = max(recent, since) if since else recent
        return since, before, True

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        within, *others = self.parameters
        yield {
            "fields": [
                {"name": name, "label": label, "value": value, "kind": "datetime-local" if "T" in value else "date"}
                for name, label in zip(others, ("From", "To"), strict=True)
                for value in [str(self.used_parameters.get(name, ""))]
            ],
            "presets": [
                {
                    "label": label,
                    "selected": self.used_parameters.get(within) == word,
                    "query_string": changelist.get_query_string({within: word}, remove=others),
                }
                for word, (label, _) in self.WITHIN.items()
            ],
            "is_set": bool(self.used_parameters),
            "kept": self.kept(changelist),
            "clear": changelist.get_query_string(remove=list(self.parameters)),
        }


def _moment(text: str, *, is_end: bool) -> datetime:
    """A day is its beginning, or its end; a moment is itself, in the admin's own zone unless it names another."""
    if "T" not in text:
        return _midnight(text) + timedelta(days=1 if is_end else 0)
    at = datetime.fromisoformat(text.replace(" ", "+"))  # a + that was not escaped
    return _of_our_years(at if at.tzinfo else at.replace(tzinfo=timezone.get_current_timezone()))


def _midnight(day: str) -> datetime:
    return _of_our_years(
        datetime.combine(date.fromisoformat(day), datetime.min.time(), timezone.get_current_timezone())
    )


def _of_our_years(at: datetime) -> datetime:
    if at.year not in YEARS:
        raise ValueError(f"expected a year from {YEARS.start} to {YEARS.stop - 1}, got {at.year}")
    return at


def as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def as_id(text: str) -> int | None:
    """A bigint that is an id, or None. Python refuses to read more than some thousand digits."""
    is_number = text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX
    return int(text) if is_number and int(text) < 2**63 else None
