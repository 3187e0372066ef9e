"""The page of errors has every code that the source can raise, with its status, and none that it can't."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rest_framework import exceptions as drf_errors

from llmjobs import errors
from llmjobs.api.errors import CODES
from llmjobs.docs.contents import BY_SLUG
from tests.live_process import ROOT

APP = ROOT / "llmjobs"
ELSEWHERE = ("admin/", "migrations/", "providers/simulator/", "demo/", "docs/", "management/", "testing/")
NO_CODES = ("checks.py", "preflight.py", "signals.py")  # what they call Error is another
CODE = re.compile(r"[a-z][a-z0-9_]*[a-z0-9]")
ROW = re.compile(r"^\| (?P<codes>`[^|]+) \| (?P<about>[^|]+) \|", re.MULTILINE)


def sources() -> Iterator[tuple[str, ast.AST]]:
    for path in APP.rglob("*.py"):
        name = str(path.relative_to(APP))
        if not name.startswith(ELSEWHERE) and name not in NO_CODES:
            yield from ((name, node) for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))))


def texts(node: ast.AST) -> list[str]:
    """Constants under `node` that look like a code: `"a" if … else "b"` has two."""
    values = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return [value for value in values if isinstance(value, str) and CODE.fullmatch(value)]


def called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def status_of(call: ast.Call) -> int | None:
    """Of what is raised there, if its class says."""
    if called(call) in ("Problem", "Refused") and call.args and isinstance(call.args[0], ast.Constant):
        return int(str(call.args[0].value))
    found: Any = getattr(errors, called(call), None) or getattr(drf_errors, called(call), None)
    return getattr(found, "status", None) or getattr(found, "status_code", None)


def raised() -> dict[str, set[int | None]]:
    """The codes of the source, each with the statuses that it is raised with, as far as they can be read."""
    found: dict[str, set[int | None]] = {code: {status} for status, code in CODES.items()}
    for name, node in sources():
        if name == "errors.py" and isinstance(node, ast.ClassDef):
            status = getattr(getattr(errors, node.name), "status", None)
            calls = [each for each in ast.walk(node) if isinstance(each, ast.Call) and called(each) == "__init__"]
            for keyword in (each for call in calls for each in call.keywords if each.arg == "code"):
                for code in texts(keyword.value):
                    found.setdefault(code, set()).add(status)
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg in ("code", "error_code"):
                for code in texts(keyword.value):
                    found.setdefault(code, set()).add(status_of(node))
        at = {"Problem": 1, "Refused": 1, "Error": 0}.get(called(node))
        if at is not None and len(node.args) > at:
            for code in texts(node.args[at]):
                found.setdefault(code, set()).add(status_of(node))
    return found


def told() -> dict[str, str]:
    """The page's codes, each with the cell behind it: a status, or a class."""
    page = BY_SLUG["errors"].path.read_text(encoding="utf-8")
    return {
        code: row["about"] for row in ROW.finditer(page) for code in re.findall(r"`([a-z][a-z0-9_]+)`", row["codes"])
    }


def test_every_code_of_the_source_is_told_of() -> None:
    assert sorted(set(raised()) - set(told())) == []


def test_no_code_is_told_of_that_nobody_raises() -> None:
    said = {value for _, node in sources() if isinstance(node, ast.Constant) for value in [node.value]}
    in_sql = {word for path in APP.glob("sql/*.sql") for word in re.findall(r"'([a-z_]+)'", path.read_text())}
    assert sorted(code for code in told() if code not in said | in_sql) == []


def test_a_code_is_told_of_with_its_status() -> None:
    page = told()
    wrong = {
        code: (statuses, page[code])
        for code, statuses in raised().items()
        for status in statuses
        if status is not None and re.fullmatch(r"[\d, ]+", page.get(code, "")) and str(status) not in page[code]
    }
    assert wrong == {}
