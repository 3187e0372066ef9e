"""What a configuration file may hold: its tables, their keys, and what each takes.

Owns which fields of the models a file sets, and the sentences about a value of the wrong kind. Does not own types and
bounds: those are the model's fields', and are read from them, so that the admin and a file accept the same.
Invariant: what `value_of` returns, the field accepts. "" stands for no value, where a field may be empty.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from llmjobs.models import Client, Model, Provider, Tier
from llmjobs.states import Priority

INTEGER_MAX = 2**31 - 1
SHOWN_CHARS_MAX = 64
LIMITS = ("max_queued", "max_queued_tokens", "max_running", "rpm", "tpm")
ATTRIBUTES = {"background": "has_background"}  # where a file has another word than the model
UNSHOWN = frozenset({"api_key_env", "base_url"})  # a key or a password, put there by mistake, is not said again

Row = Tier | Provider | Model | Client


@dataclass(frozen=True, slots=True)
class Table:
    """`keys` in the order in which changes are shown; `required`: those that a new one can't do without."""

    name: str
    model: type[Row]
    keys: tuple[str, ...]
    required: tuple[str, ...] = ()

    def attribute(self, key: str) -> str:
        return ATTRIBUTES.get(key, key)

    def field(self, key: str) -> Any:
        return self.model._meta.get_field(self.attribute(key))

    def references(self) -> list[tuple[str, str]]:
        """(key, name of the table that it refers to)."""
        fields = [self.field(key) for key in self.keys]
        return [(field.name, TABLE_OF[field.related_model]) for field in fields if field.is_relation]


# In the order in which they are made: what is referred to comes first. A model's fallback is set once all are made.
TABLES = {
    table.name: table
    for table in (
        Table("tier", Tier, ("name", "weight", "max_priority", "aging_s", "backlog_target_s", *LIMITS)),
        Table(
            "provider",
            Provider,
            ("name", "base_url", "api_key_env", "any_model", "default_rpm", "default_tpm", "rpm", "tpm", "max_running",
             "background", "is_paused"),
            required=("base_url",),
        ),
        Table(
            "model",
            Model,
            ("name", "provider", "upstream_name", "rpm", "tpm", "max_running", "window", "token_policy",
             "input_usd_per_mtok", "output_usd_per_mtok", "context_window", "fallback", "is_paused"),
            required=("provider",),
        ),
        Table(
            "client",
            Client,
            ("name", "tier", "weight", "is_paused", "monthly_budget_usd", *LIMITS),
            required=("tier",),
        ),
    )
}  # fmt: skip
TABLE_OF: dict[Any, str] = {table.model: table.name for table in TABLES.values()}


class Unfit(Exception):
    """The value is not what the key takes; says what was expected and what came."""


def value_of(table: Table, key: str, raw: Any) -> Any:
    """What `raw`, a value of TOML with floats as Decimals, stands for; of a reference, the name. Raises Unfit."""
    field = table.field(key)
    if raw == "" and field.null and not isinstance(raw, bool):
        return None
    try:
        if field.is_relation:
            return _text(raw)
        if raw == "" and not field.blank:
            raise ValueError
        value = _typed(field, raw)
        field.clean(value, None)
    except ValidationError as error:
        raise Unfit(_sentence(key, raw, error)) from None
    except ValueError:
        raise Unfit(f"expected {expected(table, key)}, got {_shown(key, raw)}") from None
    return value


def expected(table: Table, key: str) -> str:
    """What the key takes, in words."""
    field = table.field(key)
    if field.is_relation:
        return f"the name of a {TABLE_OF[field.related_model]}"
    if key == "max_priority":
        return f"one of {', '.join(priority.word for priority in Priority)}, or its number"
    if field.choices:
        return f"one of {', '.join(str(value) for value, _ in field.choices)}"
    if isinstance(field, models.BooleanField):
        return "true or false"
    if isinstance(field, models.CharField):
        return "a text"
    least, most = _bounds(field)
    if isinstance(field, models.DecimalField):
        return f"a number from {least:,} to {most:,}, with at most {field.decimal_places} decimals"
    return f"{'a number' if isinstance(field, models.FloatField) else 'a whole number'} from {least:,} to {most:,}"


def shown(table: Table, key: str, value: Any) -> str:
    """A value of a row, as people would write it in a file."""
    if value is None or value == "":
        return "none"
    if isinstance(value, models.Model):
        return str(value)
    if key == "max_priority":
        return Priority(value).word
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _typed(field: Any, raw: Any) -> Any:
    """Raises ValueError for a value of another type, or out of bounds."""
    if field.name == "max_priority":
        return _priority(raw)
    if field.choices:
        if raw not in [value for value, _ in field.choices]:
            raise ValueError
        return str(raw)
    if isinstance(field, models.BooleanField):
        if not isinstance(raw, bool):
            raise ValueError
        return raw
    if isinstance(field, models.CharField):
        return _text(raw)
    number = _number(raw, int if isinstance(field, models.IntegerField) else (int, Decimal))
    if isinstance(field, models.FloatField):
        number = float(number)
    least, most = _bounds(field)
    if not least <= number <= most:
        raise ValueError
    if isinstance(field, models.DecimalField):
        return _money(field, Decimal(number))
    return number


def _priority(raw: Any) -> int:
    if isinstance(raw, str):
        words = {priority.word: priority.value for priority in Priority}
        if raw not in words:
            raise ValueError
        return words[raw]
    return int(Priority(_number(raw, int)))


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or "\0" in raw:  # which Postgres can't hold
        raise ValueError
    return raw


def _number(raw: Any, types: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, types) or (isinstance(raw, Decimal) and not raw.is_finite()):
        raise ValueError
    return raw


def _money(field: Any, number: Decimal) -> Decimal:
    """Exactly as given, or refused: a price is not rounded."""
    rounded = number.quantize(Decimal(1).scaleb(-field.decimal_places))
    if rounded != number:
        raise ValueError
    return rounded


def _bounds(field: Any) -> tuple[Any, Any]:
    """The least and the most that the field and its column take."""
    of_column: Any = INTEGER_MAX
    if isinstance(field, models.DecimalField):
        smallest = Decimal(1).scaleb(-field.decimal_places)
        of_column = 10 ** (field.max_digits - field.decimal_places) - smallest
    least: Any = max([v.limit_value for v in field.validators if isinstance(v, MinValueValidator)], default=0)
    most: Any = min([v.limit_value for v in field.validators if isinstance(v, MaxValueValidator)], default=of_column)
    return max(least, 0), most


def _shown(key: str, raw: Any) -> str:
    if key in UNSHOWN:
        return "something else"
    text = json.dumps(raw, ensure_ascii=False) if isinstance(raw, str | bool) else str(raw)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def _sentence(key: str, raw: Any, error: ValidationError) -> str:
    """Of a field's own validators: `name_validator`, `validate_base_url`, `validate_key_env`, the length."""
    said = " ".join(error.messages)
    if key in UNSHOWN:
        said = said.rpartition(", got ")[0] or said
        return f"{said}, got something else"
    return f"{said.rstrip('.')}, got {_shown(key, raw)}" if ", got " not in said else said
