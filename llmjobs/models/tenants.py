"""Who asks: tiers (classes of service), clients (tenants) and their API keys.

An API key is shown once, when it is made. Kept are the SHA-256 of it, which is enough for 256 random bits, and its
first characters, by which people tell keys apart.
"""

import base64
import hashlib
import secrets
from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from llmjobs.states import Priority

PRIORITY_CHOICES = [(priority.value, priority.word) for priority in Priority]
name_validator = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*\Z",
    _("Letters, digits and . _ : / @ - only, beginning with a letter or digit."),
)
WEIGHT_MIN, WEIGHT_MAX = 0.001, 1_000_000
AGING_MAX_S = 30 * 86_400
weight_validators = [MinValueValidator(WEIGHT_MIN), MaxValueValidator(WEIGHT_MAX)]


MAX_QUEUED_HELP = "Jobs waiting at once, delayed ones and retries too, per client; more are refused."


def limit_field(help_text: str, label: str | None = None, *, least: int = 0) -> models.PositiveIntegerField:
    validators = [MinValueValidator(least)] if least else []
    return models.PositiveIntegerField(label, null=True, blank=True, help_text=help_text, validators=validators)


def rates_are_positive(name: str) -> models.CheckConstraint:
    """No limit a minute, or one that something fits in. Pause what shall do nothing."""
    condition = Q()
    for field in ("rpm", "tpm"):
        condition &= Q(**{f"{field}__isnull": True}) | Q(**{f"{field}__gte": 1})
    return models.CheckConstraint(name=f"{name}_rates_positive", condition=condition)


class Limits(models.Model):
    """The limits of one client. On a tier they are the default of its clients; empty means no limit of its own."""

    max_queued = limit_field(MAX_QUEUED_HELP)
    max_queued_tokens = limit_field("Estimated tokens waiting at once, per client; more are refused.")
    max_running = limit_field("Jobs running at once, per client and model.")
    rpm = limit_field("Requests a minute, per client, of all models together.", "RPM", least=1)
    tpm = limit_field("Tokens a minute, per client, of all models together.", "TPM", least=1)

    class Meta:
        abstract = True


class Tier(Limits):
    """A class of service. Tiers share a pool by weight, in tokens."""

    name = models.CharField(max_length=64, unique=True, validators=[name_validator])
    max_queued = models.PositiveIntegerField(
        null=True, blank=True, default=1_000, db_default=1_000, help_text=MAX_QUEUED_HELP
    )
    weight = models.FloatField(
        default=1,
        db_default=1,
        validators=weight_validators,
        help_text="Share of a pool, beside other tiers.",
    )
    max_priority = models.PositiveSmallIntegerField(
        choices=PRIORITY_CHOICES,
        default=Priority.CRITICAL,
        help_text="The most urgent priority that its clients may ask for.",
    )
    aging_s = models.FloatField(
        "aging, s",
        default=300,
        db_default=300,
        validators=[MinValueValidator(0), MaxValueValidator(AGING_MAX_S)],
        help_text="A client's jobs of a priority rise by one for each so many seconds in which none started; 0: never.",
    )
    backlog_target_s = models.FloatField(
        "backlog target, s",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(AGING_MAX_S)],
        help_text="Operators are told when a job of this tier has waited longer; empty: LLMJOBS_BACKLOG_TARGET_S.",
    )

    class Meta:
        ordering = ["-weight", "name"]
        constraints = [
            rates_are_positive("tier"),
            models.CheckConstraint(
                name="tier_weight_within_bounds", condition=Q(weight__gte=WEIGHT_MIN, weight__lte=WEIGHT_MAX)
            ),
            models.CheckConstraint(name="tier_max_priority_known", condition=Q(max_priority__in=list(Priority))),
            models.CheckConstraint(
                name="tier_aging_within_bounds", condition=Q(aging_s__gte=0, aging_s__lte=AGING_MAX_S)
            ),
            models.CheckConstraint(
                name="tier_backlog_target_within_bounds",
                condition=Q(backlog_target_s=None) | Q(backlog_target_s__gte=1, backlog_target_s__lte=AGING_MAX_S),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def priorities(self) -> list[Priority]:
        """Those that its clients may ask for, the most urgent first."""
        return sorted(priority for priority in Priority if priority >= self.max_priority)

    @property
    def default_priority(self) -> Priority:
        """What a form begins with: normal, or the most urgent where that is too urgent."""
        return max(Priority.NORMAL, self.priorities[0])


def new_webhook_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Client(Limits):
    """A tenant. Inside a tier, clients share by weight. A client may have several users and keys."""

    name = models.CharField(max_length=128, unique=True, validators=[name_validator])
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="clients")
    weight = models.FloatField(default=1, db_default=1, validators=weight_validators)
    users = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="llmjobs_clients")
    is_paused = models.BooleanField(default=False, db_default=False, help_text="Its jobs wait; new ones are accepted.")
    monthly_budget_usd = models.DecimalField(
        "monthly budget, $", max_digits=12, decimal_places=2, null=True, blank=True
    )
    # Signs webhooks, so it can't be hashed. Shown once, by createclient.
    webhook_secret = models.CharField(max_length=128, default=new_webhook_secret, editable=False)
    old_webhook_secret = models.CharField(max_length=128, null=True, editable=False)
    old_webhook_secret_until = models.DateTimeField(null=True, editable=False, help_text="It signs too, until then.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        permissions = [("pause_client", "Can pause and resume clients")]
        constraints = [
            rates_are_positive("client"),
            models.CheckConstraint(
                name="client_weight_within_bounds", condition=Q(weight__gte=WEIGHT_MIN, weight__lte=WEIGHT_MAX)
            ),
            models.CheckConstraint(
                name="client_budget_not_negative",
                condition=Q(monthly_budget_usd__isnull=True) | Q(monthly_budget_usd__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Scope(models.TextChoices):
    SUBMIT = "submit", _("submit jobs")
    READ = "read", _("read its client's jobs")
    CANCEL = "cancel", _("cancel its client's jobs")
    OPERATOR = "operator", _("see and steer every client's jobs")


DEFAULT_SCOPES = [Scope.SUBMIT.value, Scope.READ.value, Scope.CANCEL.value]
KEY_PREFIX = "llmj_"
KEY_PREFIX_CHARS = 12


def default_scopes() -> list[str]:
    return list(DEFAULT_SCOPES)


def hash_key(key: str) -> str:
    """SHA-256, in hex. A slow hash would add nothing: a key has 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class ApiKeyManager(models.Manager["ApiKey"]):
    def issue(self, client: Client, **fields: Any) -> tuple["ApiKey", str]:
        """Make a key. Returns (row, the key itself): the only time that the key can be read."""
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        row = self.create(client=client, prefix=key[:KEY_PREFIX_CHARS], hash=hash_key(key), **fields)
        return row, key


class ApiKey(models.Model):
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=128, blank=True)
    prefix = models.CharField(max_length=16, editable=False, help_text="The key's first characters.")
    hash = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256 of the key, in hex.")
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope.choices), default=default_scopes)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, db_constraint=False, db_index=False, null=True,
        editable=False, related_name="+", help_text="The user who made it, of a client's own.",
    )  # fmt: skip
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="To the minute.")

    objects = ApiKeyManager()

    class Meta:
        verbose_name = "API key"
        ordering = ["client__name", "-created_at"]
        constraints = [
            models.CheckConstraint(
                name="apikey_scopes_known", condition=Q(scopes__contained_by=Scope.values) & ~Q(scopes=[])
            ),
            models.CheckConstraint(name="apikey_hash_is_sha256", condition=Q(hash__regex="^[0-9a-f]{64}$")),
        ]

    def __str__(self) -> str:
        return f"{self.client}: {self.prefix}…"
