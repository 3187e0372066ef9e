"""Providers and models: a key's variable is named, never read out; limits and prices are edited; both are paused."""

from typing import Any

import pytest
from django.test import Client as Browser

from llmjobs.models import Model, Provider
from tests.admin.pages import ask, confirm, list_url, page_url, text_of
from tests.factories import make_job, make_model, make_provider

pytestmark = pytest.mark.django_db


def provider_form(**changes: Any) -> dict[str, Any]:
    return {"name": "openai", "base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY", **changes}


def test_a_provider_names_a_variable_that_the_allow_list_has(browser: Browser) -> None:
    assert browser.post("/admin/llmjobs/provider/add/", provider_form()).status_code == 302
    assert Provider.objects.get().api_key_env == "OPENAI_API_KEY"


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "PATH", "openai_api_key"])
def test_a_variable_outside_the_allow_list_is_refused(browser: Browser, name: str) -> None:
    answer = browser.post("/admin/llmjobs/provider/add/", provider_form(api_key_env=name))
    assert "LLMJOBS_PROVIDER_KEYS_ENV" in str(answer.context["adminform"].form.errors["api_key_env"])
    assert not Provider.objects.exists()


def test_a_page_says_whether_a_key_is_set_and_never_which(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setenv("SET_API_KEY", "sk-very-secret")
    monkeypatch.delenv("UNSET_API_KEY", raising=False)
    expected = {"SET_API_KEY": "yes", "UNSET_API_KEY": "no", "": "needs none", "SECRET_KEY": "not allowed"}
    for name, word in expected.items():
        provider = make_provider(api_key_env=name)
        page = text_of(browser.get(page_url(provider)))
        assert f'<div class="readonly">{word}' in page, name
        assert "sk-very-secret" not in page + text_of(browser.get(list_url("Provider")))


@pytest.mark.parametrize("url", ["ftp://example.org", "not a url", "javascript:alert(1)"])
def test_a_provider_is_reached_by_http(browser: Browser, url: str) -> None:
    answer = browser.post("/admin/llmjobs/provider/add/", provider_form(base_url=url))
    assert "base_url" in answer.context["adminform"].form.errors


@pytest.mark.parametrize("make", [make_provider, make_model])
def test_both_are_paused_and_resumed(browser: Browser, make: Any) -> None:
    row = make()
    url = list_url(type(row).__name__)
    confirm(browser, url, ask(browser, url, "pause", row))
    row.refresh_from_db()
    assert row.is_paused
    confirm(browser, url, ask(browser, url, "resume", row, from_page="1"))
    row.refresh_from_db()
    assert not row.is_paused


def test_a_models_limits_prices_and_fallback_are_edited(browser: Browser) -> None:
    model, other = make_model("gpt"), make_model("gpt-eu")
    form = {
        "name": "gpt", "provider": model.provider_id, "upstream_name": "gpt-4", "rpm": 500, "tpm": 200000,
        "max_running": "", "window": "second", "token_policy": "expected",
        "input_usd_per_mtok": "0.40", "output_usd_per_mtok": "1.60", "context_window": "",
        "fallback": other.pk,
    }  # fmt: skip
    assert browser.post(page_url(model), form).status_code == 302
    model.refresh_from_db()
    assert (model.rpm, model.fallback, model.output_weight) == (500, other, 4.0)
    assert (model.window, model.token_policy) == ("second", "expected")
    refused = browser.post(page_url(model), {**form, "fallback": model.pk, "input_usd_per_mtok": "-1"})
    assert refused.status_code == 200
    assert Model.objects.get(pk=model.pk).fallback == other


def test_a_model_leads_to_its_jobs_and_flows(browser: Browser) -> None:
    job, _ = make_job(), make_job()
    links = {label: url for url, label in browser.get(page_url(job.pool)).context["links"]}
    assert [row.pk for row in browser.get(links["Jobs"]).context["cl"].result_list] == [job.pk]
    assert browser.get(links["Flows"]).status_code == 200
