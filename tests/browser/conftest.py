"""The whole site in real processes: simulator, web server, worker, and a Chromium in front of them.

The processes are started once for this package, because that takes seconds; each test has a client, a user, a model
and a browser of its own. What a test writes must be committed for the processes to see it, and playwright keeps an
event loop in this thread, which keeps the ORM out of it: so `apart` is how tests and fixtures reach the database. It is
flushed at the end.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.models import Value
from django.db.models.functions import Concat
from django.test import Client as Session
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page

from llmjobs.models import Client, Job, Model, Turnstile
from llmjobs.testing import SimulatorProcess
from tests.browser.chromium import WAIT_MS, Witness, chromium, executable
from tests.conftest import SEEDS
from tests.factories import (
    make_client,
    make_job,
    make_key,
    make_model,
    make_provider,
    make_tier,
    make_user,
    make_worker,
)
from tests.helpers import process_environment
from tests.live_process import ROOT, WebServer, web_server


@dataclass
class Stack:
    server: WebServer
    simulator: SimulatorProcess


@dataclass
class Site:
    """The site as one user sees it."""

    stack: Stack
    browser: Browser
    client: Client
    user: User
    model: Model
    api_key: str
    cookie: str
    witnesses: list[Witness] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.stack.server.url

    def tab(self, path: str = "/", *, beside: Page | None = None, **context: Any) -> Page:
        """A page of `path`, in a context of its own or in that of the tab `beside`."""
        page = (beside.context if beside else self._context(**context)).new_page()
        self.witnesses.append(Witness(page, self.url))
        page.goto(self.url + path)
        return page

    def _context(self, **options: Any) -> BrowserContext:
        context = self.browser.new_context(**options)
        context.set_default_timeout(WAIT_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.add_cookies([{"name": "sessionid", "value": self.cookie, "url": self.url}])
        return context

    @property
    def complaints(self) -> list[str]:
        return [complaint for witness in self.witnesses for complaint in witness.complaints]

    def forgive(self) -> None:
        """Browsers note every answer above 399 in the console; a test that asks for one says so here."""
        self.witnesses.clear()

    def pause(self, is_paused: bool = True) -> None:
        """Of the model: its jobs wait, as if others were before them."""
        apart(Model.objects.filter(pk=self.model.pk).update, is_paused=is_paused)


def apart(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What `function` returns, in a thread and over a connection of its own."""

    def run() -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.fixture(scope="package")
def stack(django_db_setup: None, django_db_blocker: Any) -> Iterator[Stack]:
    executable()  # or nothing need be started
    with django_db_blocker.unblock():
        apart(_seed)
        try:
            with SimulatorProcess() as simulator, web_server() as server, worker_process():
                yield Stack(server, simulator)
        finally:
            apart(call_command, "flush", interactive=False, verbosity=0)
            apart(_seed)


def _seed() -> None:
    """As the fixture `seeds` does it, but committed: that one would keep it in a test's own transaction."""
    if not Turnstile.objects.exists():
        with connection.cursor() as cursor:
            cursor.execute(SEEDS)


@pytest.fixture
def site(stack: Stack) -> Iterator[Site]:
    stack.simulator.reset()
    with chromium() as browser:
        yield apart(_made, stack, browser)


def _made(stack: Stack, browser: Browser) -> Site:
    # The page offers models by name and begins with the first: it is this test's, not one that another has paused.
    Model.objects.exclude(name__startswith="of-another-test").update(name=Concat(Value("of-another-test-"), "name"))
    client = make_client(tier=make_tier(max_priority=1))
    user = make_user(client)
    model = make_model(
        provider=make_provider(base_url=stack.simulator.url), input_usd_per_mtok="0.40", output_usd_per_mtok="1.60"
    )
    session = Session()
    session.force_login(user)
    return Site(stack, browser, client, user, model, make_key(client), session.cookies["sessionid"].value)


def make_running(site: Site, *texts: str) -> Job:
    """A job that has said `texts`, and says no more.

    Its worker's next heartbeat is not due for an hour, so that the real worker does not take it back.
    """
    worker = make_worker(heartbeat_at=timezone.now() + timedelta(hours=1))
    job = make_job("running", client=site.client, model=site.model, worker_id=worker.pk)
    first = job.events.latest("seq").seq + 1
    for seq, text in enumerate(texts, start=first):
        job.events.create(seq=seq, type="delta", data={"text": text})
    return job


@contextmanager
def worker_process() -> Iterator[None]:
    command = [sys.executable, "-W", "ignore", "manage.py", "runworker", "--concurrency", "8", "--die-with-parent"]
    process = subprocess.Popen(command, cwd=ROOT, env=process_environment(), stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
