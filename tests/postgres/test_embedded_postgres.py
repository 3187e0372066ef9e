"""The embedded server: real processes, real kills. Each test has a data folder of its own."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings

from project.database_url import connection_settings
from project.embedded_postgres import place
from project.embedded_postgres.cluster import Cluster, EmbeddedPostgresError, run, surroundings
from project.embedded_postgres.keeper import STARTED_AFTER_S
from tests.helpers import eventually

CHECKOUT = Path(settings.BASE_DIR)

USER_OF_THE_SERVER = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
from project.embedded_postgres import ensure_running
url = ensure_running(Path(sys.argv[1]), throwaway="throwaway" in sys.argv)
if "fork" in sys.argv:
    if os.fork() == 0:
        sys.exit()  # runs what is registered with atexit
    os.wait()
print(url, flush=True)
sys.stdin.read()
"""


class Process:
    """A process that has asked for the server, and needs it until `leave()` or a kill."""

    def __init__(self, data_dir: Path, *more: str):
        self.popen = subprocess.Popen(
            [sys.executable, "-c", USER_OF_THE_SERVER, data_dir, *more],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.popen.stdin is not None and self.popen.stdout is not None
        self.stdin, self.stdout = self.popen.stdin, self.popen.stdout
        self._url = ""

    @property
    def url(self) -> str:
        readable, _, _ = select.select([self.stdout], [], [], 0 if self._url else 30)
        self._url = self._url or (self.stdout.readline().strip() if readable else "")
        assert self._url, "the process had no server within 30 s"
        return self._url

    def leave(self) -> None:
        self.stdin.close()
        assert self.popen.wait(20) == 0

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def close(self) -> None:
        self.kill()
        self.stdin.close()
        self.stdout.close()


Start = Callable[..., Process]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not pytest's tmp_path: that has mode 700, which is a case of its own."""
    folder = Path(tempfile.mkdtemp(prefix="llmjobs-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start_one(*more: str) -> Process:
        started.append(Process(data_dir, *more))
        return started[-1]

    yield start_one
    for process in started:
        process.close()
    eventually(lambda: assert_no_process(data_dir))


def cluster_of(data_dir: Path) -> Cluster:
    chosen = place.choose(data_dir, "")
    return Cluster(chosen.base / "postgres", chosen.binaries, chosen.run_as, throwaway=False)


def processes_of(data_dir: Path) -> dict[int, str]:
    """Living processes of Postgres and keepers that belong to this folder: {pid: command line}."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            if (process / "cwd").readlink().is_relative_to(data_dir) or f"keeper {data_dir}" in command:
                found[int(process.name)] = command
        except OSError:
            continue
    return found


def pid_of_keeper(data_dir: Path) -> int:
    return next(pid for pid, command in processes_of(data_dir).items() if "keeper" in command)


def pid_of_postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def assert_no_process(data_dir: Path) -> None:
    assert processes_of(data_dir) == {}


def answer(url: str, query: str = "select 1") -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return str(row[0])


def test_the_server_answers_and_leaves_no_process_behind(start: Start, data_dir: Path) -> None:
    process = start()
    assert answer(process.url) == "1"
    process.leave()
    assert_no_process(data_dir)


def test_what_was_written_is_there_after_a_restart(start: Start) -> None:
    first = start()
    with psycopg.connect(first.url) as connection:
        connection.execute("create table note as select 'kept' as text")
    first.leave()
    assert answer(start().url, "select text from note") == "kept"


def test_a_second_process_keeps_the_server_of_the_first(start: Start, data_dir: Path) -> None:
    first, second = start(), start()
    assert first.url == second.url
    postmaster = pid_of_postmaster(data_dir)
    first.leave()
    assert answer(second.url) == "1"
    assert pid_of_postmaster(data_dir) == postmaster
    second.leave()
    eventually(lambda: assert_no_process(data_dir))


def test_many_that_start_at_once_share_one_server(start: Start, data_dir: Path) -> None:
    processes = [start() for _ in range(5)]
    assert len({answer(process.url, "select pg_postmaster_start_time()") for process in processes}) == 1
    assert sum("keeper" in command for command in processes_of(data_dir).values()) == 1


def test_who_is_only_connected_keeps_the_server_too(start: Start, data_dir: Path) -> None:
    process = start()
    with psycopg.connect(process.url) as stranger:
        process.leave()
        assert stranger.execute("select 1").fetchone() == (1,)
    eventually(lambda: assert_no_process(data_dir))


def test_a_killed_process_leaves_no_server_behind(start: Start, data_dir: Path) -> None:
    process = start()
    assert answer(process.url) == "1"
    process.kill()
    eventually(lambda: assert_no_process(data_dir))


def test_a_killed_keeper_takes_its_server_along_and_the_next_start_mends_it(start: Start, data_dir: Path) -> None:
    assert answer(start().url) == "1"
    os.kill(pid_of_keeper(data_dir), signal.SIGKILL)
    assert answer(start().url) == "1"


def test_a_killed_server_is_mended_by_the_next_start(start: Start, data_dir: Path) -> None:
    assert answer(start().url) == "1"
    killed = pid_of_postmaster(data_dir)
    os.kill(killed, signal.SIGKILL)
    assert answer(start().url) == "1"
    assert pid_of_postmaster(data_dir) != killed


def test_a_server_that_is_killed_in_use_comes_back_by_itself(start: Start, data_dir: Path) -> None:
    url = start().url
    began_at = time.monotonic()

    def ran_for_a_while() -> None:
        assert time.monotonic() - began_at > STARTED_AFTER_S

    eventually(ran_for_a_while)
    killed = pid_of_postmaster(data_dir)
    os.kill(killed, signal.SIGKILL)

    def answers_again() -> None:
        try:
            assert answer(url) == "1"
        except psycopg.OperationalError as error:
            raise AssertionError(str(error)) from None

    eventually(answers_again, within_s=20)
    assert pid_of_postmaster(data_dir) != killed


@pytest.mark.parametrize("name", ["data/postmaster.pid", "run/.s.PGSQL.5432.lock"])
def test_a_lock_file_with_a_strangers_number_does_not_stop_the_start(start: Start, data_dir: Path, name: str) -> None:
    """The number of a process of the same user: Postgres alone would refuse to start."""
    process = start()
    answer(process.url)
    lock_file = data_dir / "postgres" / name
    lines = lock_file.read_text().splitlines()
    process.leave()
    with subprocess.Popen(["sleep", "60"], **surroundings(cluster_of(data_dir).run_as)) as stranger:
        lock_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert answer(start().url) == "1"
        stranger.kill()


def test_a_forked_child_that_ends_lets_go_of_nothing(start: Start, data_dir: Path) -> None:
    parent = start("fork")
    assert answer(parent.url) == "1"
    keeper = pid_of_keeper(data_dir)
    another = start()  # would wait for ever if the child had taken the lock for itself
    assert answer(another.url) == "1"
    another.leave()
    assert pid_of_keeper(data_dir) == keeper
    parent.leave()
    assert_no_process(data_dir)


def test_ctrl_c_reaches_the_process_and_not_its_server(start: Start, data_dir: Path) -> None:
    first = start()
    with psycopg.connect(first.url) as connection:
        os.killpg(first.popen.pid, signal.SIGINT)
        first.popen.wait()
        assert connection.execute("select 1").fetchone() == (1,)


def test_nothing_listens_but_a_socket_in_a_private_folder(start: Start, data_dir: Path) -> None:
    url = start().url
    assert answer(url, "show listen_addresses") == ""
    folder = Path(connection_settings(url)["HOST"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.is_relative_to(data_dir)


@pytest.mark.parametrize("name", ["d" * 120, "a,b", 'it\'s 100% "ü" $HOME'], ids=["long", "comma", "odd"])
def test_no_path_is_an_obstacle(data_dir: Path, name: str) -> None:
    """A socket's name is short, a list of folders and of hosts is parted by commas, and a URL is quoted."""
    process = Process(data_dir / name)
    try:
        options = connection_settings(process.url)
        with psycopg.connect(host=options["HOST"], port=options["PORT"], user=options["USER"]) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        process.leave()
    finally:
        process.close()
        shutil.rmtree(cluster_of(data_dir / name).sockets)


def test_a_folder_in_tmp_that_is_a_strangers_is_refused(data_dir: Path) -> None:
    open_to_all = data_dir / "run"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match=r"expected a folder of .* with mode 0700"):
        place.make_private(open_to_all, None)


def test_a_server_that_cannot_start_says_why(start: Start, data_dir: Path) -> None:
    process = start()
    answer(process.url)
    process.leave()
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    broken = subprocess.run(
        [sys.executable, "-c", USER_OF_THE_SERVER, data_dir],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert broken.returncode == 1
    assert "Postgres ended at its start" in broken.stderr
    assert "database files are incompatible with server" in broken.stderr


def test_a_data_folder_that_cannot_be_made_is_told_with_the_way_out(data_dir: Path) -> None:
    (data_dir / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"file: .*; set LLMJOBS_DATA_DIR or DATABASE_URL"):
        place.choose(data_dir / "file", "")


def test_a_wrong_folder_of_binaries_is_told(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="LLMJOBS_PG_BIN: expected a folder with postgres"):
        place.choose(data_dir, str(data_dir))


def test_a_throw_away_server_is_removed_with_its_process(start: Start, data_dir: Path) -> None:
    process = start("throwaway")
    assert answer(process.url, "show fsync") == "off"
    assert answer(process.url, "show synchronous_commit") == "on"
    with psycopg.connect(process.url):  # whoever is connected does not keep this one
        process.leave()
    assert_no_process(data_dir)
    assert list((data_dir / "throwaway").iterdir()) == []


def test_throw_away_servers_are_not_shared(start: Start) -> None:
    assert start("throwaway").url != start("throwaway").url


def test_what_a_dead_run_left_is_swept_by_the_next(start: Start, data_dir: Path) -> None:
    dead = start("throwaway")
    answer(dead.url)
    os.kill(pid_of_keeper(data_dir), signal.SIGKILL)
    dead.kill()
    eventually(lambda: assert_no_process(data_dir))
    assert len(list((data_dir / "throwaway").iterdir())) == 1
    living = start("throwaway")
    assert answer(living.url) == "1"
    (home,) = (data_dir / "throwaway").iterdir()
    assert str(home) in living.url


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
def test_root_behind_a_closed_door_uses_one_folder_and_changes_no_mode(data_dir: Path) -> None:
    home = data_dir / "home"
    home.mkdir(mode=0o700)
    process = Process(home / "checkout" / ".data")
    cluster = cluster_of(home / "checkout" / ".data")
    try:
        assert answer(process.url) == "1"
        assert cluster.home.parent.parent == place.ROOT_HOME
        assert home.stat().st_mode & 0o777 == 0o700
        assert list((home / "checkout" / ".data").iterdir()) == []
        process.leave()
    finally:
        process.close()
        shutil.rmtree(cluster.home.parent)
        with contextlib.suppress(OSError):  # somebody else's data is there
            place.ROOT_HOME.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
def test_binaries_that_the_server_s_user_cannot_reach_are_copied(data_dir: Path) -> None:
    """A virtual environment under a home of mode 700, the wheel with the libraries beside it included."""
    found = place.find_binaries("")
    package = found.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(found.parent, closed / package.name / found.parent.name)
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    chosen = place.choose(data_dir / "data", str(closed / package.name / found.parent.name / "bin"))
    assert chosen.run_as is not None
    assert chosen.binaries.is_relative_to(chosen.base)
    for name in ("postgres", "initdb"):
        assert run([chosen.binaries / name, "--version"], chosen.run_as).returncode == 0
