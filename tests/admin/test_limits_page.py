"""What operators see of limits: the last hour of a model, what was learned, breakers, and how they try again."""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from llmjobs import queue
from llmjobs.models import BucketKind, BucketTurn, Flow, FlowTurn, Inbox, Incident, Model, PoolSample, Provider
from tests.admin.chromium import chromium, complaints_of, picture
from tests.admin.hour import make_hour
from tests.admin.pages import ask, confirm, list_url, page_url, staff, text_of
from tests.factories import make_client, make_model, make_provider

pytestmark = pytest.mark.django_db


def bucket(row: Model | Provider, **fields: Any) -> None:
    kind = BucketKind.POOL if isinstance(row, Model) else BucketKind.ACCOUNT
    before = BucketTurn.objects.filter(kind=kind, of_id=row.pk).order_by("-turn").first()
    BucketTurn.objects.filter(kind=kind, of_id=row.pk).delete()
    BucketTurn.objects.create(kind=kind, of_id=row.pk, turn=before.turn + 1 if before else 1, **fields)


def block(row: Model | Provider, reason: str, for_s: float = 60) -> None:
    bucket(row, blocked_by=reason, blocked_until=time.time() + for_s)


def limits_url(model: Model) -> str:
    return f"/admin/llmjobs/model/{model.pk}/limits/"


# The last hour.


def test_a_model_s_page_shows_its_last_hour(browser: Browser) -> None:
    model = make_model("gpt", rpm=600, tpm=200_000)
    make_hour(model)
    page = text_of(browser.get(page_url(model)))
    assert page.count("<svg viewBox") == 4
    assert '<title id="llmjobs-requests-title">Requests a minute of gpt</title>' in page
    assert re.search(
        r"<desc[^>]*>The last hour: now [\d,]+ of 300 allowed, most 5\d\d, 3 answered with 429\.</desc>", page
    )
    assert page.count('<tr><th scope="row">') >= 12, "the table says the same"
    assert "allowed: 300" in page and "down" in page


def test_a_model_that_nobody_used_says_so(browser: Browser) -> None:
    model = make_model("gpt")
    assert "Nothing was sent to gpt in the last hour" in text_of(browser.get(page_url(model)))
    make_hour(model)
    PoolSample.objects.update(at=F("at") - timedelta(hours=1.5), queued=0, running=0)
    page = text_of(browser.get(page_url(model)))
    assert "Nothing was sent to gpt in the last hour" in page
    assert "<svg viewBox" not in page


def test_the_part_that_changes_is_asked_for_by_itself(browser: Browser) -> None:
    model = make_model("gpt")
    make_hour(model)
    whole, part = browser.get(page_url(model)), browser.get(limits_url(model))
    assert limits_url(model) in text_of(whole)
    assert part.status_code == 200
    assert "<html" not in text_of(part)
    for name in ("figures", "minutes", "known"):
        assert f'data-part="{name}"' in text_of(part)
    assert "no-store" in part.headers["Cache-Control"]
    assert browser.get("/admin/llmjobs/model/99999999/limits/").status_code == 404


def test_who_may_not_see_a_model_sees_no_picture_of_it() -> None:
    model = make_model()
    assert staff("view_job").get(limits_url(model)).status_code == 403
    assert staff("view_model").get(limits_url(model)).status_code == 200
    assert Browser().get(limits_url(model)).status_code == 302


def test_an_hour_costs_three_queries_however_full_it_was(browser: Browser) -> None:
    model = make_model()
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            browser.get(limits_url(model))
        counts.append(len([query for query in queries if "llmjobs_" in query["sql"]]))
        make_hour(model)
    assert counts[0] == counts[1] <= 3


def test_a_limit_far_above_the_use_is_told_and_not_drawn(browser: Browser) -> None:
    model = make_model("gpt")
    make_hour(model, rpm=600)
    PoolSample.objects.update(rpm=90_000)
    page = text_of(browser.get(limits_url(model)))
    assert "allowed: 90,000, far above" in page
    assert page.count('class="llmjobs-allowed"') == 1, "of the tokens"


# What was learned.


def test_what_was_learned_of_a_model_is_on_its_page(browser: Browser) -> None:
    model = make_model("gpt", rpm=600, tpm=None)
    bucket(
        model, mean_tokens=1_234.4, error_var=250.0**2, jitter_s=0.0123, largest=9_876, lies=3, refusals=7,
        requests_limit=480, told_at=time.time(),
    )  # fmt: skip
    page = text_of(browser.get(page_url(model)))
    for what, value in {
        "Requests a minute": "480, as the provider says; ours is 600",
        "Tokens a minute": "30,000, by default",
        "Tokens of a job, mean": "1,234",
        "Used less reserved, deviation": "250 tokens",
        "Largest reservation lately": "9,876 tokens",
        "Jitter: calls left late by": "12 ms at most",
        "Answered with 429 so far": "7",
        "Headers that made no sense": "3",
    }.items():
        assert f'<th scope="row">{what}</th><td>{value}</td>' in page, what


@pytest.mark.parametrize(
    "told",
    [{"requests_limit": 480, "told_at": time.time() - 700}, {"requests_limit": 700, "told_at": time.time() + 60}],
)
def test_a_limit_that_was_told_long_ago_or_is_higher_is_not_in_force(browser: Browser, told: Any) -> None:
    model = make_model(rpm=600)
    bucket(model, **told)
    assert "<td>600</td>" in text_of(browser.get(limits_url(model)))


def test_a_model_that_was_asked_to_slow_down_says_how_far(browser: Browser) -> None:
    model = make_model(rpm=600)
    bucket(model, rate_factor=0.25, factor_at=time.time() - 60)
    assert "600; at 50% since the provider asked to slow down" in text_of(browser.get(limits_url(model)))
    bucket(model, rate_factor=0.25, factor_at=time.time() - 600)
    assert "slow down" not in text_of(browser.get(limits_url(model)))


def test_a_flow_shows_what_it_reserves_by_and_when_its_client_may_go_on(browser: Browser, rows: Any) -> None:
    flow = rows["Flow"]
    turn = {"flow": flow, "pool": flow.pool, "client": flow.client, "tier": flow.client.tier}
    FlowTurn.objects.create(
        **turn, turn=2, tokens_ratio=0.62, error_var=150.0**2, is_open=False, opens_at=time.time() + 90
    )
    for url in (list_url("Flow"), page_url(flow)):
        page = text_of(browser.get(url))
        assert "0.62 times the estimate, deviation 150" in page, url
        assert re.search(r"in 1 min 2\d s|in 1 min 30 s", page), url
    FlowTurn.objects.create(**turn, turn=3, opens_at=time.time() - 90)
    assert "in 1 min" not in text_of(browser.get(page_url(flow)))


# Blocked.


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("provider_quota", "quota used up"), ("provider_auth", "key refused"), ("provider_down", "down"),
        ("rate_limit", "rate limit reached"),
    ],
)  # fmt: skip
def test_a_blocked_provider_says_why_and_so_do_its_models(browser: Browser, reason: str, words: str) -> None:
    model = make_model()
    block(model.provider, reason)
    for url in (list_url("Provider"), page_url(model.provider), list_url("Model"), page_url(model)):
        page = text_of(browser.get(url))
        assert f">blocked</span> {words}, tried again at " in page, url


def test_a_blocked_model_leaves_its_provider_in_service(browser: Browser) -> None:
    model = make_model()
    block(model, "provider_auth")
    assert ">blocked</span> key refused" in text_of(browser.get(list_url("Model")))
    assert ">in service<" in text_of(browser.get(list_url("Provider")))


def test_a_rate_limit_that_is_over_blocks_nothing_but_a_breaker_waits_for_an_answer(browser: Browser) -> None:
    model = make_model()
    block(model, "rate_limit", for_s=-5)
    assert ">in service<" in text_of(browser.get(page_url(model)))
    block(model, "provider_down", for_s=-5)
    assert ">blocked<" in text_of(browser.get(page_url(model)))


def test_a_paused_one_says_that(browser: Browser) -> None:
    model = make_model(is_paused=True)
    block(model, "provider_down")
    assert ">paused<" in text_of(browser.get(page_url(model)))


# Try again now.


def test_a_blocked_provider_is_tried_again_from_its_page(browser: Browser, monkeypatch: Any) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(queue, "unblock", lambda pool_ids: asked.append(list(pool_ids)))
    provider = make_provider("openai")
    models = [make_model(provider=provider) for _ in range(4)]
    Flow.objects.create(pool=models[1], client=make_client())  # a pool that no client uses has nothing to try
    block(provider, "provider_quota")
    block(models[3], "provider_auth")
    page = browser.get(page_url(provider))
    assert ("try_again", "Try again now") in page.context["buttons"]
    url = list_url("Provider")
    question = ask(browser, url, "try_again", provider, from_page="1")
    assert asked == [], "asked once before anything is done"
    done = confirm(browser, url, question, reason="paid the bill")
    assert asked == [[models[1].pk, models[3].pk]], "one for the account, and those that are blocked themselves"
    assert "Trying 1 again." in text_of(done)
    assert LogEntry.objects.get().change_message == "Tried again now: paid the bill"
    assert str(LogEntry.objects.get()) and LogEntry.objects.get().object_id == str(provider.pk)


def test_trying_again_reaches_the_fold(browser: Browser) -> None:
    model = make_model()
    block(model, "provider_auth")
    Flow.objects.create(pool=model, client=make_client())
    url = list_url("Model")
    confirm(browser, url, ask(browser, url, "try_again", model))
    assert Inbox.objects.get(pool=model).signal["unblock"] == 1


def test_what_is_not_blocked_is_left_alone(browser: Browser, monkeypatch: Any) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(queue, "unblock", lambda pool_ids: asked.append(list(pool_ids)))
    blocked, other = make_model(), make_model()
    block(blocked, "provider_auth")
    assert ("try_again", "Try again now") not in browser.get(page_url(other)).context["buttons"]
    url = list_url("Model")
    done = confirm(browser, url, ask(browser, url, "try_again", blocked, other))
    assert asked == [[blocked.pk]]
    assert "Trying 1 again. Left alone: 1 not blocked." in text_of(done)


def test_trying_again_needs_the_permission_to_change() -> None:
    model = make_model()
    block(model, "provider_auth")
    viewer = staff("view_model")
    assert viewer.get(page_url(model)).context["buttons"] == []
    ask(viewer, list_url("Model"), "try_again", model)
    assert not LogEntry.objects.exists()


# Incidents.


def incident(**fields: Any) -> Incident:
    fields.setdefault("reason", "provider_quota")
    return Incident.objects.create(provider=fields.pop("provider", None) or make_provider("openai"), **fields)


def test_an_open_incident_stands_on_every_page_of_the_admin(browser: Browser) -> None:
    found = incident(provider=(model := make_model("gpt", provider=make_provider("openai"))).provider)
    for url in (list_url("Job"), page_url(model), "/admin/auth/user/", "/admin/password_change/"):
        page = text_of(browser.get(url))
        assert re.search(r"openai: quota used up since <time [^>]*>\d\d:\d\d</time>\. Its jobs wait\.", page), url
        assert page_url(found) in page
    Incident.objects.update(closed_at=Now())
    assert "Its jobs wait." not in text_of(browser.get(list_url("Worker")))


def test_an_incident_that_did_not_begin_today_says_on_which_day(browser: Browser) -> None:
    incident()
    Incident.objects.update(opened_at=datetime(2026, 3, 5, 12, 48, tzinfo=UTC))
    assert ">2026-03-05 12:48</time>" in text_of(browser.get(list_url("Worker")))


def test_an_open_incident_says_what_ends_it(browser: Browser) -> None:
    """Nothing is asked of a provider without a job."""
    incident()
    assert "One is tried now and then; where none waits, the next that comes." in text_of(
        browser.get(list_url("Worker"))
    )


def test_who_has_nothing_to_do_with_it_sees_no_incident() -> None:
    incident()
    assert "openai" not in text_of(staff().get("/admin/"))
    assert "openai" not in text_of(Browser().get("/admin/login/"))
    page = text_of(staff("view_job").get(list_url("Job")))
    assert "openai: quota used up" in page
    assert "/admin/llmjobs/incident/" not in page, "no way to what it may not see"


def test_many_incidents_do_not_push_the_page_away(browser: Browser) -> None:
    for number in range(8):
        incident(provider=make_provider(f"p{number}"))
    with CaptureQueriesContext(connection) as queries:
        page = text_of(browser.get(list_url("Worker")))
    assert page.count("Its jobs wait.") == 5
    assert "And others." in page
    assert len([query for query in queries if "llmjobs_incident" in query["sql"]]) == 1


def test_the_list_of_incidents_says_what_was_when_and_who_was_told(browser: Browser) -> None:
    model = make_model("gpt")
    row = incident(provider=model.provider, pool=model, reason="provider_auth", words="Incorrect API key provided.")
    Incident.objects.update(opened_at=Now() - timedelta(minutes=12), opening_told_at=Now())
    for url in (list_url("Incident"), page_url(row)):
        page = text_of(browser.get(url))
        for words in ("key refused", str(model.provider), "gpt", "12 min", ">blocked<"):
            assert words in page, (url, words)
    assert "Incorrect API key provided." in text_of(browser.get(page_url(row)))
    Incident.objects.update(closed_at=Now(), tell_failures=4)
    page = text_of(browser.get(list_url("Incident")))
    assert "failed 4 times, tried again" in page and ">blocked<" not in page


def test_account_limits_are_edited(browser: Browser) -> None:
    provider = make_provider("openai", api_key_env="OPENAI_API_KEY")
    form = {"name": "openai", "base_url": provider.base_url, "api_key_env": "OPENAI_API_KEY"}
    assert browser.post(page_url(provider), {**form, "rpm": 60, "tpm": 9_000, "max_running": 5}).status_code == 302
    provider.refresh_from_db()
    assert (provider.rpm, provider.tpm, provider.max_running) == (60, 9_000, 5)
    assert browser.post(page_url(provider), {**form, "rpm": 0}).status_code == 200, "pause what shall do nothing"


# In a browser.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_last_hour_in_a_browser(live_server: Any, settings: Any, browser: Browser, width: int, scheme: Any) -> None:
    settings.MIDDLEWARE = ["tests.admin.chromium.strict_policy", *settings.MIDDLEWARE]
    model = make_model("gpt-4.1-mini", rpm=600, tpm=200_000)
    bucket(model, mean_tokens=812, error_var=250.0**2, jitter_s=0.011, largest=2_900)
    make_hour(model)
    incident(provider=model.provider, words="Service unavailable.", reason="provider_down")
    empty = make_model("unused")
    url = str(live_server.url)
    with chromium() as context:
        context.add_cookies([{"name": "sessionid", "value": browser.cookies["sessionid"].value, "url": url}])
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        complaints = complaints_of(page)
        for name, path in (("hour", page_url(model)), ("empty", page_url(empty)), ("list", list_url("Model"))):
            page.goto(url + path, wait_until="load")
            if name == "hour":
                page.get_by_text("The last hour as a table").click()
                page.get_by_text("Limits in force, and what was learned").click()
                assert page.locator(".llmjobs-plot").count() == 4
            picture(page, f"limits-{name}-{width}-{scheme}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert complaints == [], (name, complaints)
            assert wide <= width, f"{name} is {wide} px wide on a screen of {width} px"


@pytest.mark.django_db(transaction=True)
def test_the_last_hour_keeps_itself_fresh_while_somebody_looks(
    live_server: Any, settings: Any, browser: Browser
) -> None:
    settings.MIDDLEWARE = ["tests.admin.chromium.strict_policy", *settings.MIDDLEWARE]
    model = make_model("gpt", rpm=600)
    url = str(live_server.url)
    with chromium() as context:
        context.add_cookies([{"name": "sessionid", "value": browser.cookies["sessionid"].value, "url": url}])
        page = context.new_page()
        page.clock.install()
        complaints = complaints_of(page)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/limits/" in request.url else None)
        page.goto(url + page_url(model), wait_until="load")
        page.get_by_text("The last hour as a table").click()
        page.get_by_text("Nothing was sent to gpt").wait_for()
        make_hour_apart(model)
        page.clock.run_for(14_000)
        assert asked == []
        page.clock.run_for(2_000)
        page.locator(".llmjobs-plot").first.wait_for()
        assert len(asked) == 1
        assert page.get_by_text("Blocked by").is_visible(), "what was opened stays open"
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true}); "
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.clock.run_for(120_000)
        assert len(asked) == 1, "nobody looks"
        with page.expect_response("**/limits/"):
            page.evaluate(
                "Object.defineProperty(document, 'hidden', {value: false, configurable: true}); "
                "document.dispatchEvent(new Event('visibilitychange'))"
            )
            page.clock.run_for(100)
        assert len(asked) == 2, "at once, since they came back"
    assert complaints == []


def make_hour_apart(model: Model) -> None:
    """Playwright keeps an event loop in this thread, which keeps the ORM out of it."""
    from tests.browser.conftest import apart

    apart(make_hour, model)
