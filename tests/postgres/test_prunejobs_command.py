"""`manage.py prunejobs`: what it removes, what it says, and what it refuses."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from llmjobs.management.commands.prunejobs import duration_s
from llmjobs.models import Job, JobRequest
from llmjobs.states import State
from tests.factories import make_job, make_worker

pytestmark = pytest.mark.django_db(transaction=True)


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.fixture
def old(client, pool):
    def make(days, **fields):
        at = timezone.now() - timedelta(days=days)
        return make_job(State.COMPLETED, client=client, model=pool, created_at=at, finished_at=at, **fields)

    return make


def prunejobs(*arguments, out=None):
    out = StringIO() if out is None else out
    call_command("prunejobs", *arguments, stdout=out)
    return out.getvalue()


def test_without_options_the_settings_say_what_goes(old, settings):
    settings.LLMJOBS_KEEP_JOBS_DAYS, settings.LLMJOBS_KEEP_BODIES_DAYS = 30, 7
    old(31)
    old(8)
    kept = old(1)
    make_worker(stopped_at=timezone.now() - timedelta(days=31))
    assert prunejobs().splitlines() == [
        "Removed 1 job that finished more than 30d ago.",
        "Removed the bodies of 1 job that finished more than 7d ago.",
        "Removed 1 worker, of that age too.",
    ]
    assert Job.objects.count() == 2 and JobRequest.objects.get().job == kept


def test_options_go_before_settings(old):
    old(0.6)
    kept = old(0.4)
    assert prunejobs("--older-than", "12h", "--bodies-older-than", "540m").splitlines() == [
        "Removed 1 job that finished more than 12h ago.",
        "Removed the bodies of 1 job that finished more than 9h ago.",
    ]
    assert Job.objects.get() == kept and not JobRequest.objects.exists()


def test_a_dry_run_says_what_would_go_and_removes_nothing(old, settings):
    settings.LLMJOBS_KEEP_BODIES_DAYS = 7
    settings.LLMJOBS_IDEMPOTENCY_KEEP_S = 32 * 86_400
    old(31), old(31), old(8)
    old(31, request={"idempotency_key": "k"})
    said = prunejobs("--dry-run").splitlines()
    assert said == [
        "Would remove 2 jobs that finished more than 30d ago.",
        "Kept 1 job of that age: the end is still to be told to a webhook or a handler, or the Idempotency-Key is "
        "younger than 32d.",
        "Would remove the bodies of 1 job that finished more than 7d ago.",
    ]
    assert (Job.objects.count(), JobRequest.objects.count()) == (4, 4)


def test_a_terminal_sees_a_bar_and_a_file_a_line_for_each_tenth(old, settings):
    settings.LLMJOBS_PRUNE_ROWS = 1
    for _ in range(4):
        old(31)
    shown = prunejobs(out=Terminal())
    assert "\r" + "█" * 15 + "░" * 15 + "  2 of 4 jobs " in shown
    for _ in range(4):
        old(31)
    said = prunejobs().splitlines()
    assert said[:3] == ["1 of 4 jobs", "2 of 4 jobs", "3 of 4 jobs"]
    assert said[3] == "Removed 4 jobs that finished more than 30d ago."


@pytest.mark.parametrize(("text", "expected_s"), [("30d", 2_592_000), ("12h", 43_200), ("90m", 5_400), ("1.5s", 1.5)])
def test_a_duration_is_a_number_and_its_unit(text, expected_s):
    assert duration_s(text) == expected_s


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1 day", "30D", "1e3s", "nan", "inf", "1d12h", "²d"])
def test_another_duration_is_refused_with_what_was_expected(text):
    with pytest.raises(CommandError, match="expected a duration like 30d, 12h or 90m, got") as caught:
        prunejobs(f"--older-than={text}")
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["36501d", "999999999d"])
def test_more_than_a_hundred_years_are_refused(text):
    with pytest.raises(CommandError, match="expected at most 36500d, got"):
        prunejobs(f"--older-than={text}")


def test_where_jobs_are_kept_for_ever_an_age_is_asked_for(old, settings):
    settings.LLMJOBS_KEEP_JOBS_DAYS = 0
    old(10_000)
    with pytest.raises(CommandError, match="expected --older-than, got none"):
        prunejobs()
    assert Job.objects.count() == 1
