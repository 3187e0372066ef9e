"""A search over all pages: every word must be found in a passage, its heading or its page's title.

Owns what matches and in which order. The passages are some hundreds, kept in memory: a search takes a millisecond and
asks no database. Invariant: a question is cut to `WORDS_MAX` words and answered with `FOUND_MAX` passages at most.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmjobs.docs.contents import Page
from llmjobs.docs.rendering import Passage

WORDS_MAX = 8
QUESTION_CHARS_MAX = 200
FOUND_MAX = 20
AROUND_CHARS = 70


@dataclass(frozen=True, slots=True)
class Found:
    page: Page
    passage: Passage
    excerpt: str

    @property
    def title(self) -> str:
        """The heading, unless it is the page's own title."""
        return self.page.title if self.passage.heading.level == 1 else self.passage.heading.words


def search(question: str, passages: Sequence[tuple[Page, Passage]]) -> list[Found]:
    """The best first: words in a title count most, then in a heading, then how often they are said."""
    words = re.findall(r"[\w.-]+", question[:QUESTION_CHARS_MAX].lower())[:WORDS_MAX]
    if not words:
        return []
    scored = [(_score(words, page, passage), page, passage) for page, passage in passages]
    best = sorted((each for each in scored if each[0]), key=lambda each: -each[0])[:FOUND_MAX]
    return [Found(page, passage, _excerpt(passage.words, words)) for _, page, passage in best]


def _score(words: Sequence[str], page: Page, passage: Passage) -> float:
    title, heading, text = page.title.lower(), passage.heading.words.lower(), passage.words.lower()
    total = 0.0
    for word in words:
        said = 4 * (word in title) + 8 * (word in heading) + min(text.count(word), 5)
        if not said:
            return 0
        total += said
    return total


def _excerpt(text: str, words: Sequence[str]) -> str:
    """Around the first word that stands in it, cut between words."""
    lower = text.lower()
    at = min((found for word in words if (found := lower.find(word)) >= 0), default=0)
    start, end = max(0, at - AROUND_CHARS), at + 2 * AROUND_CHARS
    cut = text[start:end]
    if start:
        cut = "… " + cut.partition(" ")[2]
    if end < len(text):
        cut = cut.rpartition(" ")[0] + " …"
    return cut
