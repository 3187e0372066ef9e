"""`manage.py submitjobs`: what becomes of a file's lines, what it says, and that it may be killed at any point."""

import errno
import fcntl
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from llmjobs import intake, queue
from llmjobs.errors import IdempotencyInProgress
from llmjobs.job_files import running
from llmjobs.job_files.showing import Bar
from llmjobs.models import Job, JobRequest, JobResult
from tests.factories import make_client, make_job, make_worker
from tests.hands import Hand
from tests.helpers import eventually, process_environment
from tests.live_process import ROOT

pytestmark = pytest.mark.django_db(transaction=True)


def line(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt", "messages": [{"role": "user", "content": "Say hello."}], **fields}


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def run(*arguments: Any) -> SimpleNamespace:
    """Exit code, and what it says on both."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("submitjobs", *map(str, arguments), stdout=out, stderr=err)
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text().splitlines()]


@pytest.fixture
def jobs(tmp_path, client, pool) -> Path:
    return write(tmp_path / "jobs.jsonl", *(line(model=pool.name, metadata={"at": str(n)}) for n in range(1, 6)))


@pytest.fixture
def settling(pool):
    """Jobs complete as they are claimed, by a thread, until the test is over."""
    stop = threading.Event()

    def settle() -> None:
        hand = Hand(make_worker())
        while not stop.is_set():
            if claimed := hand.claim(pool, 50):
                hand.settle(*claimed)
            stop.wait(0.02)
        hand.close()
        connection.close()

    thread = threading.Thread(target=settle)
    thread.start()
    yield
    stop.set()
    thread.join()


# What becomes of the lines.


def test_each_line_is_a_job_in_order(jobs, client):
    done = run(jobs)

    assert (done.code, done.err) == (0, "")
    assert done.out == "lines: 5 submitted, 0 were before, 0 refused\n"
    found = [job.request.metadata["at"] for job in Job.objects.select_related("request").order_by("lane_order")]
    assert found == ["1", "2", "3", "4", "5"]
    assert set(Job.objects.values_list("client", flat=True)) == {client.pk}


def test_again_it_submits_nothing_and_what_follows_at_the_end(jobs, pool):
    run(jobs)
    assert run(jobs).out == "lines: 0 submitted, 5 were before, 0 refused\n"
    with jobs.open("a") as file:
        file.write(json.dumps(line(model=pool.name)) + "\n")

    assert run(jobs).out == "lines: 1 submitted, 5 were before, 0 refused\n"
    assert Job.objects.count() == 6


def test_a_bad_line_is_told_and_the_others_go_on(tmp_path, client, pool):
    bad = write(tmp_path / "jobs.jsonl", line(model=pool.name), "{", "", line(model="none"), line(model=pool.name))
    done = run(bad)

    assert done.code == 1
    assert done.out == "lines: 2 submitted, 0 were before, 2 refused\n"
    first, second = done.err.splitlines()
    assert first.startswith("line 2: not submitted: invalid_json: The line is not valid JSON")
    assert second.startswith("line 4: not submitted: model_not_found: ") and second.endswith("(model)")
    write(bad, line(model=pool.name), line(model=pool.name), "", line(model=pool.name), line(model=pool.name))
    assert run(bad).out == "lines: 2 submitted, 2 were before, 0 refused\n", "mended lines are taken by a rerun"


def test_fields_that_lines_leave_out_come_from_options(tmp_path, client, pool):
    fields = line(model=pool.name)
    del fields["model"]
    run(write(tmp_path / "jobs.jsonl", fields), "--model", pool.name, "--priority", "low")

    assert Job.objects.get().priority == 8

    run(write(tmp_path / "nulls.jsonl", {**fields, "model": None, "priority": None}), "--model", pool.name)
    assert Job.objects.count() == 2, "null is as good as nothing"


def test_standard_input_is_a_file_with_a_journal_of_its_own(jobs, tmp_path, monkeypatch):
    state = tmp_path / "state"
    for expected in ("lines: 5 submitted, 0 were before", "lines: 0 submitted, 5 were before"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(jobs.read_bytes())))
        assert run("-", "--state", state).out.startswith(expected)
    with pytest.raises(CommandError, match="expected --out or --state"):
        run("-")


# Results.


def test_results_are_written_as_jobs_end_and_once(jobs, tmp_path, settling):
    out = tmp_path / "results.jsonl"
    done = run(jobs, "--out", out)

    assert (done.code, done.err) == (0, "")
    assert "jobs:  5 completed" in done.out
    found = results(out)
    assert sorted(one["line"] for one in found) == [1, 2, 3, 4, 5]
    assert all(one["status"] == "completed" and one["metadata"]["at"] == str(one["line"]) for one in found)
    again = run(jobs, "--out", out)
    assert (again.code, results(out)) == (0, found)


def test_a_job_that_does_not_complete_is_a_failure_also_for_a_rerun(jobs, tmp_path):
    run(jobs)
    ids = list(Job.objects.order_by("id").values_list("id", flat=True))
    queue.cancel(ids)
    state, out = f"{jobs}.state", tmp_path / "results.jsonl"
    for _ in range(2):
        done = run(jobs, "--out", out, "--state", state)
        assert done.code == 1
        assert done.err.splitlines()[0] == "line 1: cancelled"
    assert len(results(out)) == 5


def test_a_torn_last_line_is_written_again_whole(jobs, tmp_path, settling):
    out = tmp_path / "results.jsonl"
    run(jobs, "--out", out)
    whole = out.read_bytes()
    for cut in (1, len(whole.splitlines()[-1])):
        out.write_bytes(whole[:-cut])
        run(jobs, "--out", out)
        assert sorted(one["line"] for one in results(out)) == [1, 2, 3, 4, 5]


def test_half_a_surrogate_pair_of_a_model_is_written_so_that_it_can_be_read(jobs, tmp_path, client):
    job = make_job("completed", client=client)
    JobResult.objects.filter(job=job).update(output='{"text": "\\ud83d"}')
    journal = Path(f"{jobs}.state")
    run(jobs)
    queue.cancel(list(Job.objects.exclude(pk=job.pk).values_list("id", flat=True)))
    journal.write_text(journal.read_text().replace(f"[1, {Job.objects.order_by('-id')[4].pk},", f"[1, {job.pk},"))
    out = tmp_path / "results.jsonl"
    run(jobs, "--out", out, "--state", journal)

    assert results(out)[0]["output"] == {"text": "\ud83d"}


def test_a_job_that_is_removed_just_before_it_is_fetched_is_told(jobs, monkeypatch):
    run(jobs)
    queue.cancel(list(Job.objects.values_list("id", flat=True)))
    real = running.Run._end

    def removed_before(self: Any, ended: Any) -> None:
        Job.objects.filter(id=ended[-1][1]).delete()
        real(self, ended)

    monkeypatch.setattr(running.Run, "_end", removed_before)
    assert "line 5: gone" in run(jobs, "--wait").err


def test_a_job_that_retention_took_is_told(jobs, tmp_path):
    run(jobs)
    Job.objects.filter(id=Job.objects.latest("id").pk).delete()
    queue.cancel(list(Job.objects.values_list("id", flat=True)))
    done = run(jobs, "--wait")

    assert done.code == 1
    assert "line 5: gone" in done.err


# A rerun after an interruption.


def test_a_line_that_was_committed_and_not_noted_is_found_days_later(jobs, settings):
    """Killed between the commit and the journal; its key is past its time by then."""
    run(jobs)
    journal = Path(f"{jobs}.state")
    lines = journal.read_bytes().splitlines(keepends=True)
    for kept in (lines[:3], [*lines[:3], lines[3][:-5]]):  # the second with a torn line
        journal.write_bytes(b"".join(kept))
        settings.LLMJOBS_IDEMPOTENCY_KEEP_S = 0
        assert run(jobs).out.startswith("lines: 3 submitted, 2 were before")
        assert Job.objects.count() == 5


def test_keys_of_lines_hold_as_anywhere(tmp_path, client, pool):
    queue.submit(client=client, idempotency_key="mine", **line(model=pool.name))
    keyed = write(tmp_path / "jobs.jsonl", line(model=pool.name, idempotency_key="mine"))
    run(keyed)
    assert Job.objects.count() == 1
    write(keyed.with_name("other.jsonl"), line(model=pool.name, idempotency_key="mine", user="ann"))
    assert "idempotency_key_reused" in run(keyed.with_name("other.jsonl")).err


def test_a_line_that_is_another_now_is_refused_and_nothing_submitted(jobs, pool):
    run(jobs)
    lines = jobs.read_text().splitlines()
    write(jobs, *lines[:2], line(model=pool.name, user="ann"), *lines[3:])
    for _ in range(2):
        with pytest.raises(CommandError, match="line 3 is not what was submitted as line 3"):
            run(jobs)
        journal = Path(f"{jobs}.state")
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))  # found by its key as well
    assert Job.objects.count() == 5


def test_files_that_are_not_what_they_are_taken_for_are_refused_and_stay(jobs, tmp_path, client, settling):
    foreign = write(tmp_path / "notes.txt", "nothing of ours").read_bytes()
    out = tmp_path / "results.jsonl"
    make_client("other")
    run(jobs, "--out", out, "--client", client.name)
    for message, arguments in {
        "is no file of submitjobs": (jobs, "--state", tmp_path / "notes.txt", "--client", "other"),
        "begins with": (jobs, "--out", tmp_path / "notes.txt", "--client", "other"),
        "is of a run for the client": (jobs, "--out", out, "--client", "other"),
        "has results of another run": (jobs, "--out", out, "--state", tmp_path / "new", "--client", "other"),
        "expected one of the clients": (jobs, "--client", "nobody"),
        "nothing.jsonl: No such file": (tmp_path / "nothing.jsonl", "--client", "other"),
    }.items():
        with pytest.raises(CommandError, match=message) as refused:
            run(*arguments)
        assert refused.value.returncode == 2
    assert (tmp_path / "notes.txt").read_bytes() == foreign
    assert len(results(out)) == 5


def test_what_can_not_be_written_is_named_and_the_rerun_goes_on(jobs, tmp_path, monkeypatch):
    real, room = os.write, [100]  # the journal's first line fits

    def full(number: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(number, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(CommandError, match=r"jobs.jsonl.state: No space left on device") as refused:
            run(jobs)
    assert refused.value.returncode == 2
    assert run(jobs).out.startswith("lines: 5 submitted")
    assert Job.objects.count() == 5


def test_what_can_not_be_read_again_is_refused(jobs, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(CommandError, match="expected a file that is read again") as refused:
            run(jobs, "--out", path, "--state", tmp_path / "state")
        assert refused.value.returncode == 2


def test_a_new_journal_s_name_is_on_disk_before_anything_is_submitted(jobs, monkeypatch):
    real, kinds = os.fsync, list[tuple[bool, int]]()

    def noted(number: int) -> None:
        kinds.append((stat.S_ISDIR(os.fstat(number).st_mode), Job.objects.count()))
        real(number)

    monkeypatch.setattr(os, "fsync", noted)
    run(jobs)
    assert kinds[0] == (True, 0)


def test_two_at_once_do_not_share_a_journal(jobs):
    run(jobs)
    with Path(f"{jobs}.state").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CommandError, match="another submitjobs is at it"):
            run(jobs)


def test_a_full_queue_is_waited_for_in_order(jobs, client, settling, monkeypatch):
    monkeypatch.setattr(running, "FULL_WAIT_MAX_S", 0.1)
    client.max_queued = 2
    client.save()
    done = run(jobs, "--wait")

    assert (done.code, done.err) == (0, "")
    found = [job.request.metadata["at"] for job in Job.objects.select_related("request").order_by("lane_order")]
    assert found == ["1", "2", "3", "4", "5"]


def test_what_a_run_waits_for_is_said(jobs, client, settling, monkeypatch):
    monkeypatch.setattr(running, "FULL_WAIT_MAX_S", 0.1)
    real, is_held, said = intake.Intake.take, iter([True, False]), set[str]()

    def held_once(self: Any, asked: Any) -> Any:
        return [IdempotencyInProgress("wait")] * len(asked) if next(is_held, False) else real(self, asked)

    monkeypatch.setattr(intake.Intake, "take", held_once)
    monkeypatch.setattr(Bar, "note", lambda self, why: said.add(why.partition(":")[0]))
    client.max_queued = 2
    client.save()
    run(jobs)

    assert said == {"a line's key is just being taken in elsewhere", "the queue is full"}


def test_a_database_that_is_away_for_a_moment_is_waited_for(jobs, monkeypatch):
    monkeypatch.setattr(running, "AWAY_EVERY_S", 0.01)
    real, failures = intake.Intake.take, iter([True, True, False, False])

    def fails_after_the_commit(self: Any, asked: Any) -> Any:
        taken = real(self, asked)
        if next(failures):
            raise OperationalError("the server closed the connection unexpectedly")
        return taken

    monkeypatch.setattr(intake.Intake, "take", fails_after_the_commit)
    assert run(jobs).code == 0
    assert Job.objects.count() == 5


def test_ctrl_c_says_how_to_go_on(jobs, monkeypatch):
    monkeypatch.setattr(running.Run, "wait", lambda self: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the suite runs in the background
    try:
        done = run(jobs, "--wait")
    finally:
        signal.signal(signal.SIGINT, before)

    assert done.code == 130
    assert "The same command again goes on where this stopped" in done.err


LINES, KILLS = 3_000, 3


def start(*arguments: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-W", "ignore", "manage.py", "submitjobs", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=process_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_killed_at_any_point_it_submits_nothing_twice_and_writes_each_result_once(tmp_path, client, pool, settling):
    """SIGKILL, again and again, until a run comes to its end."""
    client.tier.max_queued = client.tier.max_queued_tokens = None
    client.tier.save()
    jobs = write(
        tmp_path / "jobs.jsonl", *(line(model=pool.name, metadata={"at": str(n)}) for n in range(1, LINES + 1))
    )
    out, journal = tmp_path / "results.jsonl", tmp_path / "results.jsonl.state"
    dice, kills = random.Random(7), 0

    def written() -> int:
        return sum(path.stat().st_size for path in (out, journal) if path.exists())

    while True:
        running, enough = start(jobs, "--out", out), written() + dice.randrange(1, 60_000)

        def is_in_the_middle(running=running, enough=enough, kills=kills) -> None:
            assert running.poll() is not None or (kills < KILLS and written() >= enough)

        eventually(is_in_the_middle, within_s=120)
        kills += running.poll() is None
        running.kill()
        said, errors = running.communicate()
        if running.returncode != -signal.SIGKILL:
            break
    assert running.returncode == 0, errors
    assert kills >= 2, "expected a run that takes longer than to kill it"
    assert sorted(one["line"] for one in results(out)) == list(range(1, LINES + 1))
    made = list(JobRequest.objects.values_list("metadata__at", flat=True))
    assert sorted(map(int, made)) == list(range(1, LINES + 1)), "each line is one job"
    assert f"results: {LINES:,}" in said.decode()
