"""Laws that hold for every table of the admin, list and page alike."""

import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.test import Client as Browser

from llmjobs.admin.jobs import JobPage
from llmjobs.admin.pages import ViewOnlyPage
from llmjobs.models import Client, Flow, Job, Lane
from tests.admin.pages import TABLES, WRITTEN_BY_PROGRAMS, list_url, page_url, staff, text_of
from tests.factories import make_client, make_job

NONSENSE = [
    "q=%00", "q=%ED%A0%80", "q='--", "q=" + "x" * 5000, "q==", "q=a=", "q=99999999999999999999999999",
    "p=lt99999999999999999999", "p=-1", "p=lt", "p=abc", "o=1.2.-3", "all=", "e=1",
    "status=nope", "status=%00", "client=%00", "model=%27", "error=%00x", "worker=%00", "worker=a:99999999999",
    "created_from=nope", "created_from=0001-01-01&created_to=9999-12-31", "priority=99", "size=x", "tier=x",
    "q=" + "1" * 5000, "created_from=0001-01-01T00:00", "finished_to=9999-12-31T23:59",
    "claimed_from=9999-12-31", "claimed_to=9999-12-31", "outcome=nope", "type=nope", "state=nope",
]  # fmt: skip


def test_every_table_is_registered() -> None:
    registered = {model.__name__ for model in admin.site._registry if model._meta.app_label == "llmjobs"}
    assert registered == set(TABLES)


def test_every_list_and_page_can_be_read(browser: Browser, rows: dict[str, Model]) -> None:
    assert set(rows) == set(TABLES)
    for name, row in rows.items():
        for url in (list_url(name), page_url(row)):
            response = browser.get(url)
            assert response.status_code == 200, url
            assert str(row) in text_of(response) or str(row.pk) in text_of(response), url


@pytest.mark.parametrize("query", NONSENSE)
def test_nonsense_in_the_address_is_answered(browser: Browser, rows: dict[str, Model], query: str) -> None:
    for name in ("Job", "Attempt", "JobEvent", "Worker", "Lane", "Client", "WebhookDelivery"):
        response = browser.get(f"{list_url(name)}?{query}", follow=True)
        assert response.status_code in (200, 400), name  # 400: a filter that this list does not have


@pytest.mark.parametrize("key", ["nope", "0", "99999999999999999999", "1" * 5000, "a:b", "%00"])
def test_a_page_of_no_row_goes_back_with_a_word(browser: Browser, rows: dict[str, Model], key: str) -> None:
    for name in rows:
        response = browser.get(f"{list_url(name)}{key}/change/", follow=True)
        assert response.status_code == 200, name
        assert "exist. Perhaps it was deleted?" in text_of(response), name


def test_what_programs_write_nobody_writes_here(browser: Browser, rows: dict[str, Model]) -> None:
    for name in WRITTEN_BY_PROGRAMS:
        page = text_of(browser.get(page_url(rows[name])))
        assert 'name="_save"' not in page, name
        assert browser.get(f"{list_url(name)}add/").status_code == 403, name
        assert browser.post(page_url(rows[name]), {"_save": "Save"}).status_code == 403, name
        assert browser.post(f"{list_url(name)}{rows[name].pk}/delete/", {"post": "yes"}).status_code == 403, name


def test_nothing_is_deleted_here(browser: Browser, rows: dict[str, Model]) -> None:
    for name, row in rows.items():
        assert browser.post(f"{list_url(name)}{row.pk}/delete/", {"post": "yes"}).status_code == 403, name
        selected = {"action": "delete_selected", "_selected_action": [row.pk], "index": "0", "post": "yes"}
        browser.post(list_url(name), selected)
        assert type(row)._default_manager.filter(pk=row.pk).exists(), name


def test_looking_changes_nothing(browser: Browser, rows: dict[str, Model]) -> None:
    """Nor does an action in the address. Whether something is wrong is looked for, and its rows are the watch's."""

    def everything() -> dict[str, Any]:
        tables = [model for model in apps.get_app_config("llmjobs").get_models() if model.__name__ != "Watch"]
        return {model.__name__: list(model._default_manager.order_by("pk").values()) for model in tables}

    dead = make_job("dead")
    before, about = everything(), {"_selected_action": dead.pk, "select_across": 1, "confirmed": "yes"}
    for name, row in rows.items():
        for url in (list_url(name), page_url(row), page_url(row).replace("/change/", "/history/")):
            assert browser.get(url, follow=True).status_code == 200, url
        for action in admin.site._registry[type(row)].actions or ():
            browser.get(list_url(name), {"action": getattr(action, "__name__", action), **about}, follow=True)
    browser.get("/admin/")
    assert everything() == before


def test_a_stranger_sees_no_page(rows: dict[str, Model]) -> None:
    nobody = staff()
    for name, row in rows.items():
        assert nobody.get(list_url(name)).status_code == 403, name
        assert nobody.get(page_url(row)).status_code == 403, name
        assert Browser().get(list_url(name)).status_code == 302, name


def test_no_page_has_an_inline_script_or_style(browser: Browser, rows: dict[str, Model]) -> None:
    for name, row in rows.items():
        for url in (list_url(name), page_url(row)):
            page = text_of(browser.get(url))
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page), url


@pytest.mark.parametrize("name", ["Job", "Attempt", "JobEvent", "JobRequest", "JobResult", "Client", "Flow", "Lane"])
def test_a_list_costs_the_same_queries_for_five_rows_and_for_fifty(
    browser: Browser, rows: dict[str, Any], django_assert_max_num_queries: Any, monkeypatch: Any, name: str
) -> None:
    for page in (ViewOnlyPage, JobPage):
        monkeypatch.setattr(page, "list_per_page", 1000)  # past a page there is one count more
    model, counts = rows["Model"], []
    for number in (5, 45):
        for _ in range(number):
            client = make_client()
            make_job("completed", client=client, model=model)
            flow = Flow.objects.create(pool=model, client=client)
            Lane.objects.create(flow=flow, priority=1, size=0)
        with django_assert_max_num_queries(22) as captured:
            assert browser.get(list_url(name)).status_code == 200
        counts.append(len(captured))
    assert Job.objects.count() >= 50
    assert Client.objects.count() >= 50
    assert counts[0] == counts[1], counts


def test_the_admin_bears_the_sites_name(browser: Browser) -> None:
    for answer in (browser.get("/admin/"), Browser().get("/admin/login/")):
        page = text_of(answer)
        assert "| llmjobs</title>" in page
        assert "Django" not in page
