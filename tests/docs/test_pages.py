"""Every block of code in the documentation, the README and ARCHITECTURE.md does what its kind promises."""

from pathlib import Path
from typing import Any

import pytest

from llmjobs.docs import contents
from llmjobs.docs.fences import Block, blocks
from tests.docs.ground import Ground, scratch
from tests.docs.running import PageRun, runs
from tests.live_process import ROOT

pytestmark = pytest.mark.django_db

TEXTS = {page.slug: page.path for page in contents.ALL} | {
    "README": ROOT / "README.md",
    "ARCHITECTURE": ROOT / "ARCHITECTURE.md",
}


@pytest.fixture
def page_run(site: Ground, tmp_path: Path) -> Any:
    run = PageRun(site, scratch(tmp_path / "page"))
    yield run
    run.close()


@pytest.mark.parametrize("name", TEXTS)
def test_every_block_works(name: str, request: pytest.FixtureRequest) -> None:
    found = blocks(TEXTS[name].read_text(encoding="utf-8"))
    if name == "ARCHITECTURE":
        found = [block for block in found if block.kind]  # its drawing, and its list of layers
    if found:  # or no site need be started
        run: PageRun = request.getfixturevalue("page_run")
        assert not (problems := list(runs(found, run.run))), f"{TEXTS[name].name}: {problems[0]}"


@pytest.mark.parametrize(
    ("info", "code", "words"),
    [
        ("sh", "echo no && false", "exit status"),
        ("sh", "echo $NOBODY_KNOWS_IT", "exit status"),
        ("sh", "python manage.py runworker --nothing", "has no --nothing"),
        ('sh lint="no engine"', "python manage.py runworkers", "no command"),
        ('sh lint="no engine"', "make nothing", "no target"),
        ('sh lint="no engine"', "python -m tests.benches", "no module"),
        ("sh", "curl -s http://localhost:8000/api/jobs/nothing", "an error that the page does not tell of"),
        ("python", "assert 1 == 2", "AssertionError"),
        ('python lint="x"', "from llmjobs.queue import nothing", "has no nothing"),
        ('python lint="x"', 'MIDDLEWARE = ["llmjobs.monitoring.health.nothing"]', "has no nothing"),
        ("js", "throw new Error('x')", "exit status"),
        ("js browser", "const = 1", "exit status"),
        ("json", '{"a": }', "Expecting value"),
        ("toml", '[[tier]]\nname = "a"\nwait = 1', "configure takes"),
        ("yaml", "a: [", "while parsing"),
        ("ini", "a = 1", "section"),
        ("env", "LLMJOBS_LEASE=1", "did you mean"),
        ("env", "DATABSE_URL=x", "nobody reads"),
        ("nginx", "location / { return 200;", "as many"),
        ("nginx", "location / {\n    return 200\n}", "expected a ;"),
        ("sql", "select nothing from nowhere", "nowhere"),
        ("html", "<p><b>x</p>", "expected an end"),
        ("text", "x", "expected a block above"),
        ("cobol", "x", "expected a kind"),
        ("", "x", "expected a kind"),
    ],
)
def test_a_block_that_does_not_work_is_found(page_run: PageRun, info: str, code: str, words: str) -> None:
    [problem] = runs(blocks(f"```{info}\n{code}\n```\n"), page_run.run)
    assert words in problem


def test_a_page_goes_on_from_block_to_block(page_run: PageRun) -> None:
    text = (
        "```sh\nmkdir shop && cd shop\nNAME='a b'\necho first of \"$NAME\"\n```\n"
        "```text\nfirst … b\n```\n"
        '```python file="docs_shop/words.py"\nWORD = "hello"\n```\n'
        "```python\nimport asyncio\nfrom docs_shop.words import WORD\nawait asyncio.sleep(0)\nprint(WORD)\n```\n"
        "```text\nhello\n```\n"
        '```sh\necho "{\\"name\\": \\"$NAME\\", \\"at\\": \\"$(basename $PWD)\\", \\"more\\": 1}"\n```\n'
        '```json output\n{"name": "a…", "at": "shop", …}\n```\n'
        "```js\nconst a = 1;\n```\n```js continued\nconsole.log(a + 1);\n```\n```text\n2\n```\n"
        "```sh exit=3\nexit 3\n```\n"
    )
    assert list(runs(blocks(text), page_run.run)) == []


def test_what_a_block_did_not_say_is_found(page_run: PageRun) -> None:
    def problem(block: str) -> str:
        text = "```sh\necho '{\"a\": 1}'; echo two; echo one\n```\n" + block
        [found] = runs(blocks(text), page_run.run)
        return found

    assert "expected 'three'" in problem("```text\nthree\n```\n")
    assert "expected 'two'" in problem("```text\none\ntwo\n```\n")
    assert "expected at least" in problem('```json output\n{"a": 2}\n```\n')


def test_marks_are_read_as_they_are_written() -> None:
    text = 'a\n\n- b\n\n  ```sh lint="no engine here" exit=2\n  x\n    y\n  ```\n'
    assert blocks(text) == [Block("sh", {"lint": "no engine here", "exit": "2"}, "x\n  y\n", 5, "  ")]
