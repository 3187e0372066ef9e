"""A number on the overview: what it is of, the list behind it, and whether the WebSocket brings it anew."""

from dataclasses import dataclass

from django.utils.html import format_html
from django.utils.safestring import SafeString


@dataclass(frozen=True, slots=True)
class Number:
    """`words` that end in a colon go before the value. `look`: a word for its colour, or none."""

    value: str
    words: str = ""
    url: str = ""
    live: str = ""  # the name by which the WebSocket brings it anew
    look: str = ""

    @property
    def html(self) -> SafeString:
        live = format_html(' data-live="{}"', self.live) if self.live else ""
        look = f" llmjobs-{self.look}" if self.look else ""
        said = format_html('<span class="llmjobs-value{}"{}>{}</span>', look, live, self.value)
        words = (self.words.removesuffix(":"), said)
        if self.words:
            said = format_html("{} {}", *(words if self.words.endswith(":") else reversed(words)))
        return format_html('<a href="{}">{}</a>', self.url, said) if self.url else said
