"""The arithmetic of limits: what a bucket lets through and when, its rates, what is set aside, what is learned."""

import math

import pytest

from llmjobs.ratelimits import (
    GUESS_ERROR_VAR,
    Bucket,
    Lesson,
    Lessons,
    Slowness,
    client_bucket,
    correction,
    limit_of,
    margin,
    requests_bucket,
    reservation,
    slower,
    together,
    tokens_bucket,
)

NOW = 1_000.0


def sent(bucket, amount, now=NOW):
    """(when it is sent, the bucket after it)"""
    at = bucket.earliest(amount, now)
    return at, bucket.reserve(amount, at)


def test_an_empty_bucket_lets_its_burst_through_at_once_and_then_paces():
    bucket, times = Bucket(3, 2), []
    for _ in range(6):
        at, bucket = sent(bucket, 1)
        times.append(at - NOW)
    assert times == [0, 0, 0, 0.5, 1, 1.5]


def test_no_credit_grows_beyond_the_burst_however_long_a_bucket_was_idle():
    _, bucket = sent(Bucket(3, 2), 3, now=0)
    assert bucket.room(1e6) == 3


def test_what_is_larger_than_the_burst_waits_until_the_bucket_is_drained_deep_enough():
    _, bucket = sent(Bucket(10, 5), 10)
    assert bucket.earliest(10, NOW) == NOW + 2
    assert bucket.earliest(30, NOW) == NOW + 6
    at, bucket = sent(bucket, 30)
    assert bucket.earliest(10, at) == at + 6, "its own tokens have to drain too"


def test_a_correction_gives_back_and_takes_away_just_what_it_says():
    _, bucket = sent(Bucket(10, 5), 10)
    assert bucket.correct(-4).remaining(NOW) == pytest.approx(4)
    assert bucket.correct(+5).earliest(5, NOW) == NOW + 2


def test_what_was_given_back_too_late_is_no_credit():
    _, bucket = sent(Bucket(10, 5), 10)
    assert bucket.correct(-10).room(NOW + 30) == 10


def test_a_crashed_call_s_reservation_drains_by_itself():
    """Neither is its budget free before that, nor lost for good."""
    _, bucket = sent(Bucket(10, 5), 10)
    assert [bucket.remaining(NOW + after_s) for after_s in (0, 1, 2, 3)] == [0, 5, 10, 10]


def test_room_counts_what_drains_until_the_last_moment_to_send():
    bucket = start = Bucket(3, 2, at=NOW + 1)
    times = []
    for _ in range(10):
        at, bucket = sent(bucket, 1)
        times.append(at)
    assert sum(at <= NOW + 2 for at in times) == start.room(NOW, ahead_s=2) == 5


def test_calls_in_several_buckets_are_sent_when_the_last_has_room_and_all_take_them_in():
    pool, account = Bucket(1, 1, at=NOW + 1), Bucket(100, 10, at=NOW + 15)
    sent_at, (pool, account) = together([pool, account], [1, 50], NOW)
    assert sent_at == NOW + 10
    assert (pool.at, account.at) == (sent_at + 1, NOW + 20)
    assert together([], [], NOW) == (NOW, [])


def test_more_left_than_we_thought_changes_nothing():
    bucket = Bucket(10, 5, at=NOW + 1)
    assert bucket.told(left=9, told_at=NOW) == bucket


def test_less_left_than_we_thought_is_believed():
    assert Bucket(10, 5).told(left=4, told_at=NOW).remaining(NOW) == pytest.approx(4)
    assert Bucket(10, 5).told(left=0, told_at=NOW).earliest(1, NOW) == NOW + 0.2


def test_what_is_told_of_a_send_does_not_put_off_the_sends_after_it():
    """A full bucket at its even pace: what is left is nothing after each send, as it should be."""
    bucket = Bucket(1, 1)
    for n in range(5):
        sent_at, bucket = sent(bucket, 1)
        assert sent_at == NOW + n
        bucket = bucket.told(left=0, told_at=sent_at)


def test_a_blocked_bucket_opens_without_a_burst():
    requests = Bucket(7, 10).blocked(NOW + 5, first=1)
    assert [requests.room(NOW + 5, ahead_s) for ahead_s in (0, 0.2)] == pytest.approx([1, 3])
    tokens = Bucket(7, 10).blocked(NOW + 5, first=0)
    assert tokens.room(NOW + 5) == pytest.approx(0)


def test_a_block_that_ends_before_the_bucket_has_room_changes_nothing():
    bucket = Bucket(7, 10, at=NOW + 60)
    assert bucket.blocked(NOW + 5, first=1) == bucket


@pytest.mark.parametrize(
    ("limit", "window_s", "burst", "per_window"),
    [
        (600, 60, 7, 594),
        (60, 60, 1, 60),
        (99, 60, 1, 99),
        (100, 60, 2, 99),
        (1, 60, 1, 1),
        (600, 1, 1, 10),
        (500, 1, 1, 8),
        (60_000, 1, 11, 990),
        (30, 1, 1, 0.5),
    ],
)
def test_requests_are_paced_below_the_limit_by_what_a_burst_may_add(limit, window_s, burst, per_window):
    bucket = requests_bucket(limit, window_s, jitter_s=0.25)
    rate_per_s = per_window / (window_s + 0.25)
    assert bucket == Bucket(burst, rate_per_s, slack_s=(burst - 1) / 2 / rate_per_s)


@pytest.mark.parametrize(
    ("largest", "spread", "burst", "per_window"),
    [
        (0, 0, 200, 9_800),
        (500, 0, 500, 9_500),
        (5_000, 0, 1_000, 9_000),
        (500, 2_000, 500, 7_500),
        (500, 50_000, 500, 1_000),
    ],
)
def test_tokens_leave_room_for_the_burst_and_for_the_margin(largest, spread, burst, per_window):
    assert tokens_bucket(10_000, largest, spread, jitter_s=0.5) == Bucket(burst, per_window / 60.5)


def test_the_bucket_of_a_client_is_a_minute_s_worth():
    bucket = client_bucket(120)
    assert (bucket.remaining(NOW), bucket.reset_s(NOW)) == (120, 0)
    _, bucket = sent(bucket, 90)
    assert (bucket.remaining(NOW), bucket.reset_s(NOW)) == (30, 45)
    assert (bucket.remaining(NOW + 5), bucket.reset_s(NOW + 45)) == (40, 0)
    assert bucket.earliest(31, NOW) == NOW + 0.5
    assert bucket.correct(+60).remaining(NOW) == 0, "what is left is never less than nothing"


def test_a_limit_that_was_told_holds_while_it_is_fresh_and_lower():
    assert limit_of(500, None, 0, NOW) == 500
    assert limit_of(500, 400, NOW - 599, NOW) == 400
    assert limit_of(500, 600, NOW, NOW) == 500
    assert limit_of(500, 400, NOW - 600, NOW) == 500


def test_slow_down_halves_the_rate_which_doubles_back():
    slow = Slowness(ramp_s=60).halved(NOW)
    assert [slow.at(NOW + after_s) for after_s in (0, 30, 60, 1e9)] == [0.5, pytest.approx(0.5**0.5), 1, 1]
    assert slower(Bucket(3, 10, NOW), slow.at(NOW)) == Bucket(3, 5, NOW)


def test_a_second_slow_down_halves_what_is_left_unless_it_is_of_the_same_moment():
    slow = Slowness(ramp_s=60).halved(NOW)
    assert slow.halved(NOW + 4).at(NOW + 4) == pytest.approx(slow.at(NOW + 4))
    assert slow.halved(NOW + 30).at(NOW + 30) == pytest.approx(slow.at(NOW + 30) / 2)


def test_however_often_it_is_told_to_slow_down_a_pool_goes_on():
    slow = Slowness(ramp_s=1e9)
    for n in range(50):
        slow = slow.halved(NOW + 10 * n)
    assert slow.at(NOW + 500) == pytest.approx(1 / 64, rel=1e-3)


@pytest.mark.parametrize(
    ("policy", "max_output", "tokens"),
    [
        ("portfolio", 4_000, 75),
        ("expected", None, 75),
        ("max_tokens", 4_000, 4_010),
        ("max_tokens", None, 50),
    ],
)
def test_what_is_set_aside_is_as_the_policy_says(policy, max_output, tokens):
    assert reservation(policy, 10, 40, max_output=max_output, tokens_ratio=1.5) == tokens


@pytest.mark.parametrize(
    ("policy", "used", "sent_ago_s", "tokens"),
    [
        ("portfolio", 30, 10, -70),
        ("portfolio", 130, 10, 30),
        ("portfolio", 30, 61, 0),
        ("portfolio", None, 10, 0),
        ("portfolio", 0, None, -100),
        ("expected", 30, 10, -70),
        ("max_tokens", 30, 10, 0),
        ("max_tokens", 0, None, -100),
    ],
)
def test_what_is_put_right_at_the_end(policy, used, sent_ago_s, tokens):
    assert correction(policy, 100, used, sent_ago_s=sent_ago_s) == tokens


def test_the_margin_grows_with_the_root_of_what_is_in_flight():
    assert margin(2, 100, 0) == 0
    assert margin(2, 100, 1) == 20
    assert margin(2, 100, 9) == 60
    assert margin(2, 100, -1) == 0, "a count that is ahead of its row"


def lesson(used, *, estimated=100, reserved=100):
    return Lesson(estimated, reserved, used)


def test_before_anything_is_known_the_guess_stands():
    assert Lessons().after([]) == Lessons()
    assert (Lessons().tokens_ratio, Lessons().error_var) == (1, GUESS_ERROR_VAR)


def test_lessons_taught_together_are_those_taught_one_by_one():
    """As long as fewer than are remembered: the fold takes in many at once."""
    taught = [lesson(used) for used in (50, 400, 120, 90)]
    one_by_one = Lessons()
    for each in taught:
        one_by_one = one_by_one.after([each])
    together = Lessons().after(taught)
    assert together.weight == one_by_one.weight == 8
    for field in ("mean_tokens", "tokens_ratio", "error_var"):
        assert getattr(together, field) == pytest.approx(getattr(one_by_one, field))


def test_what_is_learned_comes_to_what_is_so():
    known = Lessons()
    for n in range(600):
        known = known.after([lesson(100 + 50 * (-1) ** n)])
    assert known.mean_tokens == pytest.approx(100, rel=0.02)
    assert known.tokens_ratio == pytest.approx(1, rel=0.02)
    assert math.sqrt(known.error_var) == pytest.approx(50, rel=0.05)


def test_an_estimate_that_is_always_too_low_is_an_error_too():
    known = Lessons()
    for _ in range(600):
        known = known.after([lesson(300)])
    assert math.sqrt(known.error_var) == pytest.approx(200, rel=0.05)


def test_an_error_is_what_was_reserved_wrong_not_what_was_estimated_wrong():
    """A client whose calls are always twice as long as estimated is no surprise once that is known."""
    known = Lessons()
    for _ in range(600):
        known = known.after([lesson(200, estimated=100, reserved=200)])
    assert math.sqrt(known.error_var) < 5


def test_old_lessons_are_forgotten():
    known = Lessons()
    for _ in range(5_000):
        known = known.after([lesson(100)])
    for _ in range(200):
        known = known.after([lesson(500)])
    assert known.weight == 64 and known.tokens_ratio > 4.5


def test_no_single_lesson_teaches_more_than_a_hundredfold():
    assert Lessons().after([lesson(1e9, estimated=1)]).tokens_ratio == pytest.approx(1 + 99 / 5)
    assert Lessons().after([lesson(5, estimated=0)]).tokens_ratio == 1
