"""How a value looks on an operator's page: badges, times, sizes, costs, texts.

Owns the look, not the data. Everything is escaped, and every state is told by a word: a colour only repeats it.
"""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Model
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

TEXT_CHARS_MAX = 100_000  # of one text on a page: past that a browser gets slow, and nobody reads it there
HIDDEN = "hidden"  # in place of a prompt or an output, for who lacks `view_job_content`
NOTHING = "-"

COLOURS = {
    word: colour
    for colour, words in {
        "good": ("completed", "done", "delivered", "valid", "live", "open", "ready", "in service"),
        "active": ("running", "draining", "in flight"),
        "waiting": (
            "queued",
            "scheduled",
            "pending",
            "late",
            "paused",
            "cancelling",
            "released",
            "not_sent",
            "rejected",
            "blocked",
            "expires soon",
            "ongoing",
            "warning",
        ),
        "bad": (
            "failed",
            "dead",
            "lost",
            "revoked",
            "deterministic",
            "unknown",
            "unrecognised",
            "provider_refused",
            "critical",
        ),
    }.items()
    for word in words
}


def badge(word: str) -> SafeString:
    """The word in its colour; one that has none is quiet."""
    return format_html('<span class="llmjobs-badge llmjobs-{}">{}</span>', COLOURS.get(word, "quiet"), word)


def moment(at: datetime | None) -> str | SafeString:
    if at is None:
        return NOTHING
    return format_html(
        '<time datetime="{}">{}</time>', at.isoformat(), formats.date_format(timezone.localtime(at), "Y-m-d H:i:s")
    )


def duration(length: timedelta | None) -> str:
    """The two largest units: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min", "4 d 1 h"."""
    if length is None:
        return NOTHING
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, below_s, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // below_s
            return f"{whole // unit_s} {unit} {rest} {below}" if rest else f"{whole // unit_s} {unit}"
    return f"{whole} s"


def usd(amount: Decimal | None) -> str:
    if amount is None:
        return NOTHING
    exact = f"{amount.normalize():f}"
    return f"${exact}" if "." in exact else f"${exact}.00"


def count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def shortened(text: str | None) -> tuple[str, str]:
    """(the text as far as it is shown, a note that says what is missing, or "")."""
    text = text or ""
    if len(text) <= TEXT_CHARS_MAX:
        return text, ""
    return text[:TEXT_CHARS_MAX], f"Shown are the first {TEXT_CHARS_MAX:,} characters."


def indented(text: str) -> str:
    """JSON text with line breaks; what is not JSON (it was cut off, or never was) as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def preformatted(text: str | None, *, is_json: bool) -> str | SafeString:
    """A long text in a field, cut; JSON with line breaks, where it was not cut."""
    shown, note = shortened(text)
    if not shown:
        return NOTHING
    return format_html('<pre class="llmjobs-text">{}</pre>{}', indented(shown) if is_json and not note else shown, note)


def link_to(row: Model, text: Any = None) -> SafeString:
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', url, row if text is None else text)


def job_link(row: Model) -> str | SafeString:
    """The job that `row` belongs to. No foreign key holds it: the ledger outlives its jobs."""
    try:
        job = row.job  # type: ignore[attr-defined]
    except ObjectDoesNotExist:
        return f"{row.job_id}, removed"  # type: ignore[attr-defined]
    return link_to(job)
