"""What the admin opens on: what is wrong, how it stands, what happened; for who may see jobs, and each link leads."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmjobs.admin.overview import charts, reading, words
from llmjobs.models import BucketKind, BucketTurn, DeadLetter, Incident, PoolSample, Tier, TierSample
from tests.admin.console_site import Site, make_site
from tests.admin.pages import list_url, logged_in, page_url, staff, text_of
from tests.factories import make_client, make_job, make_model, make_user, make_worker

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>&\"'"
INDEX, OWN_INDEX = "/admin/", "/admin/llmjobs/"


@pytest.fixture
def site() -> Site:
    return make_site()


def overview(browser: Browser, query: str = "") -> str:
    """The page, less what Django shows below it."""
    page = text_of(browser.get(INDEX + query))
    return page[page.index("data-llmjobs-overview") : page.index('class="llmjobs-menu"')]


def links(page: str) -> set[str]:
    return set(re.findall(r'href="(/admin/[^"]*)"', page))


def test_every_number_that_is_a_link_leads_to_its_list(browser: Browser, site: Site) -> None:
    found = links(overview(browser))
    for url in sorted(found):
        assert browser.get(url).status_code == 200, url
    for expected in (
        "/admin/llmjobs/job/?status=queued", "/admin/llmjobs/job/?status=running&tier=enterprise",
        "/admin/llmjobs/job/?status=queued&served_by=gpt-4.1", "/admin/llmjobs/attempt/?outcome=lost",
        f"{list_url('DeadLetter')}?error=timeout", list_url("Worker"), page_url(site.models[1]),
        page_url(Incident.objects.get(kind="breaker")),
    ):  # fmt: skip
        assert expected in found, expected


def test_what_is_wrong_comes_first_and_the_worst_of_it_on_top(browser: Browser, site: Site) -> None:
    page = overview(browser)
    alerts = re.findall(r'llmjobs-alert-(\w+)".*?</li>', page, re.S)
    assert alerts == ["critical", "warning"]
    assert page.index("llmjobs-alerts") < page.index("llmjobs-tiles")
    said = page[page.index("llmjobs-alert-critical") : page.index("llmjobs-alert-warning")]
    assert "gpt-4.1 at openai" in said and "down. It said: The server is overloaded." in said
    assert ">1,204</span> jobs wait</a>" in said, "whom it hits"
    assert re.search(r"since \d\d:\d\d, 17 min", said)


def test_where_nothing_is_wrong_it_says_so(browser: Browser) -> None:
    page = overview(browser)
    assert "Nothing is wrong." in page
    assert "llmjobs-alert" not in page


def test_an_empty_site_looks_calm(browser: Browser) -> None:
    Tier.objects.all().delete()
    page = overview(browser)
    for said in ("There are no models yet.", "No worker runs.", "There are no tiers.", "None: every job that ended"):
        assert said in page, said
    assert "NaN" not in page and "None<" not in page and "inf" not in re.sub(r"[a-z]*info?[a-z]*", "", page)
    assert page.count("<svg viewBox") >= 9


def test_parts_that_nobody_has_written_yet_are_empty_and_no_error(browser: Browser, site: Site) -> None:
    for table in (PoolSample, TierSample, BucketTurn):
        table.objects.all().delete()
    for query in ("", "?period=day", "?period=nonsense"):
        reading.forget()
        page = overview(browser, query)
        assert "gpt-4.1-mini" in page and 'class="llmjobs-spark"' in page


def test_the_last_day_is_a_switch_away(browser: Browser, site: Site) -> None:
    hour, day = overview(browser), overview(browser, "?period=day")
    assert 'href="?period=hour" aria-current="page"' in hour
    assert 'href="?period=day" aria-current="page"' in day
    assert (hour.count('<tr><th scope="row">'), day.count('<tr><th scope="row">')) > (59, 143)
    assert submitted(hour) * 10 < submitted(day)


def submitted(page: str) -> int:
    """In the whole period."""
    [number] = re.findall(r"<li><a [^>]*><span [^>]*>([\d,]+)</span> submitted</a></li>", page)
    return int(number.replace(",", ""))


def test_the_table_has_the_numbers_that_the_charts_show(browser: Browser, site: Site) -> None:
    page = overview(browser)
    shown = dict(re.findall(r'data-column="(\d+)">([^<]*)<', page))
    last = re.findall(r'<tr><th scope="row">\d\d:\d\d</th>(.*?)</tr>', page)[-1]
    assert list(shown.values()) == re.findall(r"<td>(.*?)</td>", last)
    assert list(shown) == [str(number) for number in range(len(shown))]


def test_the_number_of_queries_does_not_grow_with_the_site(browser: Browser) -> None:
    """Models, tiers, clients, workers, groups of dead letters: five of each, then fifty."""
    counts = []
    for more in (5, 45):
        for number in range(more):
            client, model = make_client(tier=f"tier-{more}-{number}"), make_model()
            PoolSample.objects.bulk_create(make_samples(model))
            BucketTurn.objects.create(kind=BucketKind.POOL, of_id=model.pk, turn=1, queued=3, running=2)
            make_worker(pid=number, host=f"host-{more}")
            dead(client, model, f"code_{more}_{number}")
            Incident.objects.create(provider=model.provider, pool=model, reason="provider_down")
        reading.forget()
        with CaptureQueriesContext(connection) as queries:
            page = overview(browser)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 35, counts
    assert page.count('class="llmjobs-spark"') == reading.POOLS_MAX
    assert "All 50 models" in page and "All 50 workers" in page and "All 50 open incidents" in page
    assert page.count("llmjobs-alert-critical") == reading.INCIDENTS_MAX


def make_samples(model: Any) -> list[PoolSample]:
    now = timezone.now()
    return [
        PoolSample(
            pool=model, at=now - timedelta(seconds=age_s), requests=1000 - age_s, tokens=5.0 * (1000 - age_s),
            refusals=0, queued=3, running=2, rpm=600, tpm=9_000,
        )
        for age_s in (120, 60, 0)
    ]  # fmt: skip


def dead(client: Any, model: Any, code: str) -> None:
    job = make_job("dead", client=client, model=model, result={"error_code": code})
    about = {"state": "dead", "error_code": code, "pool": model, "client": client, "tier": client.tier}
    DeadLetter.objects.update_or_create(job=job, defaults={**about, "since": timezone.now()})


def test_what_was_read_is_shared_for_a_moment(browser: Browser, root: Any) -> None:
    overview(browser)
    with CaptureQueriesContext(connection) as queries:
        overview(logged_in(root))
    assert not [query for query in queries if "llmjobs_" in query["sql"]]


def test_hostile_names_are_words(browser: Browser, site: Site) -> None:
    client, model = make_client(), site.models[0]
    dead(client, model, HOSTILE)
    Incident.objects.filter(kind="breaker").update(words=HOSTILE)
    type(site.workers[0]).objects.filter(pk=site.workers[0].pk).update(host=HOSTILE, heartbeat_at=timezone.now())
    Tier.objects.filter(name="free").update(name=HOSTILE)
    type(model).objects.filter(pk=model.pk).update(name=HOSTILE)
    raw = browser.get(INDEX).content.decode()
    assert "<script>alert" not in raw
    assert raw.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    asked = [url for url in links(overview(browser)) if "script" in url]
    assert len(asked) >= 4
    for url in asked:
        assert browser.get(url).status_code == 200, url


# Who may see it.


def test_who_may_see_jobs_sees_the_numbers_and_no_way_to_what_is_not_theirs(site: Site) -> None:
    viewer = staff("view_job")
    page = overview(viewer)
    assert "gpt-4.1 at openai" in page and "runner-1:4000" in page
    for url in links(page):
        assert url.startswith("/admin/llmjobs/job/"), url
        assert viewer.get(url).status_code == 200, url


def test_others_have_djangos_own_index(rows: Any) -> None:
    for browser in (staff(), staff("view_client"), staff("view_incident")):
        page = text_of(browser.get(INDEX))
        assert "data-llmjobs-overview" not in page and "admin_overview" not in page
        assert "Site administration" in page
    assert Browser().get(INDEX).status_code == 302
    member = logged_in(make_user(make_client(), permissions=("view_job",)))
    assert member.get(INDEX).status_code == 302, "not of the staff"


def test_the_apps_own_index_has_it_too_and_another_apps_has_not(browser: Browser) -> None:
    assert "data-llmjobs-overview" in text_of(browser.get(OWN_INDEX))
    assert "data-llmjobs-overview" not in text_of(browser.get("/admin/auth/"))


def test_djangos_own_lists_stand_below(browser: Browser) -> None:
    page = text_of(browser.get(INDEX))
    below = page[page.index('class="llmjobs-menu"') :]
    assert list_url("Job") in below and "/admin/auth/user/" in below and "Recent actions" in below


def test_no_prompt_no_output_and_nothing_inline(browser: Browser, site: Site) -> None:
    make_job("running", body={"messages": [{"role": "user", "content": "marker-of-a-prompt"}]}, output_text="marker")
    page = overview(browser)
    assert "marker" not in page
    assert not re.search(r"<script(?![^>]*src)|<style|\sstyle=|\son\w+=", page)


# Pure.


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (12, "12"),
        (999.4, "999"),
        (999.9, "1k"),
        (1_234, "1.23k"),
        (349_000, "349k"),
        (999_990, "1M"),
        (2.5e9, "2.5G"),
    ],
)
def test_large_numbers_are_short(number: float, said: str) -> None:
    assert words.short(number) == said


@pytest.mark.parametrize(
    ("usd", "said"), [(0, "$0.00"), (0.000042, "$0.000042"), (0.24, "$0.24"), (1.239, "$1.24"), (12_345.6, "$12,346")]
)
def test_money_has_the_digits_that_matter(usd: float, said: str) -> None:
    assert words.dollars(usd) == said


@pytest.mark.parametrize("highest", [1e-6, 0.3, 1, 7, 1_234, 9e12])
@pytest.mark.parametrize("scale", [charts.Scale(words.rough), charts.Scale(words.seconds, least=0.1, is_clock=True)])
def test_an_axis_has_a_few_round_steps_whatever_the_values(highest: float, scale: charts.Scale) -> None:
    found = charts.ticks(highest, charts.TICKS, scale)
    assert found[0] == 0 and len(found) <= charts.TICKS + 1
    assert all(value <= highest * 1.001 for value in found)


def test_a_gap_in_the_values_is_a_gap_in_the_line() -> None:
    times = [timezone.now() + timedelta(minutes=number) for number in range(6)]
    line = charts.Line("p50", "a", [1.0, 2.0, None, 3.0, None, None])
    drawn = charts.chart("wait", "Wait", [line], times, charts.Scale(words.seconds, is_clock=True), column=0)
    assert drawn.svg.count("<polyline") == 1 and drawn.svg.count("<circle") == 1
    assert drawn.keys[0].now == words.NONE


def test_a_model_that_was_blocked_shows_for_how_long() -> None:
    uses = [charts.Use(0.5, 0.2, int(number == 3), number in (5, 6)) for number in range(10)]
    drawn = charts.spark("p", "Use", "words", uses)
    assert drawn.count('class="llmjobs-blocked"') == 1
    assert re.search(r'class="llmjobs-refusal"', drawn) and drawn.count("l4 8h-8z") == 1
