"""axe-core in a page: what it takes for a serious or critical fault of accessibility.

The rules come with a package of the tests; they are evaluated by the browser itself, so that the page's policy stays as
it is for users.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

GRAVE = ("serious", "critical")
OPTIONS = {
    "resultTypes": ["violations"],
    "preload": False,  # it would ask for style sheets that the page has
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa"]},
}


@cache
def _rules() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def faults_of(page: Page) -> list[str]:
    """A line a fault: the rule, and the element that breaks it."""
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(_rules())
    found: Any = page.evaluate("options => axe.run(document, options)", OPTIONS)
    return [
        f"{violation['id']} ({violation['impact']}): {node['html'][:200]} {node['failureSummary'][:300]!r}"
        for violation in found["violations"]
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]
