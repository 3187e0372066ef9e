"""Who answers: providers (accounts) and models. A model at its provider is a pool: one queue, one set of limits.

A provider names the environment variable that holds its key, never the key; the name must match
`conf.provider_keys_env`, or an operator could send out SECRET_KEY.
"""

import fnmatch
import re
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from llmjobs.conf import conf
from llmjobs.models.tenants import Client, limit_field, name_validator, rates_are_positive

AZURE_QUERY = re.compile(r"api-version=[A-Za-z0-9.-]{1,40}")
FALLBACKS_MAX = 10  # one after the other


def may_hold_key(name: str) -> bool:
    """Whether the allow-list has this variable. Asked by forms, and by workers again: rows come by any road."""
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in conf.provider_keys_env.split(","))


def validate_key_env(value: str) -> None:
    if value and not may_hold_key(value):
        raise ValidationError(
            f"expected the name of an environment variable that matches {conf.provider_keys_env} "
            f"(LLMJOBS_PROVIDER_KEYS_ENV), got {value!r}"
        )


def validate_base_url(value: str) -> None:
    """A host of one word is welcome, unlike in Django's URLValidator: http://vllm:8000/v1. Of queries only Azure's is:
    a key in an address would be shown wherever the address is.
    """
    try:
        url = urlsplit(value)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and not url.fragment
        is_url = is_url and ("?" not in value or AZURE_QUERY.fullmatch(url.query) is not None)
        is_url = is_url and url.port != 0 and not any(char.isspace() for char in value)
    except ValueError:
        is_url = False
    if not is_url or url.username or url.password:
        raise ValidationError(f"expected a URL like https://api.example.org/v1, without a password, got {value!r}")


class Turnstile(models.Model):
    """One row a shard, locked by each claim: limits and fairness are exact. Nothing references or edits it."""

    id = models.SmallIntegerField(primary_key=True)

    def __str__(self) -> str:
        return f"shard {self.id}"


class Provider(models.Model):
    name = models.CharField(max_length=64, unique=True, validators=[name_validator])
    base_url = models.CharField("base URL", max_length=500, validators=[validate_base_url])
    api_key_env = models.CharField(
        "API key variable",
        max_length=128,
        blank=True,
        validators=[validate_key_env],
        help_text="The environment variable that holds its key, in the workers; empty: no key.",
    )
    any_model = models.BooleanField(
        default=False, db_default=False, help_text="Takes any model name: its pool is made on first use."
    )
    default_rpm = limit_field("Of a pool made on first use.", "default RPM", least=1)
    default_tpm = limit_field("Of a pool made on first use.", "default TPM", least=1)
    rpm = limit_field(
        "Requests a minute of all its models together, where the account has such a limit.", "RPM", least=1
    )
    tpm = limit_field("Tokens a minute of all its models together, where the account has such a limit.", "TPM", least=1)
    max_running = limit_field("Calls in flight at once, of all its models together.")
    has_background = models.BooleanField(
        "background mode",
        default=False,
        db_default=False,
        help_text="Goes on with /v1/responses by itself: a call that lost its worker is picked up, not paid again.",
    )
    is_paused = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        permissions = [("pause_provider", "Can pause, resume and retry providers")]
        constraints = [rates_are_positive("provider")]

    def __str__(self) -> str:
        return self.name


class Window(models.TextChoices):
    """How the provider counts requests. Some give a minute's limit, and hold each second to a sixtieth of it."""

    MINUTE = "minute", _("by the minute")
    SECOND = "second", _("by the second")


class TokenPolicy(models.TextChoices):
    """What a call reserves of the tokens a minute, until it is known what it used."""

    PORTFOLIO = "portfolio", _("portfolio: what is expected, and a margin for all that is in flight together")
    EXPECTED = "expected", _("expected: what is expected, no margin")
    MAX_TOKENS = "max_tokens", _("max_tokens: all that the request allows, as the provider counts it up front")


def price_field(label: str, help_text: str) -> models.DecimalField:
    return models.DecimalField(
        label,
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=help_text,
    )


class Model(models.Model):
    """The pool: what clients ask for by name, and who serves it within which limits."""

    name = models.CharField(max_length=128, unique=True, validators=[name_validator])
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="models")
    upstream_name = models.CharField(
        max_length=128, blank=True, help_text="What the provider calls it; empty: the same."
    )
    rpm = limit_field(
        "Requests a minute that the provider allows; empty: the default (LLMJOBS_DEFAULT_RPM).", "RPM", least=1
    )
    tpm = limit_field(
        "Tokens a minute that the provider allows; empty: the default (LLMJOBS_DEFAULT_TPM).", "TPM", least=1
    )
    max_running = limit_field("Calls in flight at once.")
    window = models.CharField(
        max_length=8,
        choices=Window,
        default=Window.MINUTE,
        db_default=Window.MINUTE,
        help_text="How the provider counts requests.",
    )
    token_policy = models.CharField(
        max_length=12,
        choices=TokenPolicy,
        default=TokenPolicy.PORTFOLIO,
        db_default=TokenPolicy.PORTFOLIO,
        help_text="What a call reserves of the tokens a minute until its end.",
    )
    input_usd_per_mtok = price_field("input price, $", "Dollars a million input tokens.")
    output_usd_per_mtok = price_field("output price, $", "Dollars a million output tokens.")
    context_window = limit_field("Tokens of input and output together.")
    fallback = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    is_paused = models.BooleanField(default=False, db_default=False)
    made_for = models.ForeignKey(
        Client,
        on_delete=models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        help_text="Made on its first use.",
    )
    shard = models.ForeignKey(Turnstile, on_delete=models.PROTECT, default=1, db_default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        permissions = [("pause_model", "Can pause, resume and retry models")]
        constraints = [
            models.CheckConstraint(
                name="model_prices_not_negative",
                condition=(Q(input_usd_per_mtok__isnull=True) | Q(input_usd_per_mtok__gte=0))
                & (Q(output_usd_per_mtok__isnull=True) | Q(output_usd_per_mtok__gte=0)),
            ),
            rates_are_positive("model"),
            models.CheckConstraint(name="model_window_known", condition=Q(window__in=list(Window))),
            models.CheckConstraint(name="model_token_policy_known", condition=Q(token_policy__in=list(TokenPolicy))),
            models.CheckConstraint(
                name="model_is_not_its_own_fallback",
                condition=Q(fallback__isnull=True) | ~Q(fallback=models.F("id")),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """No way of fallbacks leads back to this model."""
        seen, following = [self.name], self.fallback
        while following is not None:
            seen.append(following.name)
            if following.pk == self.pk or len(seen) > FALLBACKS_MAX:
                raise ValidationError({"fallback": f"expected an end to the fallbacks, got {' → '.join(seen)}"})
            following = following.fallback

    @property
    def output_weight(self) -> float:
        """What an output token costs beside an input token, as priced; 1 where the prices are not known."""
        if self.input_usd_per_mtok and self.output_usd_per_mtok is not None:
            return float(self.output_usd_per_mtok / self.input_usd_per_mtok)
        return 1.0
