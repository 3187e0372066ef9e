"""GET /api/models."""

from decimal import Decimal

import pytest

from llmjobs.conf import conf
from tests.factories import make_model, make_provider

pytestmark = pytest.mark.django_db


def test_models_are_listed_with_limits_and_prices(api, model):
    make_model(
        "priced", provider=make_provider("openai"), rpm=60, tpm=9000, max_running=4, context_window=128_000,
        input_usd_per_mtok=Decimal("0.40"), output_usd_per_mtok=Decimal("1.60"), fallback=model,
    )  # fmt: skip

    answer = api.get("models").json()

    assert answer["object"] == "list"
    assert [shown["id"] for shown in answer["data"]] == ["gpt", "priced"]
    priced = answer["data"][1]
    assert priced["object"] == "model"
    assert priced["owned_by"] == "openai"
    assert priced["limits"] == {"rpm": 60, "tpm": 9000, "max_running": 4}
    assert priced["prices"] == {"input_usd_per_mtok": 0.4, "output_usd_per_mtok": 1.6}
    assert (priced["context_window"], priced["fallback"]) == (128_000, "gpt")


def test_a_model_without_limits_of_its_own_has_the_default_ones(api):
    make_model("plain", rpm=None, tpm=None)
    shown = api.get("models").json()["data"][-1]

    assert shown["limits"] == {"rpm": conf.default_rpm, "tpm": conf.default_tpm, "max_running": None}
    assert shown["prices"] == {"input_usd_per_mtok": None, "output_usd_per_mtok": None}


def test_a_paused_provider_pauses_its_models(api):
    make_model("gpt-paused", provider=make_provider(is_paused=True))

    assert api.get("models").json()["data"][-1]["is_paused"] is True


def test_the_provider_and_its_key_stay_inside(api):
    make_model("m", provider=make_provider(base_url="http://10.1.2.3/v1", api_key_env="INTERNAL_API_KEY"))

    content = api.get("models").content
    assert b"10.1.2.3" not in content
    assert b"INTERNAL_API_KEY" not in content


def test_many_models_cost_one_query(api, django_assert_num_queries):
    for _ in range(5):
        make_model()
    api.get("models")

    with django_assert_num_queries(2):  # the key, the models
        api.get("models")
