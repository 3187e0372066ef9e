"""The console at 1,000,000 jobs of 10,000 clients, 100,000 of them dead: how long its pages take, and what claims feel
of five that are open.

Pages are asked of a web server in a process of its own, over HTTP, as an operator who may see everything. An open
console is the overview with its live statistics and its charts, and somebody who looks at another page every few
seconds. Claims with five of them and without are made in turns, block by block.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import httpx2
import websockets
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client as Session
from django.urls import reverse

from llmjobs.models import Client, Job, Model
from llmjobs.states import State
from tests.bench import databases
from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.claims import claimer
from tests.bench.ground import Ground
from tests.bench.report import Table, median, percentile, progress

PAGE_MS, MOST = 300.0, 1.2
CONSOLES, REFRESH_S, LOOK_S = 5, 12.0, 4.0  # charts are fetched anew, another page is opened: every so often
PER_CLAIM, PACE_S = 10, 0.02
WORST_SHOWN = 6
ERRORS = ("server_error", "timeout", "overloaded", "connection_reset", "no_end")

# Dead letters as the verbs leave them: they ran, then died. What was asked, what came of it, five attempts.
DEAD = """
insert into llmjobs_job (
    public_id, pool_id, client_id, tier_id, endpoint, priority, size, state, attempt, failures, epoch, worker_id,
    est_input_tokens, est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, retry_until, created_at,
    available_at, started_at)
select gen_random_uuid(), %(pool)s, c.id, c.tier_id, '/v1/chat/completions', 5, 0, 'running', 5, 4, 10,
    gen_random_uuid(), 8, 32, 40, 5, 120, 3600, now(), now() - interval '1 day', now() - interval '1 day',
    now() - interval '1 hour'
from llmjobs_client as c
cross join generate_series(1, %(each)s) as n
"""
AROUND = """
with requests as (
    insert into llmjobs_jobrequest (job_id, client_id, body, prompt_hash)
    select id, client_id, '{"messages": [{"role": "user", "content": "Say hello."}]}', '' from llmjobs_job
    where state = 'running'
), attempts as (
    insert into llmjobs_attempt (
        job_id, number, pool_id, client_id, tier_id, worker_id, waited_s, charged, flow_weight, tier_weight, claimed_at,
        sent_at, ended_at, outcome, decision, error_code, error_message, provider_status)
    select id, n, pool_id, client_id, tier_id, gen_random_uuid(), 1.5, 40, 1, 1, started_at, started_at, started_at,
        'unknown', 'Again.', (%(errors)s::text[])[1 + id %% %(count)s], 'The server had an error.', 500
    from llmjobs_job, generate_series(1, attempt) as n
    where state = 'running'
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'done', '{"status": "dead"}' from llmjobs_job where state = 'running'
)
insert into llmjobs_jobresult (job_id, error_code, error_message, error_class, provider_status, error_attempt)
select id, (%(errors)s::text[])[1 + id %% %(count)s], 'The server had an error.', 'unknown', 500, 5
from llmjobs_job
where state = 'running'
"""
END = """
update llmjobs_job
set state = 'dead', failures = 5, epoch = epoch + 1, worker_id = null,
    finished_at = now() - make_interval(secs => id % 86400)
where state = 'running'
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    clients: int = 10_000
    queued_each: int = 90
    dead_each: int = 10
    turns: int = 20  # each page
    blocks: int = 8  # of claims, with consoles and without in turns
    claims: int = 250  # a block


QUICK = Sizes(200, 45, 5, 5, 2, 60)


def measure(ground: Ground, *, is_quick: bool) -> Table:
    sizes = QUICK if is_quick else Sizes()
    jobs = sizes.clients * (sizes.queued_each + sizes.dead_each)
    dead = sizes.clients * sizes.dead_each
    table = Table(f"The console, at {jobs:,} jobs of {sizes.clients:,} clients, {dead:,} of them dead")
    backlog = Backlog.new()
    try:
        _fill(backlog, sizes)
        with databases.using(backlog.database), ground.web() as url:
            asyncio.run(_Consoles(table, sizes, backlog, url).run())
    finally:
        backlog.drop()
    return table


def _fill(backlog: Backlog, sizes: Sizes) -> None:
    progress(f"console: filling up to {sizes.clients * (sizes.queued_each + sizes.dead_each):,} jobs")
    backlog.add_clients(clients_of_all_tiers(sizes.clients))
    with backlog.connect() as conn, conn.transaction():
        conn.execute(DEAD, {"pool": backlog.pool_id, "each": sizes.dead_each})
        conn.execute(AROUND, {"errors": list(ERRORS), "count": len(ERRORS)})
        conn.execute(END)
        conn.execute("delete from llmjobs_inbox")  # of jobs that were never queued
    backlog.fill(sizes.queued_each)
    with backlog.connect() as conn:
        conn.execute("vacuum analyze")


class _Consoles:
    def __init__(self, table: Table, sizes: Sizes, backlog: Backlog, url: str) -> None:
        self._table, self._sizes, self._backlog, self._url = table, sizes, backlog, url
        root = User.objects.create_superuser("root", password="password")
        session = Session()
        session.force_login(root)
        self._cookie = f"{settings.SESSION_COOKIE_NAME}={session.cookies[settings.SESSION_COOKIE_NAME].value}"
        self._pages = pages()

    async def run(self) -> None:
        await self._measure_pages()
        await self._measure_claims()

    async def _measure_pages(self) -> None:
        took_ms: dict[str, list[float]] = {}
        async with self._client() as client:
            for page in self._pages:
                progress(f"console: {page}")
                took_ms[page] = [await self._ask(client, page) for _ in range(self._sizes.turns + 2)][2:]
        p95 = {page: percentile(values, 95) for page, values in took_ms.items()}
        worst = sorted(p95, key=lambda page: p95[page], reverse=True)
        self._table.add(f"{len(p95)} pages, p50 of the medians", f"{median(map(median, took_ms.values())):.0f} ms")
        self._table.at_most("p95 of the slowest page", p95[worst[0]], PAGE_MS, "ms", digits=0)
        for page in worst[:WORST_SHOWN]:
            self._table.add(f"    {page}", f"p50 {median(took_ms[page]):.0f}, p95 {p95[page]:.0f} ms")

    async def _measure_claims(self) -> None:
        alone: list[float] = []
        watched: list[float] = []
        async with claimer(self._backlog.pool_id, self._backlog.database) as one:
            for block in range(2 * self._sizes.blocks + 1):
                is_watched = block % 2 == 1
                progress(f"console: claims, block {block} of {2 * self._sizes.blocks}")
                async with self._open_consoles() if is_watched else contextlib.nullcontext():
                    for _ in range(self._sizes.claims):
                        jobs, took_ms = await one.claim_all(PER_CLAIM)
                        await one.settle(jobs)
                        if block:  # the first warms up
                            (watched if is_watched else alone).append(took_ms)
                        await asyncio.sleep(PACE_S)
        ratio = percentile(watched, 95) / percentile(alone, 95)
        self._table.at_most(f"claims' p95 with {CONSOLES} open consoles, against none", ratio, MOST, "times", digits=2)
        for name, values in (("without", alone), ("with", watched)):
            self._table.add(
                f"    {len(values):,} claims {name}", f"p50 {median(values):.2f}, p95 {percentile(values, 95):.2f} ms"
            )

    @contextlib.asynccontextmanager
    async def _open_consoles(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(loop)
                for number in range(CONSOLES)
                for loop in (self._watch(), self._refresh(number), self._look_around(number))
            ]
            yield
            for task in tasks:
                task.cancel()

    async def _watch(self) -> None:
        """The live statistics, as the overview reads them."""
        url = f"{self._url.replace('http', 'ws', 1)}/ws/queue/"
        headers = {"Cookie": self._cookie, "Origin": self._url}
        async with websockets.connect(url, additional_headers=headers) as socket:
            async for _ in socket:
                pass

    async def _refresh(self, number: int) -> None:
        """The charts, fetched anew."""
        async with self._client() as client:
            await asyncio.sleep(number * REFRESH_S / CONSOLES)
            while True:
                await self._ask(client, overview())
                await asyncio.sleep(REFRESH_S)

    async def _look_around(self, number: int) -> None:
        async with self._client() as client:
            pages_ = itertools.cycle(self._pages)
            for page in itertools.islice(pages_, number * len(self._pages) // CONSOLES, None):
                await self._ask(client, page)
                await asyncio.sleep(LOOK_S)

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self._url, headers={"Cookie": self._cookie}, timeout=60)

    async def _ask(self, client: httpx2.AsyncClient, page: str) -> float:
        """Milliseconds until all of it came."""
        began_at = time.perf_counter()
        answer = await client.get(page)
        if answer.status_code != 200:
            raise RuntimeError(f"expected 200 of {page}, got {answer.status_code}")
        return (time.perf_counter() - began_at) * 1000


def overview() -> str:
    return reverse("admin:index")


def pages() -> Sequence[str]:
    """Every list and a page of every table that has rows, and the lists as operators narrow them."""
    found = [overview(), reverse("admin:app_list", args=["llmjobs"])]
    for table in apps.get_app_config("llmjobs").get_models():
        if not admin.site.is_registered(table):
            continue
        name = f"admin:llmjobs_{table._meta.model_name}"
        found.append(reverse(f"{name}_changelist"))
        if (row := table._default_manager.first()) is not None:
            found.append(reverse(f"{name}_change", args=[row.pk]))
    jobs, letters = reverse("admin:llmjobs_job_changelist"), reverse("admin:llmjobs_deadletter_changelist")
    client, model = Client.objects.order_by("id")[50], Model.objects.get(name="bench")
    dead = Job.objects.filter(state=State.DEAD).order_by("id")[100]
    found += [
        f"{jobs}?status=dead", f"{jobs}?status=queued", f"{jobs}?status=dead&error={ERRORS[0]}",
        f"{jobs}?client={client.name}", f"{jobs}?client={client.name}&status=dead", f"{jobs}?model={model.name}",
        f"{jobs}?q={dead.public_id}", f"{jobs}?q={client.name}", f"{jobs}?priority=5&status=queued",
        reverse("admin:llmjobs_job_change", args=[dead.pk]), reverse("admin:llmjobs_client_change", args=[client.pk]),
        reverse("admin:llmjobs_model_change", args=[model.pk]), f"{letters}?error={ERRORS[0]}",
    ]  # fmt: skip
    return found
