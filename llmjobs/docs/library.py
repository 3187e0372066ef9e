"""The pages as they are served: read, filled, rendered, and kept for as long as this process lives.

Owns what is kept. A page is rendered once for each address of the site that it was asked by, and only the last few of
those are kept, since the address comes from the request. With DEBUG a page is read anew each time.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.urls import reverse

from llmjobs.docs import contents, generated
from llmjobs.docs.contents import Page
from llmjobs.docs.rendering import THIS_SITE, Passage, Rendered, rendered

SITES_MAX = 4  # by how many names a site is reached


@dataclass(frozen=True, slots=True)
class Served:
    rendered: Rendered
    changed_at: datetime


def served(page: Page, site: str) -> Served:
    return _served.__wrapped__(page, site) if settings.DEBUG else _served(page, site)


def passages() -> list[tuple[Page, Passage]]:
    """Of all pages, in the order of reading; not by a site's name, or whoever makes names up would have all of them
    rendered at each question.
    """
    return [(page, passage) for page in contents.ALL for passage in served(page, THIS_SITE).rendered.passages]


def address_of(slug: str) -> str:
    """Raises KeyError for a page that is none, before a reader would meet a dead link."""
    return reverse("llmjobs-docs:page", args=[contents.BY_SLUG[slug].slug])


def tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


@lru_cache(maxsize=SITES_MAX * len(contents.ALL))
def _served(page: Page, site: str) -> Served:
    text = generated.filled(page.path.read_text(encoding="utf-8"))
    return Served(rendered(text, address_of=address_of, site=site), _changed_at(page))


def _changed_at(page: Page) -> datetime:
    """When the page, or what it is made by, was changed."""
    made_by = [*Path(__file__).parent.glob("*.py"), page.path]
    return datetime.fromtimestamp(int(max(path.stat().st_mtime for path in made_by)), UTC)
