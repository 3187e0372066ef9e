"""Public ids: UUIDv7 by RFC 9562."""

import time
import uuid

from llmjobs.ids import uuid7


def test_an_id_has_the_version_and_the_variant_of_the_rfc():
    made = [uuid7() for _ in range(1_000)]
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}


def test_an_id_begins_with_its_millisecond():
    before_ms = time.time_ns() // 1_000_000
    at_ms = uuid7().int >> 80
    assert before_ms <= at_ms <= time.time_ns() // 1_000_000


def test_ids_sort_by_time(monkeypatch):
    made = []
    for ms in (1, 2, 1_700_000_000_000, 1_700_000_000_001):
        monkeypatch.setattr(time, "time_ns", lambda ms=ms: ms * 1_000_000)
        made.append(uuid7())
    assert made == sorted(made, key=str)


def test_two_ids_of_one_millisecond_differ():
    assert len({uuid7() for _ in range(20_000)}) == 20_000
