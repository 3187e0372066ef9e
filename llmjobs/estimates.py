"""What a call will use, guessed before it is made, from its request alone; and what it did cost, from prices.

Tokens are counted as characters / 4, which is what English text has on average in OpenAI's encodings; the correction at
settle makes up for what the guess got wrong. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llmjobs.states import Endpoint, Size

CHARS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4  # role and separators, as OpenAI's cookbook counts them
TOKENS_PER_ATTACHMENT = 1_000  # an image or file given inline as base64, whose length says little
OUTPUT_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
CHOICES_MAX = 128  # more than that OpenAI refuses
OUTPUT_MAX = 2_147_483_647  # what the column holds: a request may name any number
USD_MAX = Decimal(999_999)  # likewise


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens; `cost` is in weighted tokens: input + output as priced.

    `max_output_tokens` is the most that the request allows, all choices together; None: it does not say.
    """

    input_tokens: int
    output_tokens: int
    max_output_tokens: int | None
    cost: float
    size: Size


def estimate(
    endpoint: str,
    body: Mapping[str, Any],
    *,
    output_weight: float,
    default_output_tokens: int,
    short_output_tokens: int,
) -> Estimate:
    prompt = [body.get(key) for key in ("messages", "input", "instructions", "tools")]
    input_tokens = max(1, math.ceil(_tokens(prompt)))
    output_tokens, max_output_tokens = 0, _most_output(endpoint, body)
    if endpoint != Endpoint.EMBEDDINGS:
        output_tokens = min([default_output_tokens, *_limits(body)]) * _choices(body)
    return Estimate(
        input_tokens,
        output_tokens,
        max_output_tokens,
        weighted_tokens(input_tokens, output_tokens, output_weight),
        Size.SHORT if output_tokens <= short_output_tokens else Size.LONG,
    )


def weighted_tokens(input_tokens: int, output_tokens: int, output_weight: float) -> float:
    """What fairness measures: an output token counts as much more as it is dearer."""
    return input_tokens + output_tokens * output_weight


def cost_usd(
    input_tokens: int,
    output_tokens: int,
    input_usd_per_mtok: Decimal | None,
    output_usd_per_mtok: Decimal | None,
) -> Decimal | None:
    """Dollars, by the prices of a million tokens; None where no price is known."""
    if input_usd_per_mtok is None and output_usd_per_mtok is None:
        return None
    total = input_tokens * (input_usd_per_mtok or 0) + output_tokens * (output_usd_per_mtok or 0)
    return Decimal(total) / 1_000_000


def estimated_usd(guess: Estimate, input_price: Decimal | None, output_price: Decimal | None) -> Decimal | None:
    """Dollars that the call is expected to cost, by the prices of a million tokens, to eight places."""
    usd = cost_usd(guess.input_tokens, guess.output_tokens, input_price, output_price)
    return None if usd is None else min(usd, USD_MAX).quantize(Decimal("1e-8"))


def _most_output(endpoint: str, body: Mapping[str, Any]) -> int | None:
    if endpoint == Endpoint.EMBEDDINGS:
        return 0
    limits = _limits(body)
    return min(min(limits) * _choices(body), OUTPUT_MAX) if limits else None


def _choices(body: Mapping[str, Any]) -> int:
    choices = body.get("n")
    if not isinstance(choices, int) or isinstance(choices, bool):
        return 1
    return min(max(choices, 1), CHOICES_MAX)


def _limits(body: Mapping[str, Any]) -> list[int]:
    limits = (body.get(key) for key in OUTPUT_LIMITS)
    return [limit for limit in limits if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0]


def _tokens(value: Any) -> float:
    if isinstance(value, str):
        return TOKENS_PER_ATTACHMENT if value.startswith("data:") else len(value) / CHARS_PER_TOKEN
    if isinstance(value, Mapping):
        return TOKENS_PER_MESSAGE + sum(_tokens(part) for key, part in value.items() if key != "role")
    if isinstance(value, list):
        if value and all(isinstance(part, int) for part in value):
            return len(value)  # an embeddings input that is tokens already
        return sum(_tokens(part) for part in value)
    return 0
