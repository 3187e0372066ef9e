"""The files that people copy, read for tests: what they start, and what they say beside it."""

import configparser
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.live_process import ROOT

DEPLOY = ROOT / ".deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DRAIN = "--drain-timeout"


@dataclass(slots=True)
class Instruction:
    """Of a Dockerfile, its lines joined; `stage` is 0-based."""

    stage: int
    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)


@dataclass(slots=True)
class Started:
    """A command line that a file runs. `grace_s`: how long it has after SIGTERM, None where nothing says."""

    where: str
    arguments: list[str]
    grace_s: float | None = None
    environment: dict[str, str] = field(default_factory=dict)


def dockerfile() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Instruction] = []
    stage = -1
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(stage, word, rest.strip()))
    return found


def exec_form(text: str) -> list[str]:
    """["a", "b"] of a CMD, which no shell reads."""
    found = json.loads(text[text.index("[") :])
    assert isinstance(found, list)
    return found


def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def manifests() -> Iterator[tuple[str, Any]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Sections, in which a key may stand several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def argv(line: str) -> list[str]:
    """Of an ExecStart: behind a program that begins with @ stand the arguments from the 0th on."""
    words = shlex.split(line)
    return words[1:] if words[0].startswith("@") else words


def seconds(text: str) -> float:
    """15s, 2m, 1m30s."""
    parts = re.findall(r"(\d+)([smh])", text)
    assert parts and "".join(map("".join, parts)) == text, text
    return float(sum(int(number) * {"s": 1, "m": 60, "h": 3600}[letter] for number, letter in parts))


def env_example(name: str) -> dict[str, str]:
    config = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    config.optionxform = str  # type: ignore[assignment,method-assign]
    config.read_string("[all]\n" + (DEPLOY / name).read_text())
    return dict(config["all"])


def everything_started() -> list[Started]:
    """What the image, Compose, Kubernetes and systemd run."""
    found = [Started("Dockerfile", exec_form(one.rest)) for one in dockerfile() if one.word == "CMD"]
    for name, service in compose()["services"].items():
        if "llmjobs.env" in service["env_file"] and "command" in service:
            grace = seconds(service["stop_grace_period"]) if "stop_grace_period" in service else None
            found.append(Started(f"compose.yaml: {name}", service["command"], grace))
    for name, document in manifests():
        pod = document.get("spec", {}).get("template", {}).get("spec") if document["kind"] != "Kustomization" else None
        for container in pod["containers"] if pod else ():
            found.append(Started(name, container["command"], pod.get("terminationGracePeriodSeconds")))
    for path in UNITS:
        service = unit(path)["Service"]
        grace = seconds(service["TimeoutStopSec"][0]) if "TimeoutStopSec" in service else None
        found += [Started(path.name, argv(line), grace) for line in service["ExecStart"]]
    return found
