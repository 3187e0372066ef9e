"""The ledger survives its simulator: what was begun is known, whatever came after."""

from pathlib import Path

from llmjobs.providers.simulator.ledger import Entry, Ledger


def begun(ledger: Ledger, at: float = 1.0, client_request_id: str | None = None) -> Entry:
    entry = ledger.open_entry(at, "key-1", "/v1/chat/completions", "req_1", client_request_id)
    entry.model, entry.input_tokens = "m", 5
    ledger.began(entry)
    return entry


def test_calls_are_listed_in_the_order_of_arrival_also_those_that_run() -> None:
    ledger = Ledger()
    slow, quick = begun(ledger, at=1.0), begun(ledger, at=2.0)
    ledger.close_entry(quick, 3.0, "completed", 7)
    page = ledger.page()
    assert [(call["at"], call["outcome"]) for call in page["calls"]] == [(1.0, "running"), (2.0, "completed")]
    ledger.close_entry(slow, 4.0, "reset", 2)
    assert ledger.page()["calls"][0] == {
        "n": 1,
        "at": 1.0,
        "started_at": 1.0,
        "ended_at": 4.0,
        "key": "key-1",
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "stream": False,
        "outcome": "reset",
        "fault": None,
        "status": 0,
        "input_tokens": 5,
        "output_tokens": 2,
        "request_id": "req_1",
        "client_request_id": None,
    }


def test_a_page_goes_on_after_the_last_one() -> None:
    ledger = Ledger()
    for _ in range(5):
        begun(ledger)
    assert [call["n"] for call in ledger.page(after=1, limit=3)["calls"]] == [2, 3, 4]
    assert [call["n"] for call in ledger.page(after=4)["calls"]] == [5]


def test_what_no_longer_fits_is_counted() -> None:
    ledger = Ledger(entries_max=2)
    for _ in range(5):
        begun(ledger)
    page = ledger.page()
    assert ([call["n"] for call in page["calls"]], page["total"], page["dropped"]) == ([4, 5], 5, 3)


def test_a_killed_simulator_leaves_what_it_had_begun(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    killed = Ledger(path)
    ended = begun(killed, client_request_id="job.1")
    killed.close_entry(ended, 2.0, "completed", 7)
    begun(killed, at=3.0, client_request_id="job.2")
    killed.close()

    ledger = Ledger(path)
    calls = ledger.page()["calls"]
    assert [(call["client_request_id"], call["outcome"]) for call in calls] == [
        ("job.1", "completed"),
        ("job.2", "simulator_killed"),
    ]
    assert calls[0]["output_tokens"] == 7
    assert begun(ledger).n == 3
    ledger.close()


def test_a_line_that_a_kill_cut_off_is_no_entry_and_spoils_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"n": 1, "at"')
    ledger = Ledger(path)
    ledger.close_entry(begun(ledger), 2.0, "completed", 7)
    ledger.close()
    reread = Ledger(path)
    assert [call["outcome"] for call in reread.page()["calls"]] == ["completed"]
    reread.close()


def test_a_cleared_ledger_never_gives_a_number_twice(tmp_path: Path) -> None:
    """A call that outlived the clearing closes its own entry, not that of a new call."""
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    old = begun(ledger)
    ledger.clear()
    assert ledger.page() == {"calls": [], "total": 0, "dropped": 0}
    new = begun(ledger)
    ledger.close_entry(old, 2.0, "reset", 0)
    assert [call["outcome"] for call in ledger.page()["calls"]] == ["running"]
    assert new.n != old.n
    ledger.close()
    reread = Ledger(path)
    assert [call["n"] for call in reread.page()["calls"]] == [new.n]
    reread.close()
