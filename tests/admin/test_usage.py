"""What the pages of clients, tiers, models and providers say beside their forms: now, this month, the last 30 days."""

import re
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client as Browser

from llmjobs.admin.days_picture import dollars, figures
from llmjobs.models import BucketKind, BucketTurn, Client, ClientDay, Spending, Tally, Tier, TierSample
from llmjobs.tallies import Day
from tests.admin.pages import page_url, text_of
from tests.factories import make_client, make_job, make_model, make_tier

pytestmark = pytest.mark.django_db

TODAY = datetime.now(UTC).date()


def spent(client: Client, usd: str) -> None:
    Spending.objects.create(client=client, month=TODAY.replace(day=1), usd=usd)


def numbers(answer: Any) -> dict[str, str]:
    return {number.what: number.value for number in answer.context["numbers"]}


def test_a_clients_page_shows_what_it_does_now_and_leads_there(browser: Browser) -> None:
    acme, other = make_client("acme"), make_client("other")
    queued = [make_job(client=acme), make_job(client=acme)]
    make_job("running", client=acme)
    make_job(client=other)
    answer = browser.get(page_url(acme))
    found = numbers(answer)
    assert (found["queued"], found["running"], found["dead"]) == ("2", "1", "0")
    url = next(number.url for number in answer.context["numbers"] if number.what == "queued")
    assert f'href="{url}"' in text_of(answer)
    listed = browser.get(url).context["cl"].result_list
    assert {job.pk for job in listed} == {job.pk for job in queued}


@pytest.mark.parametrize(
    ("usd", "reserved", "kind", "words"),
    [
        ("100.00", "0", "good", "50% of $200.00 used or promised, $100.00 left"),
        ("100.00", "62", "waiting", "81% of $200.00 used or promised, $38.00 left"),
        ("199.00", "3", "bad", "101% of $200.00 used or promised, $0.00 left"),
    ],
)
def test_a_budget_is_a_bar_with_its_marks(browser: Browser, usd: str, reserved: str, kind: str, words: str) -> None:
    acme = make_client("acme", monthly_budget_usd=200)
    spent(acme, usd)
    make_job(client=acme, est_usd=reserved)
    page = text_of(browser.get(page_url(acme)))
    assert words in page
    assert f'class="llmjobs-bar-{kind}"' in page
    for mark in (0.8, 1.0):
        assert f'<line x1="{mark / 1.25 * 200:.1f}"' in page


def test_a_budget_of_nothing_and_none_at_all_can_be_read(browser: Browser) -> None:
    assert "a budget of nothing" in text_of(browser.get(page_url(make_client(monthly_budget_usd=0))))
    assert "This month:" not in text_of(browser.get(page_url(make_client())))


def test_thirty_days_are_drawn_and_are_in_a_table(browser: Browser) -> None:
    acme, model = make_client("acme"), make_model("gpt")
    assert "Nothing was asked for or used." in text_of(browser.get(page_url(acme)))
    used = {"input_tokens": 1_200, "output_tokens": 345, "usd": Decimal("1.25")}
    ClientDay.objects.create(client=acme, day=TODAY, jobs=7, attempts=8, **used)
    ClientDay.objects.create(client=acme, day=TODAY - timedelta(days=40), jobs=900, attempts=900, **used)
    at = datetime.combine(TODAY - timedelta(days=1), time(), UTC)
    Tally.objects.create(period_s=86_400, at=at, pool=model, of="attempt", word="completed", number=3, **used)
    for row, day in ((acme, TODAY), (model, TODAY - timedelta(days=1))):
        answer = browser.get(page_url(row))
        page = text_of(answer)
        assert f"<title>{day:%Y-%m-%d}: $1.25</title>" in page, row
        assert f"<title>{day:%Y-%m-%d}: 1,545</title>" in page, row
        assert f'<th scope="row" class="nowrap">{day:%Y-%m-%d}</th>' in page, row
        assert "$1.25 in 30 days" in page, row
        assert len(answer.context["days"]) == 30, row


def test_a_tiers_page_shows_its_share_beside_what_is_due(browser: Browser) -> None:
    Tier.objects.all().delete()
    gold, tin = make_tier("gold", weight=3), make_tier("tin", weight=1)
    for tier, tokens in ((gold, 600), (tin, 400)):
        make_job(client=make_client(tier=tier))
        Tally.objects.create(
            period_s=60, at=datetime.now(UTC).replace(second=0, microsecond=0), tier=tier, of="attempt",
            word="completed", number=1, input_tokens=tokens,
        )  # fmt: skip
    TierSample.objects.all().delete()
    page = text_of(browser.get(page_url(gold)))
    assert "60.0% of the tokens of the last hour; due by weight: 75.0%" in page
    assert numbers(browser.get(page_url(gold)))["queued"] == "1"


def test_a_providers_page_shows_its_models_as_they_stand(browser: Browser) -> None:
    model = make_model("gpt")
    make_model("elsewhere")
    BucketTurn.objects.update_or_create(
        kind=BucketKind.POOL, of_id=model.pk, turn=99, defaults={"queued": 1_234, "running": 56}
    )
    for url in (page_url(model.provider), page_url(model)):
        page = text_of(browser.get(url))
        assert "1,234</a>" in page, url
        assert "56</a>" in page, url
        assert "elsewhere" not in page.partition("fieldset")[0].partition("llmjobs-section")[2], url


@pytest.mark.parametrize("usd", ["0", "0.0004", "12.5", "98765.4"])
def test_a_picture_of_any_size_has_few_ticks_and_bars_inside(usd: str) -> None:
    days = [
        Day(TODAY - timedelta(days=29 - number), 1, 1, number, 2, Decimal(usd) * number / 29) for number in range(30)
    ]
    money, tokens = figures("<acme>", days)
    assert 0 < money.svg.count("llmjobs-grid") <= 3
    assert max(map(len, re.findall(r'text-anchor="end">([^<]*)', money.svg))) <= 6, "so much fits beside the axis"
    assert money.svg.count("<rect") == 30
    assert tokens.svg.count("<rect") == 60
    assert "&lt;acme&gt;" in money.svg
    assert "<acme>" not in money.svg
    assert dollars(float(usd)) in money.summary


def test_the_longest_wait_is_by_the_databases_clock(browser: Browser) -> None:
    acme = make_client("acme")
    job = make_job(client=acme)
    type(job).objects.filter(pk=job.pk).update(available_at=Now() - timedelta(minutes=3))
    assert numbers(browser.get(page_url(acme)))["longest wait"].startswith("3 min")
