"""What a test told the simulator to say: to whom, in which order, by each endpoint, once a job."""

import pytest
from openai import OpenAI

from llmjobs.testing import SimulatorProcess


@pytest.fixture(scope="module")
def process():
    with SimulatorProcess() as simulator:
        yield simulator


@pytest.fixture
def simulator(process):
    process.reset()
    return process


def say(simulator, prompt, job=None, **body):
    headers = {"X-Client-Request-Id": job} if job else {}
    with OpenAI(base_url=simulator.url, api_key="any", max_retries=0) as client:
        chat = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": prompt}], extra_headers=headers, **body
        )
        return chat.choices[0]


def text(simulator, prompt, job=None):
    return say(simulator, prompt, job).message.content


def test_texts_follow_each_other_and_the_last_one_stays(simulator):
    simulator.answers("one", "two")
    assert [text(simulator, "x") for _ in range(3)] == ["one", "two", "two"]


def test_the_last_line_that_fits_a_prompt_counts(simulator):
    simulator.answers("anything")
    simulator.answers("Paris. 🙂 Ünï", when="France")
    simulator.answers("Rome", when="Italy")
    prompts = ("The capital of France?", "Of Italy and France?", "Of Spain?")
    assert [text(simulator, prompt) for prompt in prompts] == ["Paris. 🙂 Ünï", "Rome", "anything"]


def test_a_retry_of_a_job_is_told_the_same_again(simulator):
    simulator.answers("one", "two")
    assert [text(simulator, "x", job) for job in ("a.1", "a.2", "b.1", "a.3")] == ["one", "one", "two", "one"]


def test_a_fault_uses_up_no_text(simulator):
    simulator.answers("one", "two")
    simulator.fails("server_error", times=1)
    for job in ("a", "b"):
        with pytest.raises(Exception, match="500"):
            text(simulator, "x", f"{job}.1")
    assert [text(simulator, "x", f"{job}.2") for job in ("a", "b")] == ["one", "two"]


def test_functions_are_called_with_what_was_said(simulator):
    simulator.calls_tools(("weather", {"city": "Nîmes"}), ("time", {}))
    said = say(simulator, "x")
    calls = [(call.function.name, call.function.arguments) for call in said.message.tool_calls]
    assert (said.finish_reason, calls) == ("tool_calls", [("weather", '{"city": "Nîmes"}'), ("time", "{}")])


def test_responses_and_streams_say_it_too_and_the_cap_holds(simulator):
    simulator.answers("A whole sentence of words.")
    with OpenAI(base_url=simulator.url, api_key="any", max_retries=0) as client:
        assert client.responses.create(model="m", input="x").output_text == "A whole sentence of words."
        stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert len(pieces) > 5 and "".join(pieces) == "A whole sentence of words."
    cut = say(simulator, "x", max_tokens=2)
    assert (cut.message.content, cut.finish_reason) == ("A whole ", "length")


def test_what_is_no_line_is_refused_and_a_reset_forgets_all(simulator):
    for wrong in ([{"when": 1, "texts": ["a"]}], [{"when": ""}], [{"when": "", "texts": []}], "a", [{"texts": ["a"]}]):
        with pytest.raises(ValueError, match="answers: expected lines such as"):
            simulator.control(answers=wrong)
    for nothing in (simulator.answers, simulator.calls_tools):
        with pytest.raises(ValueError, match="at least"):
            nothing()
    before = text(simulator, "x")
    simulator.answers("said")
    assert text(simulator, "x") == "said"
    simulator.reset()
    assert text(simulator, "x") == before
