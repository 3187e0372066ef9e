"""The pages that operators read name what there is: every alert, every kind of incident, every check, every file."""

import re
from pathlib import Path

import pytest
import yaml
from django.test import Client as HttpClient

from llmjobs import checks, host_calls, host_threads, preflight, worker
from llmjobs.docs import contents, library
from llmjobs.docs.rendering import rendered
from llmjobs.handbook import HANDBOOK
from llmjobs.live import hub
from llmjobs.models import Incident
from llmjobs.models.incidents import Kind
from llmjobs.monitoring import catalogue
from project.settings import WEB_POOL
from tests.deployment.shipped import DEPLOY, UNITS, compose, manifests
from tests.factories import make_user
from tests.live_process import ROOT

ALERTS = Path(catalogue.__file__).with_name("alerts.yml")
PAGES = ("deployment", "kubernetes", "pgbouncer", "upgrading", "backup", "handbook")


def page(slug: str) -> str:
    return contents.BY_SLUG[slug].path.read_text()


def anchors(slug: str) -> set[str]:
    return set(re.findall(r'<h[1-6] id="([^"]+)"', rendered(page(slug), address_of=library.address_of).html))


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_every_alert_leads_to_its_place_in_the_handbook():
    known = anchors("handbook")
    for rule in rules():
        address, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert address == "https://llmjobs.example.com/docs/handbook/"
        assert anchor == rule["alert"].lower() and anchor in known, rule["alert"]
        metrics = set(re.findall(r"llmjobs_\w+", rule["expr"]))
        assert metrics or rule["alert"] == "LlmjobsScrapeFails"


def test_every_kind_of_incident_is_in_the_handbook():
    assert set(HANDBOOK) == set(Kind) and set(Kind) <= anchors("handbook")


@pytest.mark.django_db
def test_an_incident_s_page_leads_there():
    incident = Incident.objects.create(kind=Kind.NO_WORKER, level="critical", words="Jobs wait.")
    browser = HttpClient()
    browser.force_login(make_user(is_staff=True, permissions=("view_incident",)))
    shown = browser.get(f"/admin/llmjobs/incident/{incident.pk}/change/").content.decode()
    assert 'href="/docs/handbook/#no_worker"' in shown
    assert browser.get("/docs/handbook/").status_code == 200


def test_every_check_is_on_the_page_and_no_other():
    sources = "".join(Path(module.__file__).read_text() for module in (checks, preflight))
    there = set(re.findall(r'id="(llmjobs\.[EW]\d{3})"', sources))
    assert set(re.findall(r"`(llmjobs\.[EW]\d{3})`", page("deployment"))) == there


@pytest.mark.parametrize("slug", PAGES)
def test_a_file_that_a_page_names_is_there(slug):
    for name in re.findall(r"`?(\.deploy/[\w./@*-]*\w)", page(slug)):
        assert list(ROOT.glob(name)), f"{slug} names {name}"


def test_what_a_page_starts_or_asks_for_is_called_so():
    """Units, services of Compose and what Kubernetes has: nothing here could try those commands."""
    kinds = {"job": "Job", "deploy": "Deployment", "deployment": "Deployment"}
    there = {("unit", path.name.partition(".")[0].partition("@")[0]) for path in UNITS}
    there |= {("compose", name) for name in compose()["services"]}
    there |= {(document["kind"], document.get("metadata", {}).get("name")) for _, document in manifests()}
    told = set()
    for text in map(page, PAGES):
        for line in re.findall(r"^systemctl (?:enable --now|restart|start|stop) (.+)$", text, re.MULTILINE):
            told |= {("unit", word.partition("@")[0]) for word in line.split()}
        told |= {("compose", name) for name in re.findall(r"docker compose (?:exec|run --rm) (\S+)", text)}
        told |= {("compose", name) for name in re.findall(r"docker compose up .*(?:--no-deps |--scale )(\w+)", text)}
        told |= {
            (kinds[kind], name)
            for kind, name in re.findall(r"(?<![.\w])(job|deploy|deployment)[/ ](llmjobs[\w-]*)", text)
        }
    assert {kind for kind, _ in told} == {"unit", "compose", "Job", "Deployment"}
    assert told - there == set()


def test_every_variable_of_the_site_is_on_the_page_and_in_the_example():
    read = set(
        re.findall(
            r"""(?:env\.\w+\(|environ, |environ\.get\()"([A-Z_]+)\"""", (ROOT / "project/settings.py").read_text()
        )
    )
    assert len(read) > 10
    for text in (page("deployment"), (ROOT / ".env.example").read_text()):
        assert sorted(name for name in read - {"EMBEDDED_POSTGRES_URL"} if not re.search(rf"\b{name}\b", text)) == []


def test_the_numbers_of_connections_are_those_of_the_code():
    """Of a worker: its pool, the claims' one, LISTEN, the heartbeat. Threads of handlers are of two kinds: for ends of
    jobs, and for calls that come later. An operation has one.
    """
    plain = worker.POOL_CONNECTIONS + 3
    kinds = Path(host_calls.__file__).read_text().count("HostThreads(connect)")
    assert plain + kinds * host_threads.AT_ONCE + 1 == preflight.WORKER_CONNECTIONS
    assert f"up to {kinds * host_threads.AT_ONCE} more where handlers run" in page("existing-project")
    web = WEB_POOL["max_size"] + 3
    assert hub.Hub.__doc__ and web == preflight.WEB_CONNECTIONS
    for slug in ("deployment", "pgbouncer"):
        text = " ".join(page(slug).split())
        assert re.search(rf"\b{plain}\b", text) and re.search(rf"\b{web}\b", text), slug


def test_the_times_that_the_pages_say_are_those_of_the_files():
    (grace_s,) = {
        document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for name, document in manifests()
        if name == "worker.yaml" and document["kind"] == "Deployment"
    }
    for slug in ("deployment", "kubernetes"):
        assert re.search(rf"\b{grace_s}\b", page(slug)), slug


def test_the_pooler_s_file_says_what_its_page_says():
    shipped = (DEPLOY / "pgbouncer" / "pgbouncer.ini").read_text().splitlines()
    block = re.search(r"```ini\n(.*?)```", page("pgbouncer"), re.DOTALL)
    assert block is not None
    assert [line for line in block[1].splitlines() if line not in shipped] == []
