"""What the page makes of single jobs: conversations, retries, rewording, drafts; and how it stays fluid."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from llmjobs.models import Client, Job, JobRequest
from tests.browser.axe import faults_of
from tests.browser.conftest import Site, apart, make_running
from tests.browser.test_page import output, row, status, submit, text, text_by_api
from tests.factories import make_client, make_job, make_tier

pytestmark = pytest.mark.django_db

QUICK = "[[tokens=12]]"
IS_AT_END = """() => {
  const thread = document.querySelector('#job-thread');
  return thread.scrollHeight - thread.scrollTop - thread.clientHeight < 40;
}"""
WATCH_BLOCKS = """() => {
  const output = document.querySelector('#job-output');
  window.touched = new Set();
  const changed = ({ target, addedNodes }) => target === output ? [...addedNodes] : [target];
  new MutationObserver((records) => records.flatMap(changed).forEach((one) => touched.add(one)))
    .observe(output, { childList: true, subtree: true });
}"""


@pytest.fixture(autouse=True)
def nobody_complains(site: Site) -> Iterator[None]:
    yield
    assert site.complaints == []


def send(page: Page, prompt: str) -> str:
    """The id of the job, once it is complete."""
    before = page.url
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Submit").click()
    expect(page).not_to_have_url(before)
    expect(status(page)).to_have_text("completed")
    expect(page.get_by_role("button", name="Submit")).to_be_enabled()
    return page.url.split("#job=")[1]


def turns(page: Page) -> list[str]:
    return page.locator("#job-turns .turn-text").all_text_contents()


def asked(job_id: str) -> JobRequest:
    return JobRequest.objects.get(job__public_id=job_id)


def test_a_conversation_sends_what_was_said_before_and_opens_again_after_a_reload(site: Site) -> None:
    page = site.tab()
    page.get_by_role("radio", name="Conversation").check()
    page.get_by_text("System prompt and parameters").click()
    page.get_by_label("System prompt").fill("Be brief.")
    first = send(page, f"One {QUICK}")
    first_answer = text(page)
    expect(page.locator("#composer-context")).to_contain_text("turn 2")
    assert page.get_by_label("Prompt", exact=True).input_value() == ""
    second = send(page, f"Two {QUICK}")
    assert turns(page) == ["Be brief.", f"One {QUICK}", first_answer, f"Two {QUICK}"]
    requests = [apart(asked, job_id) for job_id in (first, second)]
    assert [request.metadata["turn"] for request in requests] == ["1", "2"]
    assert len({request.metadata["conversation"] for request in requests}) == 1
    page.reload()
    expect(page.locator("#job-turns .turn")).to_have_count(4)
    expect(page.locator("#composer-context")).to_contain_text("turn 3")
    row(page, first).click()
    expect(page.locator("#job-later")).to_be_visible()
    page.get_by_role("link", name="Open its latest turn").click()
    expect(page).to_have_url(re.compile(second))
    expect(page.locator("#job-turns .turn")).to_have_count(4)
    page.get_by_role("button", name="Start anew").click()
    expect(page.locator("#composer-context")).to_be_hidden()
    assert faults_of(page) == []


def test_a_single_answer_can_be_replied_to_reworded_and_repeated(site: Site) -> None:
    page = site.tab()
    first = submit(page, site, f"One {QUICK}")
    expect(status(page)).to_have_text("completed")
    page.get_by_role("button", name="Reply").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    second = send(page, f"Two {QUICK}")
    assert apart(asked, second).metadata == {"conversation": first, "turn": "2"}
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(f"Two {QUICK}")
    third = send(page, f"Another two {QUICK}")
    assert apart(asked, third).metadata == {"conversation": first, "turn": "2", "edit_of": second}
    expect(page.locator("#job-turns .turn")).to_have_count(3)
    page.get_by_role("button", name="Retry").click()
    expect(page).not_to_have_url(re.compile(third))
    expect(status(page)).to_have_text("completed")
    fourth = page.url.split("#job=")[1]
    again, before = apart(asked, fourth), apart(asked, third)
    assert again.metadata["retry_of"] == third
    assert again.body == before.body
    page.get_by_role("link", name="Repeats an earlier job").click()
    expect(page).to_have_url(re.compile(third))


def test_a_request_can_be_copied_as_a_program_and_its_texts_deleted_after_a_question(site: Site) -> None:
    page = site.tab()
    job_id = submit(page, site, f"It's me {QUICK}")
    expect(status(page)).to_have_text("completed")
    menu = page.locator("#job-menu summary")
    menu.click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl '{site.url}/api/jobs'")
    assert "It'\\''s me" in copied
    page.get_by_role("button", name="Delete the texts…").click()
    page.get_by_role("button", name="Keep them").click()
    expect(output(page)).not_to_be_empty()
    menu.click()
    page.get_by_role("button", name="Delete the texts…").click()
    page.get_by_role("button", name="Delete the texts", exact=True).click()
    expect(row(page, job_id)).to_contain_text("deleted")
    expect(output(page)).to_be_empty()
    expect(page.locator("#job-turns")).to_be_hidden()
    assert page.request.get(f"{site.url}/api/jobs/{job_id}/request").status == 404


def test_choices_and_the_draft_outlive_a_reload(site: Site) -> None:
    page = site.tab()
    page.get_by_label("Priority", exact=True).select_option("low")
    page.get_by_role("radio", name="Conversation").check()
    page.get_by_label("Prompt", exact=True).fill("Half a thou")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Half a thou")
    expect(page.get_by_label("Priority", exact=True)).to_have_value("low")
    expect(page.get_by_role("radio", name="Conversation")).to_be_checked()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login/**")
    assert page.evaluate("Object.keys(sessionStorage)") == []


def test_a_user_of_two_clients_says_which_one_pays_and_each_has_its_own_priorities(site: Site) -> None:
    def second_client() -> Client:
        client = make_client(tier=make_tier(max_priority=8))
        client.users.add(site.user)
        return client

    other = apart(second_client)
    page = site.tab()
    page.get_by_label("Client", exact=True).select_option(other.name)
    expect(page.get_by_label("Priority", exact=True).get_by_role("option")).to_have_text(["low", "background"])
    job_id = submit(page, site, QUICK)
    expect(status(page)).to_have_text("completed")
    assert apart(lambda: Job.objects.get(public_id=job_id).client_id) == other.pk
    page.reload()
    expect(page.get_by_label("Client", exact=True)).to_have_value(other.name)
    page.get_by_label("Client of the jobs listed").select_option(site.client.name)
    expect(page.get_by_text("No job of yours matches")).to_be_visible()
    assert faults_of(page) == []


def test_a_full_queue_is_waited_for_and_the_waiting_can_be_stopped(site: Site) -> None:
    site.pause()
    apart(Client.objects.filter(pk=site.client.pk).update, max_queued=1)
    page = site.tab()
    submit(page, site, QUICK)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#composer-waiting")).to_contain_text("Waits its turn: the queue is full")
    page.get_by_role("button", name=re.compile("^Don.t send it$")).click()
    expect(page.locator("#composer-waiting")).to_be_hidden()
    expect(page.get_by_role("button", name="Submit")).to_be_enabled()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(QUICK)
    assert apart(Job.objects.filter(client=site.client).count) == 1
    site.forgive()


def test_a_retry_says_that_it_waits_and_one_without_an_answer_is_not_made_twice(site: Site) -> None:
    page = site.tab()
    first = submit(page, site, QUICK)
    expect(status(page)).to_have_text("completed")
    site.pause()
    apart(Client.objects.filter(pk=site.client.pk).update, max_queued=1)
    submit(page, site, f"Another {QUICK}")
    page.goto(f"{site.url}/#job={first}")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("button", name="Waits its turn")).to_be_disabled()

    keys: list[str | None] = []
    apart(Client.objects.filter(pk=site.client.pk).update, max_queued=None)
    page.clock.install()
    page.reload()
    page.route("**/api/jobs", lambda route: (keys.append(route.request.headers.get("idempotency-key")), route.abort()))
    page.get_by_role("button", name="Retry").click()
    for _ in range(30):  # until nobody waits any longer
        page.clock.run_for(1000)
    expect(page.locator("#job-problem")).to_contain_text(re.compile("can.t be reached"))
    page.get_by_role("button", name="Retry").click()
    page.clock.run_for(1000)
    assert len(keys) > 2 and len(set(keys)) == 1
    site.forgive()


def test_a_budget_that_is_used_up_is_said_plainly(site: Site) -> None:
    apart(Client.objects.filter(pk=site.client.pk).update, monthly_budget_usd="0.000001")
    page = site.tab()
    page.get_by_label("Prompt", exact=True).fill(QUICK)
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#composer-error")).to_contain_text("The budget is used up")
    site.forgive()


def test_a_page_without_network_says_so_keeps_the_text_and_goes_on_by_itself(site: Site) -> None:
    page = site.tab()
    submit(page, site, "[[tokens=60]] [[tokens_per_s=15]]")
    expect(output(page)).not_to_be_empty()
    page.context.set_offline(True)
    expect(page.locator("#offline-notice")).to_be_visible()
    expect(page.locator("#connection-text")).to_have_text("offline")
    page.get_by_label("Prompt", exact=True).fill("Written in a tunnel")
    page.context.set_offline(False)
    expect(page.locator("#offline-notice")).to_be_hidden()
    expect(page.locator("#connection-text")).to_have_text("live")
    expect(status(page)).to_have_text("completed")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("Written in a tunnel")
    assert text(page) == text_by_api(page, site, page.url.split("#job=")[1])
    site.forgive()


def test_the_list_is_searched_and_filtered(site: Site) -> None:
    def jobs() -> tuple[Job, Job]:
        owner = {"client": site.client, "model": site.model}
        body = {"messages": [{"role": "user", "content": "Where is the lighthouse?"}]}
        return make_job("completed", output_text="On the cliff.", body=body, **owner), make_job("cancelled", **owner)

    found, other = apart(jobs)
    page = site.tab()
    expect(page.locator("tr[data-id]")).to_have_count(2)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("LIGHTHOUSE")
    expect(page.locator("tr[data-id]")).to_have_count(1)
    expect(row(page, str(found.public_id))).to_be_visible()
    expect(page.locator("#jobs-reach")).to_have_text("Searched all of your jobs.")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("tr[data-id]")).to_have_count(2)
    page.get_by_label("Status of the jobs listed").select_option("cancelled")
    expect(page.locator("tr[data-id]")).to_have_count(1)
    expect(row(page, str(other.public_id))).to_be_visible()


def test_keys_work_outside_of_fields_and_can_be_switched_off(site: Site) -> None:
    jobs = apart(lambda: [make_job("completed", client=site.client, model=site.model) for _ in range(2)])
    page = site.tab()
    expect(page.locator("tr[data-id]")).to_have_count(2)
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(str(jobs[1].public_id)))
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(str(jobs[0].public_id)))
    page.keyboard.press("n")
    page.keyboard.type("k?")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("k?")
    page.locator("#jobs-title").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert faults_of(page) == []
    page.get_by_label("Single letters act").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    expect(page).to_have_url(re.compile(str(jobs[0].public_id)))


def test_a_megabyte_stays_fluid_whole_and_where_its_reader_is(site: Site) -> None:
    """Of the hundreds of blocks that are there already, none is laid out anew when more comes, but for the last."""
    job = apart(make_running, site, "".join(f"{number} words of a long story\n" for number in range(34_000)))
    page = site.tab(f"/#job={job.public_id}")
    page.wait_for_function("() => document.querySelector('#job-output').textContent.length > 8e5")
    page.wait_for_function(IS_AT_END)
    page.evaluate("document.querySelector('#job-thread').scrollTop = 500")

    def say(texts: list[str]) -> None:
        first = job.events.latest("seq").seq + 1
        job.events.bulk_create(
            job.events.model(job=job, seq=seq, type="delta", data={"text": text})
            for seq, text in enumerate(texts, first)
        )

    page.evaluate(WATCH_BLOCKS)
    apart(say, [f"more {number} " for number in range(2_000)])
    page.wait_for_function("() => document.querySelector('#job-output').textContent.endsWith('more 1999 ')")
    assert page.evaluate("document.querySelector('#job-thread').scrollTop") == 500
    assert page.evaluate("document.querySelector('#job-output').children.length") > 400
    assert 1 <= page.evaluate("touched.size") <= 3
