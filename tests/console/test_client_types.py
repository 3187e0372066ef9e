"""client.d.ts says of client.js, and of what the API takes and answers, what is so: names that differ fail here."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from llmjobs.api.components import BLOCKED_BY, SCHEMAS
from llmjobs.states import TERMINAL, Endpoint, EventType, Priority, Size, State
from tests.console.javascript import node

STATIC = Path(__file__).resolve().parents[2] / "llmjobs" / "static" / "llmjobs"
TYPES = (STATIC / "client.d.ts").read_text()
SOURCE = (STATIC / "client.js").read_text()
SHOW = """
import(process.argv[1]).then((module) => console.log(JSON.stringify({
  exports: Object.keys(module),
  members: Object.getOwnPropertyNames(module.LLMJobs.prototype),
  error: [...Object.keys(new module.LLMJobsError("x")), ...Object.getOwnPropertyNames(module.LLMJobsError.prototype)],
})));
"""


def declared(kind: str, name: str) -> list[str]:
    """The members of a declared interface or class, by name."""
    found = re.search(rf"^export {kind} {name}(?: extends \w+)? \{{\n(.*?)^\}}", TYPES, re.MULTILINE | re.DOTALL)
    assert found, f"expected a declaration of {name}"
    return re.findall(r"^  (?:readonly |get )?(\w+)(?:<[^>]*>)?[?(:]", found[1], re.MULTILINE)


def words(name: str) -> set[str]:
    """The texts that a declared union allows."""
    found = re.search(rf"^export type {name} =(.*?);", TYPES, re.MULTILINE | re.DOTALL)
    assert found, f"expected a declaration of {name}"
    return set(re.findall(r'"([^"]+)"', found[1]))


def taken(opening: str) -> set[str]:
    """The options that a function of client.js takes apart, in the braces after `opening`."""
    braces = SOURCE[SOURCE.index("{", SOURCE.index(opening)) + 1 :]
    return set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\([^)]*\)|=>? ?[^,}]*", "", braces[: braces.index("} = {}")])))


def test_every_export_and_every_member_is_declared_and_nothing_else() -> None:
    command = [node(), "-e", SHOW, str(STATIC / "client.js")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)
    assert set(found["exports"]) == set(re.findall(r"^export (?:const|class) (\w+)", TYPES, re.MULTILINE))
    assert sorted(found["members"]) == sorted(declared("class", "LLMJobs"))
    assert set(found["error"]) == set(declared("class", "LLMJobsError"))


@pytest.mark.parametrize(
    ("opening", "names"),
    [
        ("  constructor({\n", declared("interface", "LLMJobsOptions")),
        ("async submit(submission, ", ["signal", *declared("interface", "SubmitOptions")]),
        ("async submitMany(submissions, ", ["signal", *declared("interface", "SubmitManyOptions")]),
        ("async *streamAll(", ["signal", *declared("interface", "LiveOptions")]),
        ("constructor(message, ", declared("interface", "ErrorDetails")),
        ("async json(path, ", ["method", "body", "headers", "signal"]),
    ],
)
def test_every_option_is_declared_and_nothing_else(opening: str, names: list[str]) -> None:
    assert taken(opening) == set(names)


@pytest.mark.parametrize("name", ["Job", "JobError", "JobList", "Model", "Submission"])
def test_what_the_api_takes_and_answers_is_declared_field_by_field(name: str) -> None:
    assert declared("interface", name) == list(SCHEMAS[name]["properties"])


def test_the_words_are_those_of_the_api() -> None:
    assert words("JobStatus") | words("TerminalStatus") == set(State)
    assert words("TerminalStatus") == TERMINAL
    assert words("PriorityName") == {priority.word for priority in Priority}
    assert words("BlockedBy") == set(BLOCKED_BY)
    assert words("Endpoint") == set(Endpoint)
    assert {f'"{size.word}"' for size in Size} <= set(re.findall(r'"\w+"', TYPES))
    assert set(re.findall(r'type: "(\w+)"; data', TYPES)) == set(EventType)
