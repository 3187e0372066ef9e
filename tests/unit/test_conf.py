"""Knobs: every one documented and within its own bounds; whatever is not one is refused by name."""

import re

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from llmjobs import conf
from llmjobs.conf import KNOBS, Knob


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_a_default_is_accepted_by_its_own_knob(knob: Knob) -> None:
    assert knob.accepts(knob.default)
    assert knob.parse(str(knob.default)) == knob.default


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_a_knob_says_why(knob: Knob) -> None:
    assert re.fullmatch(r"[A-Z].{20,}\.", knob.why), knob.why


def test_names_are_unique() -> None:
    assert len({knob.name for knob in KNOBS}) == len(KNOBS)


def test_a_duration_has_its_unit_in_its_name() -> None:
    """The reasons speak of time; the names must too, or a reader takes milliseconds for seconds."""
    for knob in KNOBS:
        if any(word in knob.name for word in ("timeout", "every", "backoff", "lease", "tick", "poll")):
            assert re.search(r"_(s|ms)$", knob.name), knob.name


def test_a_knob_is_its_setting_or_its_default() -> None:
    assert conf.conf.lease_s == 12
    with override_settings(LLMJOBS_LEASE_S=7.5):
        assert conf.conf.lease_s == 7.5
    assert conf.conf.lease_s == 12


def test_a_name_that_is_no_knob_is_an_error_that_suggests_one() -> None:
    with pytest.raises(AttributeError, match=r"no knob 'leas_s'; did you mean lease_s\?"):
        _ = conf.conf.leas_s


def test_only_the_lower_case_name_is_a_knob() -> None:
    with pytest.raises(AttributeError):
        _ = conf.conf.LEASE_S


def test_the_environment_gives_settings_of_the_right_types() -> None:
    environ = {
        "LLMJOBS_LEASE_S": "7.5",
        "LLMJOBS_CLAIM_BATCH_MAX": " 50 ",
        "LLMJOBS_DATA_DIR": "here",
        "HOME": "/",
    }
    assert conf.from_environ(environ) == {
        "LLMJOBS_LEASE_S": 7.5,
        "LLMJOBS_CLAIM_BATCH_MAX": 50,
        "LLMJOBS_DATA_DIR": "here",
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("LLMJOBS_LEASE_S", "soon", "LLMJOBS_LEASE_S: expected a number from 2 to 3,600, got 'soon'"),
        ("LLMJOBS_LEASE_S", "1", "LLMJOBS_LEASE_S: expected a number from 2 to 3,600, got '1'"),
        ("LLMJOBS_LEASE_S", "nan", "LLMJOBS_LEASE_S: expected a number from 2 to 3,600, got 'nan'"),
        ("LLMJOBS_LEASE_S", "inf", "LLMJOBS_LEASE_S: expected a number from 2 to 3,600, got 'inf'"),
        ("LLMJOBS_LEASE_S", "", "LLMJOBS_LEASE_S: expected a number from 2 to 3,600, got ''"),
        (
            "LLMJOBS_CLAIM_BATCH_MAX",
            "2.5",
            "LLMJOBS_CLAIM_BATCH_MAX: expected a whole number from 1 to 1,000, got '2.5'",
        ),
        ("LLMJOBS_LEASES", "12", "LLMJOBS_LEASES is not a setting of llmjobs; did you mean LLMJOBS_LEASE_S?"),
        ("LLMJOBS_XYZZY", "12", "LLMJOBS_XYZZY is not a setting of llmjobs"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_name_and_what_was_expected(name: str, text: str, message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        conf.from_environ({name: text})
    assert str(refused.value) == message


@given(st.text(), st.sampled_from(KNOBS))
def test_any_text_is_accepted_as_the_right_type_or_refused(text: str, knob: Knob) -> None:
    try:
        value = conf.from_environ({knob.setting: text})[knob.setting]
    except ImproperlyConfigured:
        return
    assert knob.accepts(value)


def test_true_and_false_are_words_of_a_switch_and_nothing_else_is() -> None:
    switch = Knob("switch", bool, False, 0, 0, "For this test only.")
    assert [switch.parse(word) for word in ("true", "1", "False", "0")] == [True, True, False, False]
    with pytest.raises(ValueError, match="perhaps"):
        switch.parse("perhaps")
    assert not switch.accepts(1)


def test_a_true_is_no_number() -> None:
    assert conf.problems({"LLMJOBS_MAX_ATTEMPTS": True}) == [
        "LLMJOBS_MAX_ATTEMPTS: expected a whole number from 1 to 100, got True"
    ]
