"""Where the documentation's blocks are tried: a real site in processes of its own, rows that the examples name, and a
folder a page.

Owns what an example may count on: a client `acme` with its key, three models that the simulator answers, a user, an
administrator. Does not own how a block is tried (`running.py`).
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from django.contrib.auth.models import User
from django.test import override_settings

from llmjobs.models import Tier
from llmjobs.testing import SimulatorProcess
from tests.browser.conftest import _seed, apart
from tests.console.javascript import find_node
from tests.factories import make_client, make_key, make_model, make_provider, make_user
from tests.helpers import process_environment
from tests.live_process import ROOT, web_server
from tests.worker_process import worker_process

MODELS = ("sim-small", "gpt-4.1-mini", "gpt-4.1-mini-eu")
SCOPES = ["submit", "read", "cancel"]


@dataclass
class Ground:
    """`modules` is on the worker's path too, so that a page's handlers can be named there."""

    url: str
    simulator: SimulatorProcess
    key: str
    operator_key: str
    modules: Path
    written: dict[str, str] = field(default_factory=dict)  # files of `modules`, which all pages share

    def environment(self, folder: Path) -> dict[str, str]:
        inherited = {
            name: value for name, value in process_environment().items() if not name.startswith("PYTEST_XDIST")
        }
        path = [str(folder / "bin"), str(Path(sys.executable).parent), inherited.get("PATH", "")]
        return {
            **inherited,
            "PATH": os.pathsep.join(path),
            "HOME": str(folder),
            "KEY": self.key,
            "OPERATOR_KEY": self.operator_key,
            "PYTHONPATH": os.pathsep.join([str(self.modules), str(ROOT)]),
            "PYTHONWARNINGS": "ignore",
        }

    def here(self, text: str) -> str:
        """`text` with this site's address where a page says localhost:8000."""
        host = self.url.partition("://")[2]
        return text.replace("http://localhost:8000", self.url).replace("localhost:8000", host)


def seed(simulator_url: str) -> tuple[str, str]:
    """The key of `acme`, and one of an operator."""
    _seed()
    for name, weight in (("free", 1), ("pro", 4), ("enterprise", 16)):
        Tier.objects.update_or_create(name=name, defaults={"weight": weight, "max_priority": 0, "max_queued": 100_000})
    provider = make_provider("simulator", base_url=simulator_url)
    for name in MODELS:
        make_model(name, provider=provider, input_usd_per_mtok="0.40", output_usd_per_mtok="1.60")
    acme = make_client("acme", tier="pro")
    make_user(acme, username="ann")
    admin = User.objects.create_superuser("admin", password="password")
    admin.llmjobs_clients.set([acme])
    return make_key(acme, scopes=SCOPES), make_key(acme, scopes=[*SCOPES, "operator"])


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """A running site. Its rows are committed: whoever uses it flushes afterwards."""
    (modules := folder / "modules").mkdir()
    path = os.pathsep.join([str(modules), str(ROOT)])
    with SimulatorProcess() as simulator:
        key, operator_key = apart(seed, simulator.url)
        private = {"LLMJOBS_WEBHOOK_ALLOW_PRIVATE": "true", "PYTHONPATH": path}
        with web_server(**private) as server, worker_process("--concurrency", "16", **private):
            sys.path.insert(0, str(modules))
            try:
                with override_settings(LLMJOBS_WEBHOOK_ALLOW_PRIVATE=True):
                    yield Ground(server.url, simulator, key, operator_key, modules)
            finally:
                sys.path.remove(str(modules))


def scratch(folder: Path) -> Path:
    """A page's own folder, with what a reader has in his checkout."""
    (folder / "bin").mkdir(parents=True)
    for name, program in (("python", sys.executable), ("python3", sys.executable), ("node", find_node())):
        if program:
            wrapper = folder / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
            wrapper.chmod(0o755)
    (folder / "manage.py").symlink_to(ROOT / "manage.py")
    (folder / ".venv").symlink_to(sys.prefix)
    shutil.copy(ROOT / "llmjobs/static/llmjobs/client.js", folder / "client.js")
    return folder
