"""The simulator's settings: a wrong one is named, and changes nothing."""

from dataclasses import fields
from typing import Any

import pytest

from llmjobs.providers.simulator.control import _CHECKS, BadControl, Behaviour, changed


def test_every_setting_is_checked() -> None:
    assert set(_CHECKS) == {field.name for field in fields(Behaviour)}


def test_a_change_leaves_the_rest_as_it_is() -> None:
    behaviour = changed(Behaviour(rpm=60), {"ttft_ms": 20})
    assert behaviour == Behaviour(rpm=60, ttft_ms=20)


def test_null_is_the_default_and_reset_the_beginning() -> None:
    initial = Behaviour(rpm=60)
    now = changed(initial, {"rpm": 5, "fault": "stall"}, initial=initial)
    assert changed(now, {"rpm": None}, initial=initial) == Behaviour(fault="stall")
    assert changed(now, {"reset": True}, initial=initial) == initial
    assert changed(now, {"reset": True, "seed": 3}, initial=initial) == Behaviour(rpm=60, seed=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpm", 0),
        ("rpm", 1.5),
        ("tpm", "many"),
        ("tpm", True),
        ("window", "rolling"),
        ("window", ["fixed"]),
        ("count_max_tokens", 1),
        ("ttft_ms", -1),
        ("tokens_per_s", float("nan")),
        ("fault", "typo"),
        ("fault", 5),
        ("fail_rate", 1.1),
        ("faults", {"typo": 0.1}),
        ("faults", {"stall": 0.6, "reset": 0.6}),
        ("faults", {"stall": "often"}),
        ("faults", ["stall"]),
        ("refuse", "yes"),
        ("refuse", -1),
        ("seed", 1.5),
        ("reset", "yes"),
        ("reset_ledger", 1),
        ("rmp", 5),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadControl, match=rf"^{name}: expected ") as bad:
        changed(Behaviour(), {"seed": 9, name: value} if name != "seed" else {name: value})
    assert bad.value.field == name
