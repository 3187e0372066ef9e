"""The admin in a real Chromium, under the policy of the site: what Django's own scripts and styles need is allowed."""

import pytest
from django.contrib.auth.models import User
from django.test import Client as Session
from playwright.sync_api import expect

from tests.browser.conftest import Site, apart
from tests.factories import make_job

pytestmark = pytest.mark.django_db


def test_no_page_of_the_admin_is_broken_by_the_policy(site: Site) -> None:
    root = apart(User.objects.create_superuser, f"root-of-{site.client}", password="password")
    job = apart(make_job, "completed", client=site.client, model=site.model)
    session = Session()
    apart(session.force_login, root)
    site.cookie = session.cookies["sessionid"].value
    page = site.tab("/admin/")
    for path in (
        "/admin/llmjobs/job/",
        f"/admin/llmjobs/job/{job.pk}/change/",
        f"/admin/llmjobs/client/{site.client.pk}/change/",
        f"/admin/auth/user/{root.pk}/change/",  # dates, times and two-sided lists: the admin's own JavaScript
    ):
        page.goto(site.url + path)
        expect(page.locator("#content h1")).to_be_visible()
        assert site.complaints == [], path
    expect(page.locator(".selector-chooseall").first).to_be_visible()
