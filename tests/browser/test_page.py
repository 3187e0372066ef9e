"""The page at `/` in a real Chromium, with everything behind it real: submit, watch, cancel, come back."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from llmjobs import queue
from llmjobs.models import Provider
from tests.browser.conftest import Site, apart, make_running
from tests.factories import make_job

pytestmark = pytest.mark.django_db  # so that there is a test database at all

SLOW = "Count the boats. [[tokens=80]] [[tokens_per_s=16]]"
QUICK = "Count the boats. [[tokens=40]]"
GROWS = """() => {
  const output = document.querySelector('#job-output');
  const length = output.textContent.length;
  window.seenLength ||= length;
  return seenLength > 0 && length > seenLength && output.ariaBusy === 'true';
}"""


@pytest.fixture(autouse=True)
def nobody_complains(site: Site) -> Iterator[None]:
    """No error in the console, no request to anywhere else."""
    yield
    assert site.complaints == []


def submit(page: Page, site: Site, prompt: str) -> str:
    """The id of the job."""
    page.get_by_label("Model", exact=True).select_option(site.model.name)
    page.get_by_label("Prompt", exact=True).fill(prompt)
    before = page.url
    page.get_by_role("button", name="Submit").click()
    expect(page).not_to_have_url(before)
    return page.url.split("#job=")[1]


def output(page: Page) -> Locator:
    return page.get_by_role("region", name="Output")


def status(page: Page) -> Locator:
    return page.locator("#job-status")


def row(page: Page, job_id: str) -> Locator:
    return page.locator(f"tr[data-id='{job_id}']")


def text(page: Page) -> str:
    return output(page).text_content() or ""


def text_grows(page: Page) -> str:
    """The text once some has come and more has followed while the job runs: seen by the page, however late this is."""
    page.evaluate("window.seenLength = 0")
    page.wait_for_function(GROWS)
    return text(page)


def longer_than(page: Page, length: int) -> None:
    page.wait_for_function("most => document.querySelector('#job-output').textContent.length > most", arg=length)


def text_by_api(page: Page, site: Site, job_id: str) -> str:
    return page.request.get(f"{site.url}/api/jobs/{job_id}").json()["output_text"]


def test_a_prompt_is_submitted_and_its_answer_arrives_word_by_word(site: Site) -> None:
    page = site.tab()
    expect(page.locator("#connection-text")).to_have_text("live")
    page.get_by_label("Prompt", exact=True).fill(SLOW)
    page.get_by_label("Model", exact=True).select_option(site.model.name)
    page.get_by_label("Priority").select_option("high")
    page.get_by_label("Prompt", exact=True).press("Control+Enter")
    expect(status(page)).to_have_text("running")
    text_grows(page)
    expect(status(page)).to_have_text("completed")
    job_id = page.url.split("#job=")[1]
    assert text(page) == text_by_api(page, site, job_id)
    expect(page.locator("#job-tokens-out")).to_have_text("80")
    expect(page.locator("#job-cost")).to_have_text(re.compile(r"^\$0\.0001\d$"))
    expect(page.locator("#job-priority")).to_have_text("high")
    expect(row(page, job_id).locator(".badge")).to_have_text("completed")
    expect(row(page, job_id).locator(".cell-cost")).to_have_text(page.locator("#job-cost").text_content() or "")


def test_the_output_limit_is_kept(site: Site) -> None:
    page = site.tab()
    page.get_by_text("System prompt and parameters").click()
    page.get_by_label("Output limit").fill("7")
    submit(page, site, QUICK)
    expect(status(page)).to_have_text("completed")
    expect(page.locator("#job-tokens-out")).to_have_text("7")


def test_a_reload_in_mid_stream_goes_on_with_the_same_text(site: Site) -> None:
    page = site.tab()
    job_id = submit(page, site, SLOW)
    before = text_grows(page)
    page.reload()
    longer_than(page, len(before) - 1)
    assert text(page).startswith(before)
    expect(status(page)).to_have_text("completed")
    assert text(page) == text_by_api(page, site, job_id)


def test_two_tabs_show_the_same(site: Site) -> None:
    writer = site.tab()
    reader = site.tab(beside=writer)
    job_id = submit(writer, site, "[[tokens=300]] [[tokens_per_s=25]]")
    expect(row(reader, job_id).locator(".badge")).to_have_text("running")
    text_grows(writer)
    row(reader, job_id).click()
    text_grows(reader)
    for page in (writer, reader):
        expect(status(page)).to_have_text("completed")
        assert text(page) == text_by_api(page, site, job_id)
    expect(row(reader, job_id).locator(".badge")).to_have_text("completed")


def test_the_place_in_the_queue_is_shown_and_moves(site: Site) -> None:
    site.pause()
    page = site.tab()
    for _ in range(2):
        submit(page, site, QUICK)
    last = submit(page, site, QUICK)
    expect(page.locator("#job-place")).to_contain_text("3rd in line")
    expect(page.locator("#job-place")).to_contain_text("this model is paused")
    first = page.locator("tr[data-id]").last
    first.click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(status(page)).to_have_text("cancelled")
    row(page, last).click()
    expect(page.locator("#job-place")).to_contain_text("2nd in line")
    site.pause(False)
    expect(status(page)).to_have_text("completed")
    expect(page.locator("#job-place")).to_be_empty()


def test_a_running_job_is_cancelled_after_a_question(site: Site) -> None:
    page = site.tab()
    job_id = submit(page, site, "[[tokens=2000]] [[tokens_per_s=20]]")
    text_grows(page)
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    cancel.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(status(page)).to_have_text("running")
    cancel.click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(status(page)).to_have_text("cancelled")
    expect(cancel).to_be_hidden()
    expect(output(page)).not_to_be_empty()
    assert text(page) == text_by_api(page, site, job_id)
    expect(row(page, job_id).locator(".badge")).to_have_text("cancelled")


def test_a_job_that_failed_says_why(site: Site) -> None:
    page = site.tab()
    submit(page, site, "[[fault=context_length]]")
    expect(status(page)).to_have_text("failed")
    expect(page.locator("#job-problem")).to_contain_text("context_length_exceeded")
    expect(page.locator("#job-problem")).to_contain_text("maximum context length")


def test_a_retry_starts_its_text_over(site: Site) -> None:
    page = site.tab()
    job_id = submit(page, site, "[[fault=reset_midstream:1]] [[tokens=60]] [[tokens_per_s=40]]")
    expect(status(page)).to_have_text("completed")
    expect(page.locator("#job-attempts")).to_have_text("2 (1 failed)")
    assert text(page) == text_by_api(page, site, job_id)


def test_what_models_and_providers_write_stays_text(site: Site) -> None:
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp;"
    owner = {"client": site.client, "model": site.model}
    body = {"messages": [{"role": attack, "content": attack}]}
    said = apart(make_job, "completed", output_text=attack, body=body, **owner)
    broken = apart(make_job, "failed", result={"error_message": attack, "error_code": attack}, **owner)
    saying = apart(make_running, site, attack)
    page = site.tab(f"/#job={saying.public_id}")
    expect(output(page)).to_have_text(attack)
    row(page, str(said.public_id)).click()
    expect(output(page)).to_have_text(attack)
    expect(page.locator("#job-turns .turn-text")).to_have_text(attack)
    expect(page.locator("#job-turns .turn-who")).to_have_text(attack)
    expect(row(page, str(said.public_id)).locator("a")).to_have_text(attack)
    row(page, str(broken.public_id)).click()
    expect(page.locator("#job-problem-message")).to_have_text(attack)
    expect(page.locator("#job-problem-code")).to_have_text(attack)
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "llmjobs"


def test_the_page_goes_on_where_it_was_after_the_web_server_was_killed(site: Site) -> None:
    page = site.tab()
    job_id = submit(page, site, "[[tokens=160]] [[tokens_per_s=25]]")
    before = text_grows(page)
    site.stack.server.kill()
    expect(page.locator("#connection-text")).to_have_text("reconnecting…")
    assert text(page).startswith(before)
    site.stack.server.start()
    expect(page.locator("#connection-text")).to_have_text("live")
    expect(status(page)).to_have_text("completed")
    assert text(page) == text_by_api(page, site, job_id)
    expect(row(page, job_id).locator(".badge")).to_have_text("completed")
    site.forgive()


def test_a_job_that_an_operator_requeues_goes_on_in_the_page(site: Site) -> None:
    body = {"messages": [{"role": "user", "content": QUICK}]}
    job = apart(make_job, "dead", client=site.client, model=site.model, body=body)
    page = site.tab(f"/#job={job.public_id}")
    expect(status(page)).to_have_text("dead")
    expect(page.locator("#job-problem")).to_be_visible()
    site.pause()
    apart(queue.requeue, [job.pk])
    expect(status(page)).to_have_text("queued")
    site.pause(False)
    expect(status(page)).to_have_text("completed")
    expect(page.locator("#job-problem")).to_be_hidden()
    assert text(page) == text_by_api(page, site, str(job.public_id))


def test_older_jobs_are_loaded_on_demand(site: Site) -> None:
    jobs = apart(lambda: [make_job("cancelled", client=site.client, model=site.model) for _ in range(25)])
    page = site.tab()
    expect(page.locator("tr[data-id]")).to_have_count(20)
    page.get_by_role("button", name="Load more").click()
    expect(page.locator("tr[data-id]")).to_have_count(25)
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()
    shown = page.locator("tr[data-id]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert shown == sorted((str(job.public_id) for job in jobs), reverse=True)


def test_a_job_that_is_not_there_is_told_and_nothing_of_the_one_before_is_said_of_it(site: Site) -> None:
    job = apart(make_job, "failed", client=site.client, model=site.model)
    page = site.tab(f"/#job={job.public_id}")
    expect(page.locator("#job-model")).to_have_text(site.model.name)
    page.evaluate("location.hash = 'job=019a0000-0000-7000-8000-000000000000'")
    expect(page.locator("#job-problem")).to_contain_text("There is no such job, or it is not yours.")
    assert set(page.locator("#job .facts dd").all_text_contents()) == {"\u2013"}
    expect(page.locator("#job-client")).to_be_empty()
    site.forgive()


def test_the_address_says_which_job_is_open_and_only_jobs_change_it(site: Site) -> None:
    job = apart(make_job, "completed", client=site.client, model=site.model)
    page = site.tab()
    row(page, str(job.public_id)).click()
    expect(output(page)).to_have_text("Hello there.")
    address = page.url
    page.get_by_role("link", name="Skip to content").press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    assert page.url == address
    page.go_back()
    expect(page.locator("#job-empty")).to_be_visible()
    expect(status(page)).to_be_hidden()
    expect(page.locator("tr[aria-current]")).to_have_count(0)
    page.go_forward()
    expect(output(page)).to_have_text("Hello there.")


def test_what_the_server_refuses_is_told_at_the_field(site: Site) -> None:
    page = site.tab()
    model = page.get_by_label("Model", exact=True)
    model.select_option(site.model.name)
    apart(site.model.delete)
    page.get_by_label("Prompt", exact=True).fill("Hello")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#composer-error")).to_contain_text(site.model.name)
    expect(model).to_have_attribute("aria-invalid", "true")
    expect(model).to_be_focused()
    expect(page.get_by_role("button", name="Submit")).to_be_enabled()
    site.forgive()


@pytest.fixture
def any_model(site: Site) -> Iterator[None]:
    """For as long as the test runs: the others' unknown models are to stay unknown."""
    providers = Provider.objects.filter(pk=site.model.provider_id)
    apart(providers.update, any_model=True)
    yield
    apart(providers.update, any_model=False)


def test_a_provider_that_takes_any_model_is_asked_for_one_by_name(site: Site, any_model: None) -> None:
    page = site.tab()
    page.get_by_label("Model", exact=True).select_option("another model…")
    page.get_by_label("Prompt", exact=True).fill(QUICK)
    page.get_by_role("button", name="Submit").click()
    assert page.get_by_label("Name of the model").evaluate("input => input.validity.valueMissing")
    page.get_by_label("Name of the model").fill("sim-new")
    page.get_by_role("button", name="Submit").click()
    expect(status(page)).to_have_text("completed")
    expect(page.locator("#job-model")).to_have_text("sim-new")


def test_a_session_that_ended_is_told_and_the_way_back_keeps_the_job(site: Site) -> None:
    page = site.tab()
    submit(page, site, QUICK)
    expect(status(page)).to_have_text("completed")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#session-notice")).to_be_visible()
    page.reload()
    expect(page).to_have_url(re.compile(r"/login/\?next=/#job="))
    page.get_by_label("Username").fill(site.user.username)
    page.get_by_label("Password").fill("password")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/#job="))
    expect(status(page)).to_have_text("completed")
    site.forgive()


def test_who_logs_out_in_one_tab_is_logged_out_in_all(site: Site) -> None:
    page = site.tab()
    submit(page, site, QUICK)
    expect(status(page)).to_have_text("completed")
    account = site.tab("/account/", beside=page)
    other = site.tab(beside=page)
    other.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile(r"/login/\?next=/#job="))
    expect(account).to_have_url(re.compile(r"/login/\?next=/account/"))
    assert page.evaluate("Object.keys(sessionStorage)") == []
    site.forgive()
