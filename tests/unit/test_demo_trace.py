"""A trace's file: read in order, or refused with the line and the reason."""

from pathlib import Path

import pytest

from llmjobs.demo import load
from llmjobs.demo.trace import TraceCall, TraceError, read

SAMPLE = Path(__file__).resolve().parents[1] / "bench" / "data" / "azure_llm_2023_conv_sample.csv"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FIRST = "2023-11-16 18:15:46.6805900,374,44\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_calls_are_counted_from_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + FIRST + "2023-11-16 18:15:50.9951690,396,109\n")
    assert read(path) == [TraceCall(0.0, 374, 44), TraceCall(4.314579, 396, 109)]


def test_windows_line_ends_a_byte_order_mark_and_empty_lines_are_no_fault(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf" + (HEADER + FIRST + "\n").replace("\n", "\r\n").encode())
    assert read(path) == [TraceCall(0.0, 374, 44)]


def test_a_limit_stops_before_what_is_wrong_behind_it(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + FIRST + "nonsense\n")
    assert len(read(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "expected TIMESTAMP,ContextTokens,GeneratedTokens, got ''"),
        ("time,in,out\n", 1, "got 'time,in,out'"),
        (HEADER, 1, "expected at least one call"),
        (HEADER + FIRST + "2023-11-16 18:15:47,1\n", 3, "expected 3 fields, got 2"),
        (HEADER + "yesterday,1,1\n", 2, "expected a time as 2023-11-16 18:15:46.68, got 'yesterday'"),
        (HEADER + "2023-11-16 18:15:46,-1,1\n", 2, "ContextTokens: expected a whole number from 0 to 1,000,000"),
        (HEADER + "2023-11-16 18:15:46,1,1.5\n", 2, "GeneratedTokens: expected a whole number"),
        (HEADER + "2023-11-16 18:15:46,1,999999\n", 2, "GeneratedTokens: expected a whole number from 0 to 200,000"),
        (HEADER + FIRST + "2023-11-16 18:15:45,1,1\n", 3, "expected a time not before the line above"),
        ((HEADER + FIRST).encode() + b"\xff\xfe\n", 3, "expected 3 fields, got 1"),
        (HEADER + FIRST + '2023-11-16 18:15:47,"1,1\n', 3, "unexpected end of data"),
    ],
)
def test_what_is_malformed_is_told_with_its_line(tmp_path: Path, text: str | bytes, line: int, words: str) -> None:
    with pytest.raises(TraceError) as told:
        read(written(tmp_path, text))
    assert f"trace.csv, line {line}: " in str(told.value)
    assert words in str(told.value)


def test_a_prompt_has_as_many_tokens_as_the_call_and_asks_for_as_many(tmp_path: Path) -> None:
    for number, call in enumerate(read(SAMPLE, limit=500)):
        prompt = load.prompt_of(call, number)
        assert prompt.startswith(f"[[tokens={call.output_tokens}]]")
        assert len(prompt) == max(4 * call.input_tokens, len(f"[[tokens={call.output_tokens}]]"))


def test_arrivals_come_as_much_faster_as_was_asked_for_three_clients_in_turn() -> None:
    arrivals = load.replay([TraceCall(float(at_s), 10, 40) for at_s in range(4)], speed=10)
    assert [arrival.at_s for arrival in arrivals] == [0.0, 0.1, 0.2, pytest.approx(0.3)]
    assert [arrival.client for arrival in arrivals] == ["acme", "globex", "initech", "acme"]
    assert arrivals[0].ideal_s == pytest.approx(
        0.13
    )  # 300 ms to the first of 40 tokens at 40 a second, ten times as fast
