"""The app in a project of somebody else's: from a wheel, by two lines of settings, with its own tests."""

import ast
import json
import re
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.template.utils import get_app_template_dirs

from llmjobs.docs.fences import blocks
from tests.packaging import fresh
from tests.packaging.fresh import ROOT, Project

PAGES = [(ROOT / "llmjobs" / "docs" / "pages" / f"{slug}.md").read_text() for slug in ("existing-project", "testing")]
LEFT_OUT = {"llmjobs/management/commands/demo.py"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, Any]]:
    """An empty one, in the cluster of this test run."""
    there = settings.DATABASES["default"]
    server = {name: str(there[name]) for name in ("ENGINE", "USER", "PASSWORD", "HOST", "PORT")}
    name = f"fresh_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(
        host=server["HOST"], port=server["PORT"] or 5432, user=server["USER"], password=server["PASSWORD"],
        dbname="postgres", autocommit=True,
    ) as conn:  # fmt: skip
        conn.execute(f"create database {name}")
        yield server | {"NAME": name, "TEST": {"NAME": name}}  # migrated once: its tests use it too
        conn.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def project(wheel: Path, database: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("host")
    return fresh.start_project(fresh.install(wheel, folder / "env"), folder / "shop", database)


def test_the_wheel_has_every_file_of_the_app_and_no_other(wheel: Path) -> None:
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "llmjobs")
    tracked = set(subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n"))
    wanted = {name for name in tracked if name and (ROOT / name).exists()} - LEFT_OUT
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert {"llmjobs/py.typed", "llmjobs/sql/claim.sql", "llmjobs/static/llmjobs/client.js"} < names
    assert "[pytest11]\nllmjobs = llmjobs.testing.plugin" in entries
    assert "# llmjobs" in metadata and "Requires-Dist: django<6.1,>=5.2" in metadata


def test_what_the_app_imports_is_what_the_wheel_requires(wheel: Path) -> None:
    """Else it would work here, where all is installed, and nowhere else."""
    distributions = {
        "django": "django", "asgiref": "django", "rest_framework": "djangorestframework",
        "drf_spectacular": "drf-spectacular", "psycopg": "psycopg", "psycopg_pool": "psycopg", "openai": "openai",
        "httpx2": "httpx2", "channels": "channels", "prometheus_client": "prometheus-client", "markdown": "markdown",
        "pygments": "pygments", "httptools": "httptools", "yaml": "drf-spectacular",
    }  # fmt: skip
    optional = {"opentelemetry", "daphne", "pytest"}
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
        imported = set[str]()
        for name in archive.namelist():
            if name.endswith(".py"):
                imported |= {module.partition(".")[0] for module in _imports(archive.read(name).decode())}
    outside = imported - sys.stdlib_module_names - {"llmjobs"} - optional
    assert outside <= distributions.keys()
    for module in outside:
        assert f"Requires-Dist: {distributions[module]}" in metadata, module


def test_a_page_of_the_app_needs_no_template_of_this_site() -> None:
    """`templates/` is the site's; a wheel has the app's own alone, and the admin's."""
    ours = [Path(str(folder)) for folder in get_app_template_dirs("templates")]
    for template in (ROOT / "llmjobs" / "templates").rglob("*.html"):
        for line in template.read_text().splitlines():
            for word in ("{% extends ", "{% include "):
                if word + '"' in line:
                    name = line.split(word + '"', 1)[1].split('"')[0]
                    assert any((folder / name).exists() for folder in ours), f"{template}: {name}"


def test_a_fresh_project_installs_migrates_serves_and_tests_with_it(project: Project) -> None:
    for line in (fresh.SETTINGS_LINE, fresh.URLS_LINE):
        assert line in [block.code for block in blocks(PAGES[0])], "as the documentation says"
    where = fresh.run(project.python, "-c", "import llmjobs; print(llmjobs.__file__)", at=project.folder)
    assert "site-packages" in where and str(ROOT) not in where, "not from the checkout"
    assert project.manage("check", "--fail-level", "WARNING") == "System check identified no issues (0 silenced).\n"
    project.manage("migrate")
    made = json.loads(project.manage("createclient", "acme", "--json"))
    assert made["api_key"].startswith("llmj_")
    for name, text in _host_files().items():
        (project.folder / name).write_text(text)
    said = fresh.run(project.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--reuse-db", at=project.folder)
    assert "9 passed" in said, "six of the page, three of our own"


def test_a_type_checker_of_the_host_finds_wrong_names(project: Project) -> None:
    """The wheel is typed: what it marks is what the file says behind its lines, and no other line."""
    text = _host_files()["typed.py"]
    (project.folder / "typed.py").write_text(text)
    said = subprocess.run(
        [project.python, "-m", "mypy", "--follow-imports=silent", "--cache-dir", project.folder / "cache", "typed.py"],
        cwd=project.folder, capture_output=True, text=True,
    ).stdout  # fmt: skip
    marked = {int(found[1]): found[2] for found in re.finditer(r"(?m)^typed.py:(\d+): error: (.*)$", said)}
    expected = {
        number: line.split("  # ")[1] for number, line in enumerate(text.splitlines(), start=1) if "  # " in line
    }
    assert marked.keys() == expected.keys(), said
    for number, words in expected.items():
        assert words in marked[number]


def test_what_a_host_forgot_is_named_with_a_hint(project: Project) -> None:
    settings_file = project.folder / "shop" / "settings.py"
    before = settings_file.read_text()
    try:
        settings_file.write_text(before.replace(', "drf_spectacular_sidecar"', ""))
        assert "Add it beside 'llmjobs'" in project.manage("check")
        settings_file.write_text(before + "LLMJOBS_LEASE = 5\nLLMJOBS_POLL_S = 'often'\n")
        with pytest.raises(AssertionError, match="LLMJOBS_LEASE is not a setting") as caught:
            project.manage("check")
        assert "LLMJOBS_POLL_S: expected a number" in str(caught.value)
    finally:
        settings_file.write_text(before)


def _host_files() -> dict[str, str]:
    """The host's code and tests, by their names there: those that the documentation shows, and some of our own, which
    end in .txt here, or they would be collected.
    """
    shown = {block.marks["file"]: block.code for page in PAGES for block in blocks(page) if "file" in block.marks}
    return shown | {path.stem: path.read_text() for path in (Path(__file__).parent / "host").glob("*.txt")}


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
