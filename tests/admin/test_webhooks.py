"""Webhooks: found, read, redelivered by those who may; a client's secret rotated, and shown once."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.models import Client, Job, WebhookDelivery
from tests.admin.pages import ask, confirm, list_url, page_url, staff, text_of
from tests.factories import make_client, make_job

pytestmark = pytest.mark.django_db

URL = list_url("WebhookDelivery")
CLIENTS = list_url("Client")


def make_delivery(state: str = "failed", *, job: Job | None = None, **fields: Any) -> WebhookDelivery:
    job = job or make_job("completed", has_webhook=True)
    values = {
        "client": job.client, "epoch": job.epoch, "type": "job.completed", "tries": 9, "status": 500,
        "url": "https://hooks.example/acme?token=very-secret", "error": "HTTP 500: the answer was quoted",
        "retry_until": timezone.now(), "ended_at": None if state == "pending" else timezone.now(),
    }  # fmt: skip
    return WebhookDelivery.objects.create(job=job, state=state, **{**values, **fields})


def listed(browser: Browser, **query: Any) -> set[Any]:
    return set(browser.get(URL, query).context["cl"].result_list)


def test_they_are_found_by_state_client_receiver_type_and_job(browser: Browser) -> None:
    failed, pending = make_delivery(), make_delivery("pending", url="https://other.example/")
    dead = make_delivery(job=make_job("dead"), type="job.dead")
    assert listed(browser, state="pending") == {pending}
    assert listed(browser, receiver="Other.example") == {pending}
    assert listed(browser, client=failed.client.name) == {failed}
    assert listed(browser, type="job.dead") == {dead}
    assert listed(browser, q=str(failed.job.public_id)) == {failed}
    assert listed(browser, created_from="2999-01-01") == set()


def test_secrets_of_a_url_and_words_of_a_receiver_are_content(browser: Browser) -> None:
    delivery = make_delivery()
    viewer = staff("view_webhookdelivery")
    for url in (URL, page_url(delivery)):
        page = text_of(viewer.get(url))
        assert "hooks.example" in page and "HTTP 500" in page
        assert "very-secret" not in page and "quoted" not in page
    page = text_of(browser.get(page_url(delivery)))
    assert "token=very-secret" in page and "the answer was quoted" in page


def test_no_filter_of_ones_own_making_can_guess_at_a_url(browser: Browser) -> None:
    make_delivery()
    for lookup in ("url__contains", "error__contains", "client__webhook_secret__startswith"):
        assert browser.get(URL, {lookup: "very"}).status_code == 400


def test_a_redelivery_is_asked_once_and_written_down(browser: Browser, root: Any) -> None:
    failed, delivered, untouched = make_delivery(), make_delivery("delivered"), make_delivery()
    question = ask(browser, URL, "redeliver", failed, delivered)
    assert "Redeliver 2 webhooks" in text_of(question)
    assert WebhookDelivery.objects.get(pk=failed.pk).state == "failed" and LogEntry.objects.count() == 0
    answer = confirm(browser, URL, question, reason="receiver mended")
    assert "Redelivering 2 webhooks." in text_of(answer)
    for delivery in (failed, delivered):
        delivery.refresh_from_db()
        assert (delivery.state, delivery.tries, delivery.retry_until, delivery.ended_at) == ("pending", 0, None, None)
        assert delivery.next_at <= timezone.now()
    assert {(entry.user, entry.change_message) for entry in LogEntry.objects.all()} == {
        (root, "Redelivered: receiver mended")
    }
    assert WebhookDelivery.objects.get(pk=untouched.pk).state == "failed"


def test_all_that_a_filter_matches_is_redelivered_and_nothing_that_came_later(browser: Browser) -> None:
    first = make_delivery()
    question = ask(browser, f"{URL}?state=failed", "redeliver", first, across=True)
    later = make_delivery()
    confirm(browser, f"{URL}?state=failed", question)
    assert WebhookDelivery.objects.get(pk=first.pk).state == "pending"
    assert WebhookDelivery.objects.get(pk=later.pk).state == "failed"


def test_a_redelivery_needs_its_permission() -> None:
    delivery = make_delivery()
    viewer, operator = staff("view_webhookdelivery"), staff("view_webhookdelivery", "redeliver_webhookdelivery")
    ask(viewer, URL, "redeliver", delivery, confirmed="yes")
    assert WebhookDelivery.objects.get(pk=delivery.pk).state == "failed"
    page = page_url(delivery)
    assert "Redeliver…" in text_of(operator.get(page)) and "Redeliver…" not in text_of(viewer.get(page))
    confirm(operator, URL, ask(operator, URL, "redeliver", delivery))
    assert WebhookDelivery.objects.get(pk=delivery.pk).state == "pending"


def test_the_page_of_a_job_shows_what_was_told_of_it(browser: Browser) -> None:
    job = make_job("completed", has_webhook=True)
    assert "Webhooks" in text_of(browser.get(page_url(job)))
    delivery = make_delivery(job=job)
    page = text_of(browser.get(page_url(job)))
    assert page_url(delivery) in page and "hooks.example" in page and "HTTP 500" in page
    assert "very-secret" not in page and "quoted" not in page
    assert "Last try" not in text_of(browser.get(page_url(make_job("completed"))))


def test_a_rotated_secret_is_shown_once_and_the_old_one_signs_on(browser: Browser, root: Any) -> None:
    client = make_client("acme")
    question = ask(browser, CLIENTS, "rotate_secret", client)
    assert "signs beside it for 1 d" in text_of(question)
    assert Client.objects.get().webhook_secret == client.webhook_secret, "asking rotates nothing"
    answer = confirm(browser, CLIENTS, question, reason="leaked")
    secret = answer.context["secret"]
    rotated = Client.objects.get()
    assert secret in text_of(answer) and "no-store" in answer.headers["Cache-Control"]
    assert (rotated.webhook_secret, rotated.old_webhook_secret) == (secret, client.webhook_secret)
    assert rotated.old_webhook_secret_until and rotated.old_webhook_secret_until > timezone.now() + timedelta(hours=23)
    [entry] = LogEntry.objects.all()
    assert (entry.user, entry.change_message) == (root, "Rotated the webhook secret: leaked")
    for url in (CLIENTS, page_url(client), f"{page_url(client)[:-7]}history/"):
        page = text_of(browser.get(url))
        assert secret not in page and client.webhook_secret not in page, url
    assert "two secrets sign" in text_of(browser.get(page_url(client)))


def test_a_page_that_is_loaded_again_does_not_end_the_secret_that_receivers_have(browser: Browser) -> None:
    client = make_client("acme")
    question = ask(browser, CLIENTS, "rotate_secret", client)
    secret = confirm(browser, CLIENTS, question).context["secret"]
    assert "rotated just now" in text_of(confirm(browser, CLIENTS, question))
    again = Client.objects.get()
    assert (again.webhook_secret, again.old_webhook_secret) == (secret, client.webhook_secret)


def test_a_rotation_is_of_one_client_and_needs_the_permission_to_change() -> None:
    one, other = make_client("one"), make_client("other")
    before = dict(Client.objects.values_list("pk", "webhook_secret"))
    ask(staff("view_client"), CLIENTS, "rotate_secret", one, confirmed="yes")
    ask(staff("view_client", "change_client"), CLIENTS, "rotate_secret", one, other, confirmed="yes")
    assert dict(Client.objects.values_list("pk", "webhook_secret")) == before
