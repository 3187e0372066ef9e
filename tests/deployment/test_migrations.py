"""Migrations under a running older version: none takes a long lock, rewrites a table, or makes an older worker's writes
fail; what can't have its lock gives up; and workers of the version before run on.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RunPython

from llmjobs.models import Attempt, Job
from llmjobs.states import TERMINAL
from tests.hands import submit
from tests.helpers import database_url, eventually, process_environment
from tests.live_process import ROOT
from tests.simulated import KEY
from tests.worker_process import FAST

FIRST = "0015"
# These look at every job once, under a lock: /docs/upgrading/ says so, and none may follow.
NEED_A_STOP = {"0016_tallies", "0017_dead_letters"}
# Of as many rows as people entered: a lock on one of these lasts milliseconds.
SMALL = {
    f"llmjobs_{name}"
    for name in (
        "apikey", "client", "claimspause", "incident", "incidentnotice", "jobcountturn", "model", "operation",
        "operationpart", "provider", "tier", "watch", "worker",
    )
}  # fmt: skip
PYTHON = {"0021_roles"}  # makes three groups
BEFORE = "4dd1a07"  # a commit of the version before this one's migrations, and the last that it had
BEFORE_MIGRATION = "0023_traces"
SUBMIT = """
from llmjobs.queue import submit
submit(client="acme", model="model", messages=[{"role": "user", "content": "Hello. [[tokens=20]]"}])
"""


def ours() -> list[str]:
    return sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "llmjobs" and name >= FIRST)


def statements_of(name: str) -> tuple[set[str], list[str]]:
    """The tables that were there before it, and what it says to the database, without the bodies of functions."""
    executor = MigrationExecutor(connection)
    node = ("llmjobs", name)
    migration = executor.loader.graph.nodes[node]
    state = executor.loader.project_state(node, at_end=False)
    tables = {model._meta.db_table for model in state.apps.get_models(include_auto_created=True)}
    with connection.schema_editor(collect_sql=True, atomic=False) as editor:
        migration.apply(state, editor, collect_sql=True)
    text = "\n".join(line for line in editor.collected_sql if not line.startswith("--"))
    text = re.sub(r"\$(\w*)\$.*?\$\1\$", "''", text, flags=re.DOTALL)
    return tables, [" ".join(part.split()) for part in text.split(";") if part.strip()]


def faults_of(statement: str, tables: set[str]) -> Iterator[str]:
    """Why it may not run beside workers that claim and settle, or beside an older version's writes."""
    said = statement.lower()
    altered = re.match(r'alter table (?:only )?"?(\w+)"?', said)
    if re.match(r"lock table|update |delete |insert into \w+ .*select .* from llmjobs_(job|attempt)", said):
        yield "it works through rows, or locks a table for all that follows"
    if re.match(r"drop table|alter table .* rename|truncate", said):
        yield "an older version still uses it"
    index = re.match(r'create (?:unique )?index (?!concurrently ).*? on "?(\w+)"?', said)
    if index and index[1] in tables - SMALL:
        yield "an index is made CONCURRENTLY, or all writers wait"
    if altered and altered[1] in tables:
        if re.search(r"drop column|alter column .* type |set not null|alter column .* drop default", said):
            yield "an older version's writes fail, or the table is rewritten"
        if "add column" in said and " not null" in said and " default " not in said:
            yield "an older version's INSERT does not know the column: null, or db_default"
        if "add constraint" in said and "not valid" not in said and altered[1] not in SMALL:
            yield "it is checked of every row under a lock: NOT VALID, validated later"


@pytest.mark.django_db(transaction=True)
def test_every_migration_may_run_beside_the_version_before():
    migrations = MigrationLoader(None).disk_migrations
    found = {}
    for name in ours():
        tables, statements = statements_of(name)
        found[name] = [(statement[:200], fault) for statement in statements for fault in faults_of(statement, tables)]
        by_python = any(isinstance(one, RunPython) for one in migrations["llmjobs", name].operations)
        assert name in PYTHON or not by_python, f"what {name} does in Python, nobody has looked at"
    page = (ROOT / "llmjobs" / "docs" / "pages" / "upgrading.md").read_text()
    assert all(found.pop(name) and name in page for name in NEED_A_STOP)
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    "statement",
    [
        'ALTER TABLE "llmjobs_job" ADD COLUMN "x" integer NOT NULL',
        'ALTER TABLE "llmjobs_job" ADD COLUMN "x" integer DEFAULT 0 NOT NULL; ',
        'ALTER TABLE "llmjobs_tier" ALTER COLUMN "x" DROP DEFAULT',
        'ALTER TABLE "llmjobs_job" ALTER COLUMN "x" TYPE bigint USING "x"::bigint',
        'ALTER TABLE "llmjobs_job" ADD CONSTRAINT "c" CHECK (x > 0)',
        'CREATE INDEX "i" ON "llmjobs_job" ("x")',
        "lock table llmjobs_job in share mode",
        "update llmjobs_job set x = 1",
        "insert into llmjobs_new (a) select id from llmjobs_job",
        'ALTER TABLE "llmjobs_job" DROP COLUMN "x"',
    ],
)
def test_what_must_not_run_beside_them_is_known(statement):
    """The second alone is harmless; what Django lets follow it, the third, is not."""
    found = list(faults_of(statement, {"llmjobs_job", "llmjobs_tier"}))
    assert bool(found) == (" DEFAULT 0 " not in statement)


def to(name: str | None) -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("llmjobs", name)] if name else executor.loader.graph.leaf_nodes("llmjobs"))


@pytest.fixture
def before(transactional_db) -> Iterator[None]:
    """The database as the version before left it; afterwards it is as it was."""
    to(BEFORE_MIGRATION)
    try:
        yield
    finally:
        to(None)


def files() -> dict[str, int]:
    """Of each table the file that it is in: another one after it was rewritten."""
    with connection.cursor() as cursor:
        cursor.execute("select relname, relfilenode from pg_class where relkind = 'r' and relname like 'llmjobs%'")
        return dict(cursor.fetchall())


def migrate(**environ: str) -> "subprocess.CompletedProcess[str]":
    """As an operator would, or a unit of ours."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "manage.py", "migrate", "--noinput"],
        cwd=ROOT, env=process_environment(**environ), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_who_can_not_have_a_lock_gives_up_and_is_done_the_next_time(before):
    """A forgotten transaction must not make all that claim and submit wait behind a migration that waits for it."""
    tables = files()
    with psycopg.connect(database_url()) as forgotten:
        forgotten.execute(f"lock table {', '.join(tables)} in access share mode")
        gave_up = migrate(PGOPTIONS="-clock_timeout=300ms")
        assert gave_up.returncode != 0 and "lock timeout" in gave_up.stderr, gave_up.stderr
        forgotten.rollback()
    done = migrate(PGOPTIONS="-clock_timeout=5s")
    assert done.returncode == 0, done.stderr
    after = files()
    assert {name: after[name] for name in tables} == tables, "no table was rewritten"
    assert migrate().stdout.rstrip().endswith("No migrations to apply.")


def older_tree(folder: Path) -> None:
    """The code of the commit before, out of this checkout's history."""
    packed = subprocess.run(
        ["git", "archive", BEFORE, "manage.py", "llmjobs", "project", "templates"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def has_history() -> bool:
    return subprocess.run(["git", "cat-file", "-e", BEFORE], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_history(), reason="this checkout has no history to take an older version from")
def test_the_version_before_runs_on_through_the_migration(before, client, pool, tmp_path):
    """A worker of the older code that was there before runs what both versions submit after."""
    older_tree(tmp_path)
    around = process_environment(**FAST, **KEY, LLMJOBS_DATA_DIR=str(settings.DATA_DIR))
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "manage.py", "runworker", "--die-with-parent"],
            cwd=tmp_path, env=around, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip

        def said() -> str:
            return os.pread(log.fileno(), 200_000, 0).decode(errors="replace")

        def ended(count: int) -> None:
            assert worker.poll() is None, said()
            states = list(Job.objects.values_list("state", flat=True))
            assert len(states) == count and set(states) <= TERMINAL, states

        try:
            eventually(lives, within_s=60)
            done = migrate(PGOPTIONS="-clock_timeout=5s")
            assert done.returncode == 0, done.stderr
            ask(client, pool, 20)
            submitted = subprocess.run(
                [sys.executable, "-W", "ignore", "manage.py", "shell", "-c", SUBMIT],
                cwd=tmp_path, env=around, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert submitted.returncode == 0, submitted.stderr
            eventually(lambda: ended(21), within_s=60)
            said_all = said()
        finally:
            worker.terminate()
            worker.wait(30)
    assert set(Job.objects.values_list("state", flat=True)) == {"completed"}
    assert Attempt.objects.count() == 21
    assert "Traceback" not in said_all and "failed" not in said_all, said_all


def lives() -> None:
    """Asked without the models of this version, which the database does not have yet."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from llmjobs_worker")
        assert cursor.fetchone() == (1,)


def ask(client, pool, count: int) -> list[Job]:
    return submit(client, pool, count, body={"messages": [{"role": "user", "content": "Hello. [[tokens=20]]"}]})
