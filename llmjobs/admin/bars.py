"""Bars: so much of so much, as a small SVG beside the number that says the same.

A policy without inline styles leaves attributes of shapes: widths stand there, colours in admin_configuration.css. The
words carry the meaning; a bar is for the eye alone, and hidden from who listens.
"""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 200, 10


def bar(used: float, most: float, *, kind: str = "used", marks: Sequence[float] = (), scale: float = 1.0) -> SafeString:
    """`used` of `most`; `marks` are parts of `most`, as 0.8. `scale`: how many times `most` the whole bar is."""
    whole = most * scale
    part = min(max(used / whole, 0.0), 1.0) if whole > 0 else 0.0
    lines = format_html_join(
        "",
        '<line x1="{0}" x2="{0}" y1="0" y2="{1}" class="llmjobs-mark"/>',
        ((f"{mark / scale * WIDTH:.1f}", HEIGHT) for mark in marks if mark / scale < 1),
    )
    return format_html(
        '<svg viewBox="0 0 {w} {h}" preserveAspectRatio="none" class="llmjobs-bar" aria-hidden="true">'
        '<rect width="{w}" height="{h}" class="llmjobs-bar-whole"/>'
        '<rect width="{part}" height="{h}" class="llmjobs-bar-{kind}"/>{lines}</svg>',
        w=WIDTH,
        h=HEIGHT,
        part=f"{part * WIDTH:.1f}",
        kind=kind,
        lines=lines,
    )


def with_words(words: str | SafeString, drawn: SafeString) -> SafeString:
    """The words, and the bar under them."""
    return format_html('<span class="llmjobs-measure">{}{}</span>', words, drawn)
