"""What comes in: the body as one JSON object, the query string as parameters that are known.

Owns size and encoding. Does not own JSON itself (`strict_json.py`), nor what the fields mean (`submissions.py`,
listing.py). Invariant: nothing is read past its bound, and nothing is decoded that could grow.
"""

from collections.abc import Iterable
from typing import Any, NoReturn

from django.http import HttpRequest, QueryDict
from rest_framework.exceptions import UnsupportedMediaType

from llmjobs import strict_json
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, RequestTooLarge

JSON = ("application/json",)


def parameters(query: QueryDict, known: Iterable[str], *, prefix: str | None = None) -> dict[str, str]:
    """Each parameter known (or begun with `prefix`), given once, and text that Postgres can store.

    Raises InvalidRequest with `param`.
    """
    given = {}
    for name, values in query.lists():
        if name not in known and not (prefix and name.startswith(prefix) and name != prefix):
            expected = ", ".join([*known, *([f"{prefix}<key>"] if prefix else [])]) or "none"
            raise InvalidRequest(
                f"no such query parameter: {name[:64]!r}; this address knows: {expected}",
                param=name,
                code="unknown_parameter",
            )
        if len(values) > 1:
            raise InvalidRequest(f"expected one value, got {len(values)}", param=name, code="duplicate_parameter")
        given[name] = str(values[0])
        if "\0" in name or "\0" in given[name]:
            raise InvalidRequest("expected text without NUL (U+0000)", param=name, code="invalid_text")
    return given


def read_json_object(request: HttpRequest) -> dict[str, Any]:
    """Raises UnsupportedMediaType, RequestTooLarge or InvalidRequest (code invalid_json)."""
    check_media(request, JSON)
    return strict_json.parse_object(_read_bounded(request, conf.body_max_bytes))


def check_media(request: HttpRequest, types: tuple[str, ...]) -> None:
    """Raises UnsupportedMediaType for another Content-Type, and for what is compressed."""
    if request.content_type not in types:
        got = f"got {request.content_type!r}" if request.content_type else "got none"
        raise UnsupportedMediaType("", detail=f"Expected the Content-Type {' or '.join(types)}, {got}.")
    if (encoding := request.headers.get("Content-Encoding", "identity").lower()) != "identity":
        detail = f"Expected a body without Content-Encoding, got {encoding[:64]!r}."  # what is small here may be huge
        raise UnsupportedMediaType("", detail=detail)


def declared_bytes(request: HttpRequest) -> int | None:
    """None: the body comes in chunks, and says not how many."""
    declared = request.META.get("CONTENT_LENGTH") or ""
    return int(declared) if declared.isdecimal() else None


def _read_bounded(request: HttpRequest, most_bytes: int) -> bytes:
    """Without a length (chunked) the body is read up to one byte past the bound, and no further."""
    length = declared_bytes(request)
    if length is not None and length > most_bytes:
        too_large(f"{length} bytes", most_bytes)
    raw = request.read(most_bytes + 1 if length is None else length)
    if len(raw) > most_bytes:
        too_large("more", most_bytes)
    return raw


def too_large(got: str, most_bytes: int) -> NoReturn:
    raise RequestTooLarge(f"The body may have {most_bytes} bytes, and has {got}.", code="request_too_large")
