"""A dump, restored elsewhere: everything is there, and the queue goes on from it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from llmjobs.models import Attempt, Job
from project.embedded_postgres.place import find_binaries
from tests.hands import Hand, submit
from tests.helpers import database_url
from tests.simulated import KEY
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)

RESTORED = "llmjobs_restored"
RELATIONS = """
select relname, relkind::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'S')
"""
# What each row says, whatever the order of the rows; and where a sequence is.
TOLD = {
    "r": "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) from {} as t",
    "S": "select last_value, 0 from {}",
}


def client_programs() -> Path | None:
    """The folder of a pg_dump as new as the server."""
    if settings.IS_EMBEDDED:
        return find_binaries("")
    found = shutil.which("pg_dump")
    return Path(found).parent if found else None


def run(program: str, *arguments: object) -> None:
    folder = client_programs()
    assert folder is not None
    done = subprocess.run(
        [folder / program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def told(url: str) -> dict[str, tuple[int, int]]:
    """Of each table how many rows, and a digest of them; of each sequence where it is."""
    with psycopg.connect(url) as conn:
        names = conn.execute(RELATIONS).fetchall()
        return {name: conn.execute(TOLD[str(kind)].format(name)).fetchone() for name, kind in names}


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """An empty database at the same server."""
    url = database_url()
    with psycopg.connect(url, autocommit=True) as conn:
        name = f"{RESTORED}_{connection.settings_dict['NAME']}"
        conn.execute(f'drop database if exists "{name}" with (force)')
        conn.execute(f'create database "{name}" template template0')
        yield url.replace(f"/{connection.settings_dict['NAME']}?", f"/{name}?")
        conn.execute(f'drop database "{name}" with (force)')


@pytest.mark.skipif(client_programs() is None, reason="pg_dump is not installed here")
def test_a_dump_brings_back_jobs_ledger_and_queue(client, pool, elsewhere, tmp_path):
    """What ran when it was dumped is run again: its worker never comes to that database. The rest goes on by itself."""
    body = {"messages": [{"role": "user", "content": "Hello. [[tokens=5]]"}]}
    submit(client, pool, 5, body=body)
    with worker_process("--until-empty", **KEY) as worker:
        assert worker.ended() == 0, worker.output()
    submit(client, pool, 4, body=body)
    hand = Hand()
    (running,) = hand.claim(pool, 1)
    hand.close()

    run("pg_dump", "--format=custom", f"--file={tmp_path}/llmjobs.dump", database_url())
    run("pg_restore", "--exit-on-error", "--no-owner", "--jobs=2", f"--dbname={elsewhere}", f"{tmp_path}/llmjobs.dump")
    assert told(elsewhere) == told(database_url())

    with worker_process("--until-empty", DATABASE_URL=elsewhere, **KEY) as worker:
        assert worker.ended() == 0, worker.output()
    with psycopg.connect(elsewhere) as conn:
        states = dict(conn.execute("select state, count(*) from llmjobs_job group by 1").fetchall())
        outcomes = conn.execute(
            "select outcome from llmjobs_attempt where job_id = %s order by number", [running.id]
        ).fetchall()
        ledger = conn.execute("select count(*), count(*) filter (where outcome = 'completed') from llmjobs_attempt")
        assert states == {"completed": 9}
        assert outcomes == [("lost",), ("completed",)]
        assert ledger.fetchone() == (10, 9)
    assert Job.objects.filter(state="queued").count() == 3, "the database that was dumped went its own way"
    assert Attempt.objects.filter(job_id=running.id, ended_at=None).exists()
