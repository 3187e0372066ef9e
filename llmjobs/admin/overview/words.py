"""Numbers as people read them, each by what it is of. `admin_overview.js` says counts and seconds alike."""

from datetime import timedelta
from decimal import Decimal

from llmjobs.admin import cells

NONE = "–"  # noqa: RUF001 - a dash, as people write it


def count(number: float) -> str:
    return f"{number:,.0f}"


def rough(number: float) -> str:
    """A mean of whole numbers: "0.3", "42", "1,200"."""
    return f"{number:,.1f}" if 0 < number < 10 and number != round(number) else count(number)


def short(number: float) -> str:
    """Three digits and a unit: "950", "12.3k", "1.2M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:
            return f"{float(f'{number / size:.3g}'):g}{unit}"
    return f"{float(f'{number:.3g}'):g}"


def seconds(length_s: float | None) -> str:
    return NONE if length_s is None else cells.duration(timedelta(seconds=length_s))


def brief(length_s: float) -> str:
    """At an axis, where times are round: "0.5 s", "15 s", "5 min", "3 h"."""
    for size_s, unit in ((3600, "h"), (60, "min")):
        if length_s >= size_s:
            return f"{length_s / size_s:g} {unit}"
    return f"{length_s:g} s"


def dollars(usd: Decimal | float) -> str:
    """To the cent, and where it is less than ten of them two digits."""
    amount = float(usd)
    if amount >= 10_000:
        return f"${amount:,.0f}"
    if amount >= 0.1 or not amount:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 0.001 else f"${amount:.6f}".rstrip("0").rstrip(".")


def cents(usd: float) -> str:
    """At an axis, which has no room for zeros: "$0.2", "$40µ"."""
    return dollars(usd) if usd >= 0.001 or not usd else f"${usd * 1e6:g}µ"


def percent(part: float | None) -> str:
    if part is None:
        return NONE
    return f"{part:.1%}" if 0 < part < 0.1 else f"{part:.0%}"
