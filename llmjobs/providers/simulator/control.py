"""How the simulator behaves towards everybody: what the command line sets and `POST /_control` changes while
it runs.

Owns the names, the types and the bounds of these settings. Does not carry them out.
Invariant: a Behaviour is always valid; a change with one wrong field changes nothing, and the error names the
field.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from llmjobs.providers.simulator.faults import FAULTS, Fault, parse_orders
from llmjobs.providers.simulator.limits import WINDOWS, Window
from llmjobs.providers.simulator.rehearsed import SHAPE, Line, is_lines


class BadControl(Exception):
    def __init__(self, name: str, expected: str, got: Any) -> None:
        super().__init__(f"{name}: expected {expected}, got {got!r}")
        self.field = name


@dataclass(frozen=True, slots=True)
class Behaviour:
    rpm: int | None = None  # None: no limit, and no headers about it
    tpm: int | None = None
    window: Window = "sliding"
    count_max_tokens: bool = False  # count what was asked for at most, not what will be said
    ttft_ms: float = 0.0
    tokens_per_s: float = 0.0  # 0: as fast as can be
    fault: str | None = None  # an order for every call, or for `fail_rate` of them
    fail_rate: float | None = None  # without `fault`: a mix of faults; without a rate: `fault` for every call
    faults: Mapping[str, float] = field(default_factory=dict)  # order: the share of calls that it meets
    responses_kept_s: float = 600.0  # how long one in the background is found again, from its start
    refuse: bool | float = False  # nobody listens; a number: for so many seconds
    answers: Sequence[Line] = ()  # what is said, and to which prompts: rehearsed.py
    seed: int = 0  # of the dice that `fail_rate` and `faults` throw

    def orders(self) -> tuple[Fault, ...]:
        return parse_orders(self.fault) if self.fault else ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


DEFAULT = Behaviour()
COMMANDS = ("reset", "reset_ledger")  # things to do, beside the settings


def changed(behaviour: Behaviour, wanted: Mapping[str, Any], *, initial: Behaviour = DEFAULT) -> Behaviour:
    """`behaviour` with the fields of `wanted`; null is the default, `reset: true` begins with `initial`.

    Raises BadControl.
    """
    for name in wanted:
        if name not in _CHECKS and name not in COMMANDS:
            raise BadControl(name, f"one of {', '.join(sorted((*_CHECKS, *COMMANDS)))}", wanted[name])
    for name in COMMANDS:
        _check(wanted.get(name, False), name, _is_flag)
    settings = {name: value for name, value in wanted.items() if name not in COMMANDS}
    for name, value in settings.items():
        if value is None:
            settings[name] = getattr(DEFAULT, name)
        else:
            _check(value, name, _CHECKS[name])
    return replace(initial if wanted.get("reset") else behaviour, **settings)


def _check(value: Any, name: str, check: tuple[Any, str]) -> None:
    accepts, expected = check
    if not accepts(value):
        raise BadControl(name, expected, value)


def _is_number(value: Any, least: float, most: float) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_order(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse_orders(value))
    except ValueError:
        return False


def _is_mix(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(_is_order(order) and "," not in order and _is_number(share, 0, 1) for order, share in value.items())
        and sum(value.values()) <= 1 + 1e-9
    )


_is_flag = (lambda value: isinstance(value, bool), "true or false")
_LIMIT_MAX = 1_000_000_000
_FAULT_NAMES = ", ".join(sorted(FAULTS))
_CHECKS: dict[str, tuple[Any, str]] = {
    "rpm": (lambda value: _is_whole(value, 1, _LIMIT_MAX), f"a whole number from 1 to {_LIMIT_MAX}, or null"),
    "tpm": (lambda value: _is_whole(value, 1, _LIMIT_MAX), f"a whole number from 1 to {_LIMIT_MAX}, or null"),
    "window": (lambda value: value in WINDOWS, f"one of {', '.join(WINDOWS)}"),
    "count_max_tokens": _is_flag,
    "ttft_ms": (lambda value: _is_number(value, 0, 86_400_000), "milliseconds from 0 to 86400000"),
    "tokens_per_s": (lambda value: _is_number(value, 0, 1_000_000), "a number from 0 (no pace) to 1000000"),
    "fault": (_is_order, f"name[:times[:value]] with a name of {_FAULT_NAMES}, or null"),
    "fail_rate": (lambda value: _is_number(value, 0, 1), "a number from 0 to 1, or null"),
    "faults": (_is_mix, f'shares that sum up to at most 1, as {{"server_error": 0.1}}, of {_FAULT_NAMES}'),
    "responses_kept_s": (lambda value: _is_number(value, 0, 86_400), "seconds from 0 to 86400"),
    "refuse": (
        lambda value: isinstance(value, bool) or _is_number(value, 0, 86_400),
        "true, false, or seconds up to 86400",
    ),
    "answers": (is_lines, SHAPE),
    "seed": (lambda value: _is_whole(value, -(2**63), 2**63), "a whole number"),
}
