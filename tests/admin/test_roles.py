"""Who may see and do what: every address and every action of the admin, for a stranger and for each role.

The tables here name them all: one that is new must be put into them, or a test fails.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model
from django.test import Client as Browser
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, reverse

from llmjobs.admin import dead_letters
from llmjobs.models import Attempt, Job, JobEvent, JobRequest, JobResult
from tests.admin.pages import TABLES, list_url, logged_in, page_url, staff, text_of
from tests.factories import make_client, make_groups, make_job, make_user

roles = importlib.import_module("llmjobs.migrations.0021_roles")

STRANGER, VIEWER, OPERATOR, ADMINISTRATOR = range(4)  # staff without a permission, and the groups
GROUPS = {VIEWER: roles.VIEWER, OPERATOR: roles.OPERATOR, ADMINISTRATOR: roles.ADMINISTRATOR}
NOBODY = 4

EDITED = {"Tier", "Client", "ApiKey", "Provider", "Model"}  # added and changed by administrators
ELSEWHERE = {"DeadLetter"}  # its page leads to another one
STANDARD = ("changelist", "add", "history", "delete", "change")

# Of each action the least role that may.
ACTIONS = {
    "Job": {
        "requeue": OPERATOR, "cancel": OPERATOR, "reprioritize": OPERATOR, "move": OPERATOR, "discard": OPERATOR,
        "export": OPERATOR, "erase": ADMINISTRATOR,
    },
    "WebhookDelivery": {"redeliver": OPERATOR},
    "HandlerCall": {"call_again": OPERATOR},
    "ApiKey": {"rotate": ADMINISTRATOR, "revoke": ADMINISTRATOR},
    "Client": {"pause": OPERATOR, "resume": OPERATOR, "rotate_secret": ADMINISTRATOR},
    "Provider": {"pause": OPERATOR, "resume": OPERATOR, "try_again": OPERATOR},
    "Model": {"pause": OPERATOR, "resume": OPERATOR, "try_again": OPERATOR},
    "Worker": {"drain": OPERATOR},
}  # fmt: skip


# Of the page of dead letters, which has its own.
OF_DEAD_LETTERS = {"requeue": OPERATOR, "gradually": OPERATOR, "cancel": OPERATOR, "discard": OPERATOR}


@dataclass(frozen=True)
class Address:
    """`args` of the rows of every table; who may less gets a 403."""

    least: int
    method: str = "get"
    args: Callable[[dict[str, Model]], list[Any]] = lambda rows: []


def pk_of(name: str) -> Callable[[dict[str, Model]], list[Any]]:
    return lambda rows: [rows[name].pk]


# Addresses beside those that Django's admin makes for each table.
CUSTOM = {
    "llmjobs_job_parts": Address(VIEWER, args=pk_of("Job")),
    "llmjobs_job_edit": Address(OPERATOR, args=pk_of("Job")),
    "llmjobs_job_revoke_link": Address(OPERATOR, "post", pk_of("Job")),
    "llmjobs_operation_progress": Address(VIEWER, "post", pk_of("Operation")),
    "llmjobs_operation_stop": Address(OPERATOR, "post", pk_of("Operation")),
    "llmjobs_operation_resume": Address(OPERATOR, "post", pk_of("Operation")),
    "llmjobs_operation_undo": Address(OPERATOR, "post", pk_of("Operation")),
    "llmjobs_operation_download": Address(OPERATOR, "post", pk_of("Operation")),
    "llmjobs_model_limits": Address(VIEWER, args=pk_of("Model")),
    "llmjobs_worker_claims": Address(OPERATOR, "post"),
}


@pytest.fixture
def people(db: None) -> dict[int, Browser]:
    """The session of each."""
    make_groups()
    found = {STRANGER: staff()}
    for role, name in GROUPS.items():
        user = make_user(is_staff=True, username=name.partition(" ")[2])
        user.groups.add(Group.objects.get(name=name))
        found[role] = logged_in(user)
    return found


def addresses() -> Iterator[str]:
    """The names of all of this app's addresses in the admin, by its own urlpatterns."""

    def walk(patterns: list[URLPattern | URLResolver]) -> Iterator[str]:
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns)
            elif pattern.name and pattern.name.startswith("llmjobs_"):
                yield pattern.name

    return walk(admin.site.get_urls())


def is_standard(name: str) -> bool:
    table, _, what = name.removeprefix("llmjobs_").partition("_")
    return what in STANDARD and table in {name.lower() for name in TABLES}


def test_every_address_is_known_here() -> None:
    assert {name for name in addresses() if not is_standard(name)} == set(CUSTOM)


def test_every_action_is_known_here() -> None:
    found = {
        model.__name__: {getattr(action, "__name__", action) for action in page.actions}
        for model, page in admin.site._registry.items()
        if model._meta.app_label == "llmjobs" and page.actions
    }
    assert found == {name: set(actions) for name, actions in ACTIONS.items()}


def test_lists_pages_and_histories_are_for_viewers_and_nothing_is_for_strangers(
    people: dict[int, Browser], rows: dict[str, Model]
) -> None:
    outsider = logged_in(make_user())  # no staff
    for name, row in rows.items():
        for url in (list_url(name), page_url(row), page_url(row).replace("/change/", "/history/")):
            for role in (STRANGER, VIEWER):  # the others may all that viewers may
                answer = people[role].get(url, follow=True)
                assert answer.status_code == (403 if role == STRANGER else 200), (url, role)
        assert outsider.get(list_url(name)).status_code == 302, "asked to log in"


def test_only_administrators_add_and_change_and_nobody_deletes(
    people: dict[int, Browser], rows: dict[str, Model]
) -> None:
    for name, row in rows.items():
        least = ADMINISTRATOR if name in EDITED else NOBODY
        for role, browser in people.items():
            may = role >= least
            assert browser.get(f"{list_url(name)}add/").status_code == (200 if may else 403), (name, role)
            # A form with nothing in it is refused by its fields; without the permission by the page.
            if name not in ELSEWHERE:
                assert browser.post(page_url(row), {"_save": "Save"}).status_code == (200 if may else 403), (name, role)
            page = browser.get(page_url(row), follow=True)
            assert (role >= VIEWER and 'name="_save"' in text_of(page)) == may, (name, role)
            assert browser.post(page_url(row).replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("name", sorted(CUSTOM))
def test_each_other_address_is_for_its_role_and_those_above(
    people: dict[int, Browser], rows: dict[str, Model], name: str
) -> None:
    address = CUSTOM[name]
    url = reverse(f"admin:{name}", args=address.args(rows))
    for role, browser in people.items():
        answer = getattr(browser, address.method)(url)
        assert (answer.status_code != 403) == (role >= address.least), (name, role, answer.status_code)
        assert answer.status_code < 500, (name, role)
        if address.method == "post":
            assert browser.get(url).status_code in (403, 405), f"{name} does something: no address to look at"
    assert getattr(Browser(), address.method)(url).status_code == 302


def test_each_action_is_offered_to_its_role_and_those_above(people: dict[int, Browser]) -> None:
    for model, page in admin.site._registry.items():
        if model._meta.app_label != "llmjobs":
            continue
        for role in people:
            request = RequestFactory().get("/")
            request.user = user_of(role)
            expected = {name for name, least in ACTIONS.get(model.__name__, {}).items() if role >= least}
            assert set(page.get_actions(request)) == expected, (model.__name__, role)


def test_an_action_that_is_not_offered_is_not_carried_out(people: dict[int, Browser], rows: dict[str, Model]) -> None:
    """Posted anyway, as its own form would."""
    job = make_job("dead")
    for name, row in {"Job": job, "Client": rows["Client"], "ApiKey": rows["ApiKey"], "Worker": rows["Worker"]}.items():
        for action in ACTIONS[name]:
            form = {"action": action, "_selected_action": row.pk, "select_across": 0, "index": 0, "confirmed": "yes"}
            people[VIEWER].post(list_url(name), form)
            before = row.__class__._default_manager.filter(pk=row.pk).values().get()
            assert before == {**before, **{f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields}}


def test_dead_letters_are_acted_on_by_operators(people: dict[int, Browser], rows: dict[str, Model]) -> None:
    assert set(dead_letters.ACTIONS) == set(OF_DEAD_LETTERS)
    for action, least in OF_DEAD_LETTERS.items():
        for role, browser in people.items():
            answer = browser.post(list_url("DeadLetter"), {"action": action})
            assert answer.status_code == (200 if role >= least else 403), (action, role)


def user_of(role: int) -> User:
    if role == STRANGER:
        return make_user(is_staff=True)
    return User.objects.get(groups__name=GROUPS[role])


# Prompts, outputs, and what may quote them.

MARK = "xyzzy-secret"


@pytest.fixture
def marked(rows: dict[str, Model]) -> list[Job]:
    """Jobs in which every place where people's words may stand has the mark, and rows of them in every table."""
    jobs = [Job.objects.get(pk=job.pk) for job in Job.objects.all()] + [make_job("dead"), make_job("failed")]
    for job in jobs:
        JobResult.objects.update_or_create(job=job, defaults={})
    said = f'{{"messages": [{{"role": "user", "content": "{MARK}"}}]}}'
    JobRequest.objects.update(body=said)
    JobResult.objects.update(output=f'{{"text": "{MARK}"}}', output_text=MARK, error_message=MARK)
    Attempt.objects.update(
        error_code="server_error", error_message=MARK, decision=f"Dead-lettered. server_error: {MARK}"
    )
    JobEvent.objects.update(data={"text": MARK, "status": "dead", "error": {"code": "x", "message": MARK}})
    type(rows["WebhookDelivery"])._default_manager.update(url=f"https://hooks.example/{MARK}", error=MARK, status=500)
    type(rows["HandlerCall"])._default_manager.update(error=f"ValueError: {MARK}")
    type(rows["Incident"])._default_manager.update(words=f"server_error: {MARK}")
    return jobs


def test_a_viewer_sees_no_prompt_and_no_output_on_any_page(
    people: dict[int, Browser], rows: dict[str, Model], marked: list[Job]
) -> None:
    urls = ["/admin/", *(list_url(name) for name in rows), *map(page_url, rows.values()), *map(page_url, marked)]
    urls += [
        reverse(f"admin:{name}", args=address.args(rows)) for name, address in CUSTOM.items() if address.method == "get"
    ]
    seen_by_operators = 0
    for url in urls:
        answer = people[VIEWER].get(url)
        if answer.status_code != 403:
            assert MARK not in text_of(answer), url
        operators = people[OPERATOR].get(url)
        seen_by_operators += operators.status_code == 200 and MARK in text_of(operators)
    assert seen_by_operators >= len(marked), "else the mark is nowhere"


def test_a_viewer_cannot_ask_whether_a_prompt_has_a_word(people: dict[int, Browser], marked: list[Job]) -> None:
    for query in (f"request__body__contains={MARK}", f"result__output_text__contains={MARK}"):
        answer = people[VIEWER].get(list_url("Job"), dict([query.split("=")]))
        assert answer.status_code in (302, 400)
    for table in ("JobRequest", "JobResult", "JobEvent", "Attempt"):
        answer = people[VIEWER].get(list_url(table), {"q": MARK}, follow=True)
        assert "cl" not in (answer.context or {}) or not answer.context["cl"].result_list, table


def test_a_viewer_asks_for_no_secret_a_letter_at_a_time(people: dict[int, Browser], rows: dict[str, Model]) -> None:
    for table, lookup in (("Client", "webhook_secret__startswith"), ("ApiKey", "hash__startswith")):
        row = rows[table]
        for guess in (getattr(row, lookup.partition("__")[0])[:8], "no"):
            assert people[VIEWER].get(list_url(table), {lookup: guess}).status_code == 400, (lookup, guess)
    found = people[VIEWER].get(list_url("Client"), {"tier__id__exact": rows["Client"].tier_id})  # type: ignore[attr-defined]
    assert found.status_code == 200, "what a filter offers is asked for"


# The groups.


def test_the_groups_grow_and_a_viewer_may_see_every_table_but_no_content(people: dict[int, Browser]) -> None:
    of = {role: permissions(name) for role, name in GROUPS.items()}
    assert of[VIEWER] < of[OPERATOR] < of[ADMINISTRATOR]
    assert {f"view_{name.lower()}" for name in TABLES} <= of[VIEWER]
    assert all(codename.startswith("view_") for codename in of[VIEWER])
    assert "view_job_content" not in of[VIEWER]
    assert not any(codename.startswith(("add_", "change_", "delete_")) for codename in of[OPERATOR])
    assert not any(codename.startswith("delete_") for codename in of[ADMINISTRATOR])


def test_the_migration_knows_every_permission_that_it_gives(db: None) -> None:
    known = set(Permission.objects.filter(content_type__app_label="llmjobs").values_list("codename", flat=True))
    assert {*roles.ACTS, *roles.CONFIGURES} <= known
    own = {codename for model in apps.get_app_config("llmjobs").get_models() for codename, _ in model._meta.permissions}
    assert own <= {*roles.ACTS, *roles.CONFIGURES}, "a permission of ours that no role has"


def test_what_a_host_made_of_a_group_stays(people: dict[int, Browser]) -> None:
    Group.objects.get(name=roles.VIEWER).permissions.set([])
    Group.objects.get(name=roles.OPERATOR).delete()
    make_groups()
    assert permissions(roles.VIEWER) == set()
    assert permissions(roles.OPERATOR), "one that is gone is made again"


def permissions(group: str) -> set[str]:
    return set(Group.objects.get(name=group).permissions.values_list("codename", flat=True))


def test_an_operator_pauses_a_client_and_does_not_edit_it(people: dict[int, Browser]) -> None:
    client = make_client("acme")
    form = {"action": "pause", "_selected_action": client.pk, "select_across": 0, "index": 0, "confirmed": "yes"}
    people[VIEWER].post(list_url("Client"), form)
    client.refresh_from_db()
    assert not client.is_paused
    people[OPERATOR].post(list_url("Client"), form)
    client.refresh_from_db()
    assert client.is_paused
    assert people[OPERATOR].post(page_url(client), {"weight": 5}).status_code == 403
