"""Which pool serves a model's name. A provider that takes any model gets its pools made on first use.

When OPENAI_API_KEY or OPENAI_BASE_URL is set and nobody has configured a provider that takes any model, the default
provider is made from them, so that a fresh installation with a key can be used at once.
"""

import os
from typing import cast

from django.core.exceptions import ValidationError

from llmjobs.conf import conf
from llmjobs.database import prepared_cursor, rows_of
from llmjobs.errors import InvalidRequest, ModelNotFound
from llmjobs.models import Client, Model, Provider
from llmjobs.sql import load

OPENAI_URL = "https://api.openai.com/v1"


def pool_for(name: str, client: Client) -> Model:
    """Raises ModelNotFound, or InvalidRequest when the client has had too many pools made."""
    if (pool := _found(name)) is not None:
        return pool
    provider = Provider.objects.filter(any_model=True).order_by("id").first() or _default_provider()
    if provider is None:
        raise ModelNotFound(f"expected a model of GET /api/models, got {name!r}", param="model", code="model_not_found")
    return _made_on_first_use(name, provider, client)


def _found(name: str) -> Model | None:
    """Asked at every submit: a price, a limit or a pause counts from the moment of its edit."""
    with prepared_cursor() as cursor:
        cursor.execute(load("find_model"), {"name": name})
        row = cursor.fetchone()
        return None if row is None else cast(Model, rows_of(cursor, row, {"model": Model})["model"])


def _made_on_first_use(name: str, provider: Provider, client: Client) -> Model:
    if Model.objects.filter(made_for=client).count() >= conf.pools_per_client_max:
        raise InvalidRequest(
            f"expected one of the models in use: this client has asked for {conf.pools_per_client_max} new ones",
            param="model",
            code="too_many_models",
        )
    try:
        Model._meta.get_field("name").run_validators(name)
    except ValidationError:
        raise ModelNotFound(
            f"expected the name of a model, got {name!r}", param="model", code="model_not_found"
        ) from None
    pool, _ = Model.objects.get_or_create(
        name=name,
        defaults={
            "provider": provider,
            "rpm": provider.default_rpm or conf.default_rpm,
            "tpm": provider.default_tpm or conf.default_tpm,
            "made_for": client,
        },
    )
    return pool


def _default_provider() -> Provider | None:
    url = os.environ.get("OPENAI_BASE_URL", "")
    if not url and not os.environ.get("OPENAI_API_KEY"):
        return None
    provider, _ = Provider.objects.get_or_create(
        name="openai",
        defaults={"base_url": url or OPENAI_URL, "api_key_env": "OPENAI_API_KEY", "any_model": True},
    )
    return provider if provider.any_model else None
