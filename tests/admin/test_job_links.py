"""On the page of a job: who gave it to whom, and an end to that."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client as Browser
from django.utils import timezone

from llmjobs import issuing, sharing
from llmjobs.models import ApiKey, SharedLink
from tests.admin.pages import page_url, staff, text_of
from tests.factories import make_client, make_job, make_user

pytestmark = pytest.mark.django_db


def revoke(browser: Browser, job, link) -> str:
    answer = browser.post(f"/admin/llmjobs/job/{job.pk}/revoke-link/", {"link": link}, follow=True)
    assert answer.status_code == 200
    return text_of(answer)


def test_the_page_tells_who_made_each_link_and_how_it_stands(browser: Browser) -> None:
    acme = make_client("acme")
    job = make_job("completed", client=acme)
    assert "Shared links" not in text_of(browser.get(page_url(job)))
    key, _ = ApiKey.objects.issue(acme)
    ann = make_user(acme, username="ann")
    _, token = sharing.share(job, expires_in_s=None, user_id=ann.pk)
    over, _ = sharing.share(job, expires_in_s=None, api_key_id=key.pk)
    SharedLink.objects.filter(pk=over.pk).update(expires_at=timezone.now() - timedelta(1))
    sharing.shown(token)
    page = text_of(browser.get(page_url(job)))
    for word in ("Shared links", "ann", f"the key {key.prefix}…", "valid", "expired", "never"):
        assert word in page, word
    assert page.count('name="link"') == 1, "what is over need not be revoked"
    for secret in (token, over.hash):
        assert secret not in page


def test_an_operator_revokes_one_and_the_history_tells(browser: Browser) -> None:
    job = make_job("completed")
    (first, token), (other, _) = sharing.share(job, expires_in_s=None), sharing.share(job, expires_in_s=None)
    assert "shows nothing any more" in revoke(browser, job, first.pk)
    assert sharing.shown(token) is None
    assert "was revoked before" in revoke(browser, job, first.pk)
    assert "no such link" in revoke(browser, job, "x")
    assert "no such link" in revoke(browser, make_job(), other.pk), "of another job"
    assert list(SharedLink.objects.filter(revoked_at=None)) == [other]
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (str(job.pk), "Revoked a link that showed it.")


def test_who_may_not_cancel_sees_links_and_revokes_none() -> None:
    job = make_job("completed")
    link, _ = sharing.share(job, expires_in_s=None)
    viewer = staff("view_job")
    page = text_of(viewer.get(page_url(job)))
    assert "Shared links" in page
    assert 'name="link"' not in page
    assert viewer.post(f"/admin/llmjobs/job/{job.pk}/revoke-link/", {"link": link.pk}).status_code == 403
    assert SharedLink.objects.get().revoked_at is None


def test_a_key_says_which_user_made_it(browser: Browser) -> None:
    acme = make_client("acme")
    ann = make_user(acme, username="ann")
    row, _ = issuing.issue(acme, ann.pk, name="x", scopes=["read"], expires_in_s=None)
    ApiKey.objects.issue(acme, name="y")
    assert "ann" in text_of(browser.get(page_url(row)))
    shown = text_of(browser.get("/admin/llmjobs/apikey/"))
    assert "ann" in shown
    assert "an operator" in shown
    ann.delete()
    row.refresh_from_db()
    assert row.created_by is None
