"""`manage.py watchqueue`: what it says, and the code that it ends with."""

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
from django.core.management import call_command
from django.db import OperationalError

from tests.postgres.test_incidents import Receiver
from tests.postgres.watch_scenes import claims_paused, hook, no_worker, stack

__all__ = ["hook", "stack"]

pytestmark = pytest.mark.django_db(transaction=True)


def watchqueue(capsys: Any) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        call_command("watchqueue", "--once")
    return int(end.value.code or 0), capsys.readouterr().out


def test_the_command_says_what_is_wrong_as_a_monitoring_plugin_does(
    hook: Receiver, stack: ExitStack, capsys: Any
) -> None:
    assert watchqueue(capsys) == (0, "OK: nothing is wrong.\n")
    claims_paused(stack)
    code, said = watchqueue(capsys)
    assert code == 1
    assert said.startswith("WARNING: All claims paused since ")
    no_worker(stack)
    code, said = watchqueue(capsys)
    assert code == 2
    assert [line.partition(":")[0] for line in said.splitlines()] == ["CRITICAL", "WARNING"]
    assert len(hook.events) == 2, "and tells"
    with patch("llmjobs.management.commands.watchqueue.watch.look_here", side_effect=OperationalError("gone\nfor now")):
        assert watchqueue(capsys) == (3, "UNKNOWN: gone for now\n")


def test_the_command_goes_on_and_says_what_opens_and_what_is_over(
    settings: Any, stack: ExitStack, capsys: Any, monkeypatch: Any
) -> None:
    settings.LLMJOBS_WATCH_EVERY_S = settings.LLMJOBS_ALERT_CLEAR_S = 0.0
    mend = claims_paused(stack)
    steps = iter([lambda: None, mend])

    def sleep(_: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr("llmjobs.management.commands.watchqueue.time.sleep", sleep)
    monkeypatch.setattr("llmjobs.management.commands.watchqueue.signal.signal", lambda *_: None)
    call_command("watchqueue")
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" since ")[0].partition(":")[0] for line in said] == ["WARNING", "OK"]
    assert said[1] == "OK: All claims paused: over, after 1 min."
