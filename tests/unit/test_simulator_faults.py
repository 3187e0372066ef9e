"""Orders of faults: their grammar, and on which call of a job each is due."""

import pytest

from llmjobs.providers.simulator.faults import (
    FAULTS,
    STATUS_FAULTS,
    Fault,
    due,
    error_of,
    parse_orders,
    retry_after,
)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_can_be_ordered_by_its_name(name: str) -> None:
    assert parse_orders(name) == (Fault(name),)


def test_an_order_may_say_how_often_and_how_much() -> None:
    assert parse_orders("stall:2:0.5, reset::7") == (Fault("stall", 2, 0.5), Fault("reset", None, 7))


@pytest.mark.parametrize(
    "text", ["", "typo", "stall:x", "stall:1:y", "stall:-1", "stall:1:-1", "stall:1:2:3", "stall:1:nan"]
)
def test_a_wrong_order_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_orders(text)


def test_orders_are_used_up_one_after_the_other() -> None:
    orders = parse_orders("server_error:2,reset:1")
    assert [fault and fault.name for fault in (due(orders, nth) for nth in range(5))] == [
        "server_error",
        "server_error",
        "reset",
        None,
        None,
    ]


def test_an_order_without_a_count_never_ends() -> None:
    assert due(parse_orders("reset:1,stall"), 1_000) == Fault("stall")


def test_none_exempts_a_call() -> None:
    assert due(parse_orders("none"), 0) is None


@pytest.mark.parametrize("name", STATUS_FAULTS)
def test_a_status_fault_has_an_error_of_its_own(name: str) -> None:
    error = error_of(Fault(name), model="m", prompt_param="messages", input_tokens=5)
    assert 400 <= error.status <= 599
    assert error.message
    assert error.type


@pytest.mark.parametrize(
    ("seconds", "rounded", "milliseconds"),
    [(0.25, "1", "250"), (1, "1", "1000"), (1.0001, "2", "1001"), (0, "0", "0")],
)
def test_retry_after_is_rounded_up(seconds: float, rounded: str, milliseconds: str) -> None:
    assert retry_after(seconds) == {"retry-after": rounded, "retry-after-ms": milliseconds}
