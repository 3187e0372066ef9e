"""The page behind a link, in a real Chromium of somebody who is not logged in."""

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client as Session
from django.utils import timezone
from playwright.sync_api import Page, expect

from llmjobs import sharing
from llmjobs.models import Job, JobResult, SharedLink
from tests.browser.axe import faults_of
from tests.browser.chromium import WAIT_MS, Witness, picture
from tests.browser.conftest import Site, apart, make_running
from tests.factories import make_groups, make_job, make_user

pytestmark = pytest.mark.django_db

PROMPT = "Why is the sky blue?\nIn three sentences, please: <b>no</b> formulas."
ANSWER = (
    "Sunlight holds all colours, and the air scatters the short waves of blue far more than the long ones of red.\n\n"
    "So blue comes to the eye from everywhere in the sky, and red from the sun alone.\n\n"
    "    for wave in light:\n        scatter(wave)  # by 1 / length ** 4\n\n"
    "In the evening the way through the air is long, and little blue is left."
)


def opened(site: Site, token: str, **context: Any) -> Page:
    page = site.browser.new_context(**context).new_page()
    page.set_default_timeout(WAIT_MS)
    site.witnesses.append(Witness(page, site.url))
    page.goto(f"{site.url}/shared/{token}/")
    return page


def shared(job: Job) -> str:
    return apart(sharing.share, job, expires_in_s=None)[1]


def test_an_answer_reads_well_on_a_desk_and_on_a_phone_by_day_and_by_night(site: Site):
    body = {"messages": [{"role": "system", "content": "secret"}, {"role": "user", "content": PROMPT}]}
    job = apart(
        make_job, "completed", client=site.client, model=site.model, body=body, output_text=ANSWER + "\n" + "long" * 60
    )
    token = shared(job)
    for scheme in ("light", "dark"):
        for width in (1280, 375):
            page = opened(site, token, color_scheme=scheme, viewport={"width": width, "height": 800})
            expect(page.get_by_text("Why is the sky blue?")).to_be_visible()
            assert page.locator("#shared-text").inner_text().startswith(ANSWER[:80])
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing runs out of the page"
            assert faults_of(page) == []
            picture(page, f"shared-{scheme}-{width}")
            assert page.context.cookies() == []
            page.close()
    assert site.complaints == []


def test_words_that_are_written_from_the_right_begin_there(site: Site):
    body = {"messages": [{"role": "user", "content": "ما لون السماء؟"}]}
    job = apart(make_job, "completed", client=site.client, model=site.model, body=body, output_text="أزرق")
    page = opened(site, shared(job))
    expect(page.get_by_text("ما لون السماء؟")).to_have_css("direction", "rtl")
    expect(page.get_by_text("أزرق")).to_have_css("direction", "rtl")


def test_who_opens_it_early_sees_the_answer_being_written_to_its_end(site: Site):
    job = apart(make_running, site, "Once")
    page = opened(site, shared(job))
    text, standing = page.locator("#shared-text"), page.locator("#shared-standing")
    expect(text).to_have_text("Once")
    expect(standing).to_have_text("The answer is being written…")
    picture(page, "shared-running")

    apart(lambda: job.events.create(seq=job.events.latest("seq").seq + 1, type="delta", data={"text": " upon <i>"}))
    expect(text).to_have_text("Once upon <i>")
    apart(_end, job, "Once upon <i>a time.")
    expect(text).to_have_text("Once upon <i>a time.")
    expect(standing).to_be_hidden()
    expect(text).to_have_attribute("aria-busy", "false")
    assert site.complaints == []


def test_a_link_that_is_revoked_while_somebody_looks_shows_nothing_from_then_on(site: Site):
    page = opened(site, shared(apart(make_running, site, "Once")))
    expect(page.locator("#shared-text")).to_have_text("Once")
    apart(lambda: sharing.revoke(SharedLink.objects.values_list("pk", flat=True)))
    expect(page.get_by_role("heading", name="This link shows nothing")).to_be_visible()
    assert "Once" not in page.content()
    picture(page, "shared-gone")
    site.forgive()


def test_an_operator_ends_it_on_the_page_of_the_job(site: Site):
    job = apart(make_job, "completed", client=site.client, model=site.model)
    for _ in range(2):
        shared(job)
    site.cookie = apart(_operators_cookie)
    for scheme, width in (("light", 1280), ("dark", 375)):
        page = site.tab(
            f"/admin/llmjobs/job/{job.pk}/change/", color_scheme=scheme, viewport={"width": width, "height": 800}
        )
        links = page.get_by_role("region", name="Shared links")
        expect(links.get_by_text("valid", exact=True).first).to_be_visible()
        picture(page, f"shared-admin-{scheme}-{width}")
        links.get_by_role("button", name="Revoke").first.click()
        expect(page.get_by_text("it shows nothing any more")).to_be_visible()
        assert faults_of(page) == []
    expect(links.get_by_role("button", name="Revoke")).to_have_count(0)
    assert apart(SharedLink.objects.filter(job=job, revoked_at=None).count) == 0
    assert site.complaints == []


def _operators_cookie() -> str:
    make_groups()
    user = make_user(is_staff=True)
    user.groups.add(Group.objects.get(name="llmjobs operator"))
    session = Session()
    session.force_login(user)
    return session.cookies["sessionid"].value


def _end(job: Job, text: str) -> None:
    JobResult.objects.update_or_create(job=job, defaults={"output_text": text})
    Job.objects.filter(pk=job.pk).update(
        state="completed", worker_id=None, finished_at=timezone.now(), epoch=job.epoch + 1
    )
