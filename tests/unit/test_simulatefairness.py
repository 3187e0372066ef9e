"""`manage.py simulatefairness`: a table, JSON and a picture, the same for the same seed; no database."""

import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from django.core.management import CommandError, call_command

from llmjobs.management.commands import simulatefairness

SAMPLE = Path(__file__).resolve().parents[1] / "bench" / "data" / "azure_llm_2023_conv_sample.csv"
SVG = "{http://www.w3.org/2000/svg}"


def run(*options: str) -> str:
    """Small, where the options do not say otherwise."""
    out = io.StringIO()
    call_command("simulatefairness", "--calls=300", "--clients=6", "--slots=4", *options, stdout=out)
    return out.getvalue()


def drawn(folder: Path, *options: str) -> str:
    path = folder / "fairness.svg"
    run(f"--svg={path}", *options)
    return path.read_text()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_same_seed_prints_the_same_and_another_seed_another():
    assert run("--seed=5") == run("--seed=5") != run("--seed=6")


def test_the_table_has_every_tier_policy_and_client():
    text = run("--weights=8,2")
    for words in (
        "tier of weight 8",
        "tier of weight 2",
        "ideal     fair  round robin",
        "Jain's index",
        "slots in use",
    ):
        assert words in text
    assert re.findall(r"^(\d+) ", text.split("client")[-1], re.MULTILINE) == ["1", "2", "3", "4", "5", "6"]


def test_of_many_clients_the_table_has_the_heaviest_and_the_lightest():
    text = run("--clients=60", "--calls=2000", "--skew=0.5")
    assert "\n…\n" in text
    assert len(text.splitlines()) < 45


def test_json_has_the_figures_and_nothing_else_is_printed():
    found = json.loads(run("--json", "--seed=9"))
    assert found["seed"] == 9
    assert found["ideal_shares"] == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    assert set(found["policies"]) == {"fair", "round robin", "FIFO"}
    assert found["policies"]["fair"]["largest_gap"] <= found["gap_bound"]
    assert found["clients"][0]["waits"]["fair"]["p50_s"] >= 0
    assert sum(client["calls"] for client in found["clients"]) == 300


def test_a_trace_is_replayed_as_far_as_it_is_asked_for():
    found = json.loads(run(f"--trace={SAMPLE}", "--json"))
    assert found["calls"] == 300


def test_the_picture_is_an_svg_that_says_in_words_what_it_shows(tmp_path):
    root = ElementTree.fromstring(drawn(tmp_path))  # noqa: S314 our own
    names = {child.tag: child for child in root}
    assert root.get("role") == "img"
    assert root.get("aria-labelledby", "").split() == [names[f"{SVG}title"].get("id"), names[f"{SVG}desc"].get("id")]
    assert "Jain's index" in (names[f"{SVG}desc"].text or "")
    assert len(root.findall(f"{SVG}polyline")) == 9, "three tiers, three policies"


def test_the_picture_has_light_and_dark_and_keeps_inside_its_frame(tmp_path):
    text = drawn(tmp_path, "--weights=32,16,8,4,2,1", "--clients=12")
    assert "prefers-color-scheme: dark" in text
    root = ElementTree.fromstring(text)  # noqa: S314 our own
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, 0)) <= width
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= height
        for point in (element.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width and 0 <= y <= height


def test_what_comes_from_outside_is_no_markup(tmp_path):
    trace = tmp_path / "<b>&.csv"
    trace.write_bytes(SAMPLE.read_bytes())
    ElementTree.fromstring(drawn(tmp_path, f"--trace={trace}"))  # noqa: S314 our own


@pytest.mark.parametrize("options", [["--calls=1"], ["--clients=1"], ["--skew=10"], ["--slots=500"], ["--weights=1"]])
def test_the_smallest_loads_have_a_table_and_a_picture_too(tmp_path, options):
    ElementTree.fromstring(drawn(tmp_path, *options))  # noqa: S314 our own


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--seed=-1", "expected a whole number from 0 to 4294967296, got '-1'"),
        ("--clients=0", "expected a whole number from 1 to 1000, got '0'"),
        ("--load=nan", "expected a number from 0.01 to 100, got 'nan'"),
        ("--skew=much", "expected a number from 0 to 10, got 'much'"),
        ("--weights=4,0", "expected 1 to 6 numbers from 0.001 to 1000000, separated by commas, got '4,0'"),
        ("--weights=1,1,1,1,1,1,1", "expected 1 to 6 numbers"),
        ("--trace=/no/such/file.csv", "/no/such/file.csv: No such file or directory"),
        ("--svg=/no/such/folder/a.svg", "--svg: expected a file in a folder that exists, got /no/such/folder/a.svg"),
        (f"--trace={__file__}", "line 1: expected TIMESTAMP,ContextTokens,GeneratedTokens, got"),
    ],
)
def test_what_it_can_t_take_is_told_with_what_it_expects(option, words):
    with pytest.raises(CommandError, match=re.escape(words)):
        run(option)


def test_a_bar_shows_on_a_terminal_what_takes_longer_and_is_gone_at_the_end(monkeypatch: Any):
    monkeypatch.setattr(simulatefairness, "BAR_AFTER_S", 0.0)
    monkeypatch.setattr(simulatefairness, "BAR_EVERY_S", 0.0)
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        with simulatefairness._Bar(out, 4) as bar:
            bar.add(1)
            bar.add(3)
    assert " 25%" in terminal.getvalue() and "100%" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[2K")
    assert pipe.getvalue() == ""


def test_what_is_over_in_a_second_shows_no_bar():
    terminal = Terminal()
    with simulatefairness._Bar(terminal, 4) as bar:
        bar.add(4)
    assert terminal.getvalue() == ""
