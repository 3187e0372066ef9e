"""Every page of the console, light and dark, on a desk and on a phone: nothing runs off the screen, nothing complains,
nothing asks the outside, and axe-core finds no grave fault.

The pictures are in .screenshots/operations/, for people to look at. Not among the tests of browser/: their worker would
work on what stands here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client as Session
from django.urls import reverse
from playwright.sync_api import Page

from tests.admin.console_site import make_site
from tests.browser.axe import faults_of
from tests.browser.chromium import PICTURES, Witness, chromium
from tests.live_process import web_server

OPERATIONS = PICTURES.parent / "operations"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
PARTS = 3  # of the pages, so that they share the machine's cores


@dataclass
class Console:
    """A browser as an administrator of a believable site, and the addresses of all pages."""

    page: Page
    url: str
    addresses: list[str]


@pytest.fixture
def console(transactional_db: None, seeds: None) -> Iterator[Console]:
    make_site()
    root = User.objects.create_superuser("root", password="password")
    session = Session()
    session.force_login(root)
    cookie = session.cookies["sessionid"].value
    addresses = _addresses()
    with web_server() as server, chromium() as browser:
        context = browser.new_context(viewport=DESK)
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": server.url}])
        yield Console(context.new_page(), server.url, addresses)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_is_legible_and_fits_and_complains_of_nothing(console: Console, part: int) -> None:
    witness = Witness(console.page, console.url)
    addresses = console.addresses[part::PARTS]
    faults = [f"{address}: {fault}" for address in addresses for fault in _faults_of(console, witness, address)]
    assert not faults, "\n".join(faults)


def _addresses() -> list[str]:
    """Each list, and the first page of each that has one."""
    found = [reverse("admin:index"), reverse("admin:app_list", args=["llmjobs"])]
    for table in apps.get_app_config("llmjobs").get_models():
        if admin.site.is_registered(table):
            name = f"admin:llmjobs_{table._meta.model_name}"
            found.append(reverse(f"{name}_changelist"))
            if (row := table._default_manager.first()) is not None:
                found.append(reverse(f"{name}_change", args=[row.pk]))
    return found


def _faults_of(console: Console, witness: Witness, address: str) -> Iterator[str]:
    page = console.page
    name = re.sub(r"[0-9a-f-]{36}|\d+", "one", address.strip("/")).replace("/", "-")
    witness.complaints.clear()  # axe tries what the policy refuses
    page.goto(console.url + address)
    page.wait_for_load_state("networkidle")
    yield from witness.complaints
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in (PHONE, DESK):
            page.set_viewport_size(size)
            _picture(page, f"{name}-{scheme}-{size['width']}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > size["width"]:
                yield f"{wide} px wide on a screen of {size['width']} px"
        for fault in faults_of(page):
            yield f"{scheme}, {fault}"


def _picture(page: Page, name: str) -> None:
    OPERATIONS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(OPERATIONS / f"{name}.png"), full_page=True)
