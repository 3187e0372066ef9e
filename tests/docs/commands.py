"""Commands as the documentation writes them, held against what the programs take.

Owns the finding of `manage.py …`, `make …` and options in shell text and inline code. Runs nothing.
"""

import argparse
import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from django.core.management import get_commands

from llmjobs.docs import generated
from tests.live_process import ROOT

MANAGE = re.compile(r"(?:manage\.py|django-admin)\s+(?P<name>[a-z_]+)(?P<rest>(?:\\\n|[^\n|;&<>#)`])*)")
MAKE = re.compile(r"(?:^|[;&|]\s*)make\s+(?P<target>[a-z][a-z0-9-]*)", re.MULTILINE)
MODULE = re.compile(r"\bpython3? -m (?P<name>[a-z_][\w.]*)")


def check_commands(text: str) -> None:
    """Raises AssertionError for a command or an option that is none."""
    for match in MANAGE.finditer(text):
        check_manage(match["name"], match["rest"])
    for match in MAKE.finditer(text):
        assert match["target"] in make_targets(), f"the Makefile has no target {match['target']!r}"
    for match in MODULE.finditer(text):
        assert find_spec(match["name"]), f"there is no module {match['name']!r}"


def check_manage(name: str, rest: str) -> None:
    assert name in get_commands(), f"there is no command {name!r}"
    options = options_of(name)
    for word in shlex.split(rest.replace("\\\n", " ").replace("[", " ").replace("]", " "), comments=True):
        option = word.partition("=")[0]
        if option.startswith("-") and option != "-" and not re.fullmatch(r"-\d+", option):
            assert option in options, f"manage.py {name} has no {option}; it takes {', '.join(sorted(options))}"


def is_known_option(option: str) -> bool:
    return any(option in options_of(name) for name in generated.command_names())


@cache
def options_of(name: str) -> frozenset[str]:
    parser = generated.parser_of(name)
    found = set(_options(parser))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                found |= _options(each)
    return frozenset(found)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z0-9-]*):", Path(ROOT / "Makefile").read_text(), re.MULTILINE))
