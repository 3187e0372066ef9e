"""The parts of pages that are made from the code: the table of settings, and the commands with their options.

Owns their Markdown, which stands in a page as `{{ settings }}` or `{{ commands }}` on a line of its own. Does not own a
name or a default in them: those are `conf.py`'s and each command's own parser's, so that a page can't be behind them.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from functools import cache

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

from llmjobs.conf import KNOBS, Knob

PLACE = re.compile(r"^\{\{ (?P<name>[a-z]+) \}\}$", re.MULTILINE)

# The first setting of each group, in the order of `conf.py`, and what the group is called.
GROUPS = {
    "lease_s": "Leases",
    "poll_s": "Loops of the worker",
    "connect_timeout_s": "One call to a provider",
    "max_attempts": "Retries",
    "body_max_bytes": "What a submit may carry",
    "backlog_max": "What may wait",
    "send_ahead_s": "Rate limits and stopped providers",
    "watch_every_s": "What operators are told of",
    "short_output_tokens": "Estimates",
    "webhook_timeout_s": "Webhooks and handlers",
    "keep_jobs_days": "What is kept",
    "wait_max_s": "Viewers",
    "users_make_keys": "Keys and links that users make",
    "idempotency_keep_s": "Asked twice",
    "listen_dsn": "Where things are",
}
UNITS_S = ((86_400, "day"), (3600, "hour"), (60, "minute"))
UNITS_BYTES = ((1024 * 1024, "MiB"), (1024, "KiB"))


def filled(text: str) -> str:
    """`text` with what is made from the code in its places."""
    makers: dict[str, Callable[[], str]] = {"settings": settings, "commands": commands}
    return PLACE.sub(lambda match: makers[match["name"]](), text)


def settings() -> str:
    lines: list[str] = []
    for knob in KNOBS:
        if knob.name in GROUPS:
            lines += ["", f"## {GROUPS[knob.name]}", "", "| setting | default | takes | |", "|---|---|---|---|"]
        why = _cell(knob.why)
        lines.append(f"| `{knob.setting}` | {_default(knob)} | {_cell(knob.expected)} | {why} |")
    return "\n".join(lines)


@cache
def commands() -> str:
    """Each command of this app: what it does, how it is called, and its options."""
    return "\n".join(line for name in command_names() for line in _command(name))


def command_names() -> list[str]:
    return sorted(name for name, app in get_commands().items() if app == "llmjobs")


@cache
def parser_of(name: str) -> argparse.ArgumentParser:
    """Of any command of the project. Raises KeyError for a name that is none."""
    command = load_command_class(get_commands()[name], name)
    return command.create_parser("manage.py", name)


def own_actions(name: str) -> list[argparse.Action]:
    """The arguments that the command adds to those of every command of Django's."""
    common = {option for action in _common()._actions for option in action.option_strings}
    return [action for action in parser_of(name)._actions if not common & set(action.option_strings)]


@cache
def _common() -> argparse.ArgumentParser:
    return BaseCommand().create_parser("manage.py", "command")


def _command(name: str) -> Iterator[str]:
    parser, actions = parser_of(name), own_actions(name)
    usage = " ".join(["manage.py", name, *(_called(action) for action in actions)])
    yield from ("", f"## {name}", "", _prose(parser.description or ""), "", f"`{usage}`")
    if actions:
        yield from ("", "| | |", "|---|---|")
        for action in actions:
            said = _prose(parser._get_formatter()._expand_help(action)) if action.help else ""
            yield f"| `{_shown(action)}` | {_cell(said)} |"


def _called(action: argparse.Action) -> str:
    shown = _shown(action)
    return f"[{shown}]" if action.option_strings and not action.required else shown


def _shown(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest.upper())
    if action.nargs == 0:
        return action.option_strings[-1]
    taken = "|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
    return f"{action.option_strings[-1]} {taken}"


def _default(knob: Knob) -> str:
    if knob.type is bool:
        return "`true`" if knob.default else "`false`"
    if knob.type is str:
        return f"`{knob.default}`" if knob.default else "empty"
    said = f"{knob.default:,}" if isinstance(knob.default, int) else f"{knob.default:g}"
    units = UNITS_S if knob.name.endswith("_s") else UNITS_BYTES if knob.name.endswith("_bytes") else ()
    for size, word in units:
        if knob.default >= size and knob.default % size == 0:
            count = int(knob.default // size)
            return f"{said} ({count} {word}{'s' if count > 1 and word.islower() else ''})"
    return said


def _prose(text: str) -> str:
    """Words of a help text: its `--options` and variables as code, the rest as it is."""
    escaped = " ".join(text.split()).replace("*", r"\*").replace("_", r"\_").replace("<", "&lt;")
    return re.sub(
        r"(?<![\w`-])(--[a-z][a-z-]+|LLMJOBS(?:\\_[A-Z]+)+)", lambda m: f"`{m[1]}`".replace("\\", ""), escaped
    )


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
