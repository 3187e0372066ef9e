"""GET /api/usage: a client's month."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import Client as HttpClient
from django.utils import timezone

from llmjobs.models import ClientDay, Spending
from llmjobs.states import State
from tests.api.conftest import Api, assert_error
from tests.api.test_schema import schema, validator  # noqa: F401 - a fixture
from tests.factories import make_client, make_job, make_key, make_tier, make_user

pytestmark = pytest.mark.django_db


def test_this_month_stands_beside_budget_limits_and_what_is_left(schema, model):  # noqa: F811
    client = make_client("acme", tier=make_tier(rpm=10, max_running=3), monthly_budget_usd=20, tpm=1000)
    make_client("other")
    make_job(client=client, model=model, est_usd=Decimal("0.5"))
    make_job(State.RUNNING, client=client, model=model, est_usd=Decimal("0.25"))
    make_job(State.COMPLETED, client=client, model=model)
    today = timezone.now().date()
    ClientDay.objects.create(client=client, day=today, jobs=3, attempts=2, input_tokens=9, output_tokens=4, usd=1)
    ClientDay.objects.create(client=make_client(), day=today, jobs=77)

    told = Api(make_key(client)).get("usage").json()

    validator(schema, "Usage").validate(told)
    assert (told["client"], told["month"], told["budget_usd"]) == ("acme", f"{today:%Y-%m}", 20.0)
    assert (told["spent_usd"], told["expected_usd"]) == (0.0001, 0.75)
    assert told["limits"] == {
        "rpm": 10, "tpm": 1000, "max_running": 3, "max_queued": 1000, "max_queued_tokens": None,
    }  # fmt: skip
    assert told["now"] == {"queued": 1, "queued_tokens": 40, "running": 1, "requests_left": 9, "tokens_left": 960}
    assert [day["day"] for day in told["days"]] == [
        (today.replace(day=1) + timedelta(days=n)).isoformat() for n in range(today.day)
    ]
    assert told["days"][-1] == {
        "day": today.isoformat(), "jobs": 3, "attempts": 2, "input_tokens": 9, "output_tokens": 4, "cost_usd": 1.0,
    }  # fmt: skip


def test_another_month_has_all_its_days_and_what_was_spent_then(api, acme):
    Spending.objects.create(client=acme, month="2024-02-01", usd="3.5")
    ClientDay.objects.create(client=acme, day="2024-02-29", jobs=1, usd="3.5")
    make_job(client=acme, est_usd=Decimal("0.5"))

    told = api.get("usage?month=2024-02").json()

    assert (told["month"], told["spent_usd"], told["expected_usd"]) == ("2024-02", 3.5, 0)
    assert (len(told["days"]), told["days"][-1]["cost_usd"]) == (29, 3.5)
    assert api.get("usage?month=2099-01").json()["days"] == []


@pytest.mark.parametrize("month", ["2026", "2026-13", "1999-01", "2026-1", "x", "2026-01-01", "\u0662026-01", ""])
def test_a_month_that_is_none_is_named(api, month):
    assert_error(api.get(f"usage?month={month}"), 400, "invalid_value", "month")


def test_it_is_the_chosen_clients_month(acme):
    http = HttpClient()
    http.force_login(make_user(acme, make_client("beta")))
    assert_error(http.get("/api/usage"), 400, "client_required", "LLMJobs-Client")
    assert http.get("/api/usage", headers={"LLMJobs-Client": "beta"}).json()["client"] == "beta"


def test_it_costs_the_same_whatever_was_used(api, acme, model, django_assert_num_queries):
    def queries() -> int:
        with django_assert_num_queries(7):
            return len(api.get("usage").json()["days"])

    api.get("usage")
    queries()
    for state in State:
        make_job(state, client=acme, model=model)
    queries()
