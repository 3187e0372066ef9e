"""Markdown becomes a page: HTML, the headings for its side, its text in sections for the search.

Owns the dialect: tables, fenced code coloured by classes, ids of headings, links between pages as `[name](slug.md#id)`.
HTML in a page is shown as the text that it is, and nothing has a style of its own, as the site's policy wants it.
Does not own which pages there are (`contents.py`), nor the tables made from the code (`generated.py`).
Invariant: the same text gives the same HTML, whoever asks.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape, unescape
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import markdown
from markdown.extensions import Extension
from markdown.extensions.toc import TocExtension
from markdown.preprocessors import Preprocessor
from markdown.treeprocessors import Treeprocessor
from markdown.util import AMP_SUBSTITUTE
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from llmjobs.docs.fences import Block, replaced

# What a kind of block is coloured as, where Pygments knows it by another name, or does not know it.
LEXERS = {"sh": "bash", "env": "properties", "html": "html", "dockerfile": "docker", "http": "text"}
WORDS = {"sh": "shell", "js": "JavaScript", "python": "Python", "text": "output", "json": "JSON", "env": "environment"}
THIS_SITE = "http://localhost:8000"  # the site that serves a page, in its text
PAGE_LINK = re.compile(r"(?P<slug>[a-z0-9-]+)\.md(?P<anchor>#.*)?")

_formatter = HtmlFormatter(nowrap=True)


@dataclass(frozen=True, slots=True)
class Heading:
    level: int
    id: str
    words: str


@dataclass(slots=True)
class Passage:
    """What stands under one heading, as words: what a search goes through."""

    heading: Heading
    words: str = ""


@dataclass(slots=True)
class Rendered:
    html: str
    headings: list[Heading] = field(default_factory=list)  # h2 and h3, for the side
    passages: list[Passage] = field(default_factory=list)


def rendered(text: str, *, address_of: Callable[[str], str], site: str = THIS_SITE) -> Rendered:
    """`address_of` gives a page's address by its slug; `site` is what commands shall show in the place of
    `localhost:8000`, which stands for this site in every page.
    """
    converter = markdown.Markdown(
        extensions=["tables", "sane_lists", "attr_list", TocExtension(), _Dialect(address_of)],
        extension_configs={"tables": {"use_align_attribute": True}},
        output_format="html",
    )
    html = converter.convert(with_site(text, site))
    dialect: _Dialect = next(e for e in converter.registeredExtensions if isinstance(e, _Dialect))
    headings = [passage.heading for passage in dialect.passages if passage.heading.level in (2, 3)]
    return Rendered(html, headings, dialect.passages)


def with_site(text: str, site: str) -> str:
    """`text` with the address of `site` where it speaks of this site."""
    host, this_host = site.partition("://")[2], THIS_SITE.partition("://")[2]
    return text.replace(THIS_SITE, site).replace(this_host, host)


def coloured(block: Block) -> str:
    """HTML of a block: a region of its own that can be reached by the keyboard, since it may be wider than the page."""
    try:
        lexer = get_lexer_by_name(LEXERS.get(block.kind, block.kind or "text"), stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    kind = escape(block.kind or "text")
    name = f"<figcaption>{escape(block.marks['file'])}</figcaption>" if "file" in block.marks else ""
    label = escape(block.marks.get("file") or WORDS.get(block.kind, block.kind or "text"))
    code = highlight(block.code, lexer, _formatter)
    return (
        f'<figure class="code" data-kind="{kind}">{name}'
        f'<pre tabindex="0" role="group" aria-label="{label}"><code>{code}</code></pre></figure>'
    )


class _Dialect(Extension):
    def __init__(self, address_of: Callable[[str], str]) -> None:
        super().__init__()
        self.address_of = address_of
        self.passages: list[Passage] = []

    def extendMarkdown(self, md: markdown.Markdown) -> None:
        md.registerExtension(self)
        md.preprocessors.deregister("html_block")
        md.inlinePatterns.deregister("html")
        md.preprocessors.register(_Fences(md), "llmjobs_fences", 30)
        md.treeprocessors.register(_Finish(md, self), "llmjobs_finish", 4)  # behind toc (5), which gives the ids


class _Fences(Preprocessor):
    """Before all others, so that nothing in a block is taken for Markdown."""

    def run(self, lines: list[str]) -> list[str]:
        def stashed(block: Block) -> str:
            return f"\n{block.indent}{self.md.htmlStash.store(coloured(block))}\n"

        return replaced("\n".join(lines) + "\n", stashed).split("\n")


class _Finish(Treeprocessor):
    """Links between pages, anchors beside headings, tables that scroll by themselves, and the words of each passage."""

    def __init__(self, md: markdown.Markdown, dialect: _Dialect) -> None:
        super().__init__(md)
        self._dialect = dialect

    def run(self, root: Element) -> None:
        for link in root.iter("a"):
            if match := PAGE_LINK.fullmatch(link.get("href", "")):
                link.set("href", self._dialect.address_of(match["slug"]) + (match["anchor"] or ""))
        self._dialect.passages = self._passages(root)
        for heading in [each for each in root.iter() if each.tag in ("h2", "h3", "h4")]:
            _add_anchor(heading)
        for at, child in enumerate(list(root)):
            if child.tag == "table":
                root[at] = _scrolling(child)

    def _passages(self, root: Element) -> list[Passage]:
        found: list[Passage] = []
        for child in root:
            words = self._words(child)
            if re.fullmatch(r"h[1-6]", child.tag):
                found.append(Passage(Heading(int(child.tag[1]), child.get("id", ""), words)))
            elif found:
                found[-1].words = f"{found[-1].words} {words}".strip()
        return found

    def _words(self, element: Element) -> str:
        """Its text; a stashed block counts with its code."""

        def unstashed(match: re.Match[str]) -> str:
            stashed: Any = self.md.htmlStash.rawHtmlBlocks[int(match[1])]
            return f" {re.sub('<[^>]+>', '', str(stashed))} "

        text = " ".join("".join(_texts(element)).split())
        text = re.sub(r"\x02wzxhzdk:(\d+)\x03", unstashed, text).replace(AMP_SUBSTITUTE, "&")
        text = re.sub(r"\x02(\d+)\x03", lambda match: chr(int(match[1])), text)  # an escaped character
        return " ".join(unescape(text).split())


def _texts(element: Element) -> list[str]:
    """As `itertext`, with a space where a cell or a paragraph ends."""
    found = [element.text or ""]
    for child in element:
        found += [*_texts(child), child.tail or ""]
    if element.tag in ("td", "th", "li", "p", "tr"):
        found.append(" ")
    return found


def _add_anchor(heading: Element) -> None:
    anchor = SubElement(heading, "a", {"class": "anchor", "href": f"#{heading.get('id', '')}"})
    anchor.set("aria-label", f"Link to “{''.join(heading.itertext()).strip()}”")
    anchor.text = "#"


def _scrolling(table: Element) -> Element:
    frame = Element("div", {"class": "table", "tabindex": "0", "role": "group", "aria-label": "Table"})
    frame.append(table)
    frame.tail = table.tail
    return frame
