"""Shares in settled tokens with eight workers that claim one job each: the laws of `make bench`, at a small size."""

import asyncio

import pytest
from django.db import connection

from llmjobs.models import Attempt, Job
from tests.bench.backlog import Backlog
from tests.bench.flood import Flood
from tests.bench.ground import MODEL
from tests.bench.race import RUNNERS, Race
from tests.factories import make_model

pytestmark = pytest.mark.django_db(transaction=True)

JOBS = 800
# One job of the smallest tier, at its dearest, is so large a part of its share over so few jobs; over 5,000 and 50,000
# the benchmark asks for 3 % and 1 %.
MOST_ERROR = 0.25
MOST_ERROR_OF_LARGEST = 0.03


@pytest.fixture
def backlog() -> Backlog:
    return Backlog(connection.settings_dict["NAME"], make_model(MODEL).pk)


def raced(backlog: Backlog, jobs: int, *, is_corrected: bool = True) -> Race:
    race = Race(backlog, is_corrected=is_corrected)
    race.fill(jobs)
    asyncio.run(race.run([jobs]))
    return race


def test_settled_tokens_follow_the_weights_however_wrong_the_estimates(backlog):
    """Tiers 16 : 4 : 1, clients 3 : 1, costs 31 : 1, actual costs 0.1 to 3 times the estimates."""
    race = raced(backlog, JOBS)
    errors = race.count.tier_errors()
    assert abs(errors["enterprise"]) <= MOST_ERROR_OF_LARGEST, errors
    assert max(map(abs, errors.values())) <= MOST_ERROR, errors
    assert race.gap_over_bound() <= 1
    assert race.twice == 0
    assert not Attempt.objects.filter(number__gt=1).exists()
    waiting = set(Job.objects.filter(state="queued").values_list("client__name", flat=True))
    assert waiting == {runner.name for runner in RUNNERS}, "somebody was not backlogged throughout"


def test_without_the_correction_at_settle_the_shares_diverge(backlog):
    """So the bound above can be missed, and the error of a tier too."""
    race = raced(backlog, JOBS // 2, is_corrected=False)
    assert race.gap_over_bound() > 1


def test_a_flood_of_one_client_leaves_the_next_client_s_job_its_turn(backlog):
    """Its answer takes at most a fifth longer than alone, and nothing like the flood's length; work is conserved."""
    flood = Flood(backlog, 3_000)
    flood.prepare()
    times = asyncio.run(flood.run(turns=8, rounds=1))
    alone, beside = (sorted(took.answer_ms for took in times[is_alone])[4] for is_alone in (True, False))
    assert beside <= 2 * alone, f"{alone:.0f} ms alone, {beside:.0f} ms beside a flood"
    assert Job.objects.filter(client__name="flooding", state="completed").exists(), "the flood did not run beside it"
