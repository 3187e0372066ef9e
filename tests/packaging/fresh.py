"""A wheel, a fresh virtual environment that has it and not the checkout, and a fresh Django project in that.

Owns what a new user does by hand: `pip install`, `django-admin startproject`, two lines. Needs no network: the
dependencies are those of this environment, seen through a .pth; the wheel is installed from its file.
"""

import ensurepip
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 120
# What a new user adds to what `startproject` wrote; beside them only the database is named, which has to be Postgres.
SETTINGS_LINE = 'INSTALLED_APPS += ["llmjobs", "drf_spectacular_sidecar", "django.contrib.postgres"]\n'
URLS_LINE = 'urlpatterns += [path("", include("llmjobs.urls"))]\n'


def build(folder: Path) -> Path:
    """The wheel, made as `python -m build` makes it, less its environment of its own, which would be downloaded."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, at=ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Project:
    folder: Path
    python: Path
    database: dict[str, Any]

    def manage(self, *arguments: str, **environment: str) -> str:
        return run(self.python, "manage.py", *arguments, at=self.folder, **environment)


def install(wheel: Path, folder: Path) -> Path:
    """Returns the python of the new environment. pip is the one that Python brings, run out of its own wheel."""
    venv.create(folder, with_pip=False)
    [pip] = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", at=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(python, pip / "pip", "install", "--quiet", "--no-compile", "--no-index", "--no-deps", wheel, at=folder)
    return python


def start_project(python: Path, folder: Path, database: dict[str, Any]) -> Project:
    folder.mkdir()
    run(python, "-m", "django", "startproject", "shop", folder, at=folder)
    settings, urls = folder / "shop" / "settings.py", folder / "shop" / "urls.py"
    settings.write_text(settings.read_text() + SETTINGS_LINE + f"DATABASES = {{'default': {database!r}}}\n")
    imports = "from django.urls import include, path\n"
    urls.write_text(urls.read_text().replace("from django.urls import path\n", imports) + URLS_LINE)
    return Project(folder, python, database)


def run(*command: str | Path, at: Path, **environment: str) -> str:
    """What it printed. Nothing of this run is in its environment: no settings, no path to the checkout, no pytest."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        list(map(str, command)), cwd=at, env=kept | environment, capture_output=True, text=True, timeout=WITHIN_S
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
