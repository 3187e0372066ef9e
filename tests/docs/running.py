"""How each kind of block in the documentation is tried. What fails says the page's file and the block's line.

Owns the meaning of kinds and marks, as pages are written by: `sh` runs, `text` is what the block above it said, `toml`
is a configuration file that `configure` takes, and so on. A block without a known kind fails.
"""

import ast
import asyncio
import configparser
import contextlib
import importlib.util
import inspect
import io
import json
import os
import re
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction

from llmjobs.conf import from_environ
from llmjobs.docs.fences import Block
from tests.browser.conftest import apart
from tests.console.javascript import node
from tests.docs.commands import check_commands
from tests.docs.ground import Ground
from tests.docs.nginx import check_nginx
from tests.live_process import ROOT

RUN_WITHIN_S = 120
STATE = ".state.sh"
CLIENT = re.compile(r"""(["'])(?:https?://[^"']*)?/static/llmjobs/client\.js\1""")
ANYTHING = re.compile(r"(:\s*)…")
VARIABLES = {*re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)} | {
    "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE",
}  # fmt: skip
REFUSED = re.compile(r'"error":\s*\{\s*"')
REST = re.compile(r",?\s*…\s*(?=[}\]])")


class PageRun:
    """One page's blocks in their order. `said` is the output of the last block that ran, for a `text` below it."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground, self.folder = ground, folder
        self.environment = ground.environment(folder)
        self.said: str | None = None
        self._names: dict[str, Any] = {"__name__": "docs"}
        self._modules: list[str] = []  # JavaScript blocks before, for one that goes on
        self._groups: list[int] = []  # of processes, to be ended

    def close(self) -> None:
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def run(self, block: Block, below: Block | None = None) -> None:
        """curl ends well whatever it was answered: an error of the API must be what the block `below` shows."""
        try_block = getattr(self, f"_{block.kind}", None) if block.kind.isalpha() else None
        assert try_block is not None, f"expected a kind of block that can be tried, got {block.kind!r}"
        if "file" in block.marks:
            self._write(block)
        try_block(block)
        if block.kind == "sh" and REFUSED.search(self.said or ""):
            is_told = below is not None and below.kind in ("json", "text") and '"error"' in below.code
            assert is_told, f"it was answered with an error that the page does not tell of:\n{self.said}"

    # Programs

    def _sh(self, block: Block) -> None:
        if "lint" in block.marks:
            assert block.marks["lint"], "expected a reason why it can't be run"
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)
            check_commands(block.code)
            self.said = None
            return
        check_commands(block.code)
        script = (
            f"[ -f {STATE} ] && . ./{STATE}\nset -aeu\n"
            f'trap \'status=$?; set +aeu; export -p > "$HOME/{STATE}"; '
            f'printf "cd %q\\n" "$PWD" >> "$HOME/{STATE}"; exit $status\' EXIT\n' + self.ground.here(block.code)
        )
        self._execute(["bash", "-c", script], expected=int(block.marks.get("exit", 0)))

    def _python(self, block: Block) -> None:
        tree = compile(block.code, "<docs>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if "lint" in block.marks or "file" in block.marks:
            _check_names(tree)
            self.said = None
            return
        code = compile(self.ground.here(block.code), "<docs>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), patch.dict(os.environ, KEY=self.ground.key):
            apart(self._evaluate, code)
        self.said = said.getvalue()

    def _evaluate(self, code: Any) -> None:
        result = eval(code, self._names)  # noqa: S307 (a page of ours)
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))

    def _js(self, block: Block) -> None:
        if "browser" in block.marks:
            (path := self.folder / "block.mjs").write_text(block.code)
            self._execute([node(), "--check", str(path)])
            return
        before = self._modules if "continued" in block.marks else []
        self._modules = [*before, CLIENT.sub('"./client.js"', self.ground.here(block.code))]
        (path := self.folder / "block.mjs").write_text("\n".join(self._modules))
        self._execute([node(), str(path)])

    def _sql(self, block: Block) -> None:
        if "lint" not in block.marks:
            apart(_run_sql, block.code)

    # What they say

    def _text(self, block: Block) -> None:
        if "free" in block.marks:
            return
        assert self.said is not None, "expected a block above it that ran"
        rest = self.said
        for line in self.ground.here(block.code).splitlines():
            pattern = r"[\s\S]*?".join(re.escape(part.strip()) for part in line.strip().split("…"))
            match = re.search(pattern, rest)
            assert match, f"expected {line.strip()!r} in what the block above says, got:\n{rest}"
            rest = rest[match.end() :]

    def _json(self, block: Block) -> None:
        code = ANYTHING.sub(r'\1"…"', self.ground.here(block.code))
        expected = json.loads(REST.sub("", code))
        if "output" in block.marks:
            assert self.said is not None, "expected a block above it that ran"
            got = _last_json(self.said)
            assert _is_like(got, expected), f"expected at least {expected}, got {got}"

    # Files

    def _toml(self, block: Block) -> None:
        tomllib.loads(block.code)
        if "fragment" in block.marks:
            return
        (path := self.folder / "block.toml").write_text(block.code)
        try:
            apart(call_command, "configure", str(path), check=True, stdout=io.StringIO())
        except SystemExit as ended:
            assert ended.code == 1, "expected a file that configure takes"
        except CommandError as error:
            raise AssertionError(f"expected a file that configure takes: {error}") from None

    def _yaml(self, block: Block) -> None:
        assert list(yaml.safe_load_all(block.code)), "expected a document"

    def _ini(self, block: Block) -> None:
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        parser.read_string(block.code)
        assert parser.sections(), "expected a section"

    def _env(self, block: Block) -> None:
        lines = [line for line in block.code.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        for line in lines:
            assert re.match(r"[A-Z][A-Z0-9_]*=", line), f"expected NAME=value, got {line!r}"
        variables = dict(line.split("=", 1) for line in lines)
        from_environ(variables)
        strange = {name for name in variables if not name.startswith("LLMJOBS_")} - VARIABLES
        assert not strange, f"nobody reads the variable {', '.join(sorted(strange))}"

    def _nginx(self, block: Block) -> None:
        check_nginx(block.code, self.folder)

    def _dockerfile(self, block: Block) -> None:
        words = re.findall(r"^([A-Z]+)\s", re.sub(r"\\\n", "", block.code), re.MULTILINE)
        known = {"FROM", "RUN", "CMD", "COPY", "ENV", "ARG", "USER", "WORKDIR", "EXPOSE", "ENTRYPOINT", "HEALTHCHECK"}
        assert words and set(words) <= known, f"expected {sorted(known)}, got {words}"

    def _html(self, block: Block) -> None:
        opened = re.findall(r"<(/?)([a-z][a-z0-9-]*)\b[^>]*?(/?)>", block.code)
        void = {"meta", "link", "input", "br", "hr", "img", "source", "wbr"}
        stack: list[str] = []
        for is_end, tag, is_void in opened:
            if is_end:
                assert stack and stack.pop() == tag, f"expected an end of {stack[-1:]}, got </{tag}>"
            elif not is_void and tag not in void:
                stack.append(tag)
        assert opened and not stack, f"expected an end of {stack}"

    # Underneath

    def _write(self, block: Block) -> None:
        name, code = block.marks["file"], self.ground.here(block.code)
        (path := self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        if name.endswith(".py"):
            before = self.ground.written.setdefault(name, code)
            assert before == code, f"another page has another {name}; name one of them otherwise"
            (module := self.ground.modules / name).parent.mkdir(parents=True, exist_ok=True)
            module.write_text(code)

    def _execute(self, command: list[str], *, expected: int = 0) -> None:
        """Its output goes into a file, so that what it left running in the background keeps nobody waiting."""
        output = self.folder / ".output"
        with output.open("w+b") as said:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            self._groups.append(process.pid)
            status = process.wait(RUN_WITHIN_S)
        self.said = output.read_text(errors="replace")
        assert status == expected, f"expected exit status {expected}, got {status}:\n{self.said}"


async def _awaited(result: Any) -> Any:
    try:
        return await result
    finally:
        await sync_to_async(connections.close_all)()  # of the thread in which Django's own ran


def _check_names(tree: ast.Module) -> None:
    """What a block imports of llmjobs is there, and what settings would import by a dotted path."""
    for each in ast.walk(tree):
        if isinstance(each, ast.Constant) and re.fullmatch(r"llmjobs(\.\w+)+", str(each.value)):
            _check_path(str(each.value))
        if isinstance(each, ast.ImportFrom) and (each.module or "").split(".")[0] == "llmjobs":
            module = importlib.import_module(each.module or "")
            for name in each.names:
                is_module = hasattr(module, "__path__") and importlib.util.find_spec(f"{each.module}.{name.name}")
                assert is_module or hasattr(module, name.name), f"{each.module} has no {name.name}"


def _check_path(path: str) -> None:
    """Without an import of its module, which may want a newer Django."""
    module, _, name = path.rpartition(".")
    spec = importlib.util.find_spec(module)
    assert spec and spec.origin, f"there is no module {module}"
    is_module = spec.submodule_search_locations and importlib.util.find_spec(path)
    defined = re.search(rf"^(?:async )?(?:def|class) {name}\b", Path(spec.origin).read_text(), re.MULTILINE)
    assert is_module or defined, f"{module} has no {name}"


def _run_sql(text: str) -> None:
    with contextlib.suppress(_Undone), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(text.replace("%", "%%") if "%" in text else text)
        raise _Undone


class _Undone(Exception):
    """Ends a transaction that shall leave nothing."""


def _last_json(text: str) -> Any:
    """The last whole JSON object in `text`, which may have headers before it."""
    decoder = json.JSONDecoder()
    found = None
    at = 0
    while (at := text.find("{", at)) >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
            at = end
        except ValueError:
            at += 1
    assert found is not None, f"expected JSON in what the block above says, got:\n{text}"
    return found


def _is_like(got: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(got, dict) and all(key in got and _is_like(got[key], of) for key, of in expected.items())
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) >= len(expected) and all(map(_is_like, got, expected))
    if isinstance(expected, str) and "…" in expected:
        pattern = r"[\s\S]*".join(map(re.escape, expected.split("…")))
        return re.fullmatch(pattern, str(got)) is not None
    return bool(got == expected)


def runs(blocks: list[Block], run: Callable[[Block, Block | None], None]) -> Iterator[str]:
    """What went wrong, a text a block that failed; one that could not run makes those behind it meaningless."""
    for block, below in zip(blocks, [*blocks[1:], None], strict=True):
        try:
            run(block, below)
        except Exception as error:  # whatever it is, the reader of the test is told where
            yield f"line {block.line} (```{block.kind}): {type(error).__name__}: {error}"
            return
