"""/api/schema: that it is valid, complete, and what the API really answers."""

import inspect
import json
import re
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import call_command
from django.urls import URLPattern
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from llmjobs import submissions
from llmjobs.api import components, listing, submission_schema, urls
from llmjobs.api.schema import FILTERS, STREAMS, Generator
from llmjobs.live import urls as live_urls
from llmjobs.states import State
from tests.api.conftest import Api
from tests.factories import make_job

pytestmark = pytest.mark.django_db

UNDOCUMENTED = {"schema", "docs"}


@pytest.fixture(scope="module")
def schema() -> dict:
    return Generator().get_schema(public=True)


def validator(schema: dict, name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": schema["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def test_the_command_finds_nothing_to_complain_about():
    out = StringIO()

    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", stdout=out)

    assert json.loads(out.getvalue())["openapi"].startswith("3.1")


def test_the_site_describes_itself_with_keys_components_and_streams():
    """The command uses the generator that the site's settings name."""
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=out)

    described = json.loads(out.getvalue())
    assert set(described["components"]["securitySchemes"]) == {"apiKey", "session"}
    assert "/api/jobs/{job_id}/events" in described["paths"]


@pytest.mark.parametrize(("accept", "begins"), [("application/json", b"{"), ("*/*", b"openapi:")])
def test_anybody_can_read_it_as_json_or_yaml(accept, begins):
    response = Api(None).get("schema", headers={"Accept": accept})

    assert response.status_code == 200
    assert response.content.startswith(begins)


def test_every_route_is_in_it(schema):
    routes = [str(p.pattern) for p in [*urls.urlpatterns, *live_urls.urlpatterns] if isinstance(p, URLPattern)]
    expected = {"/api/" + re.sub(r"<str:(\w+)>", r"{\1}", route) for route in routes if route not in UNDOCUMENTED}

    assert set(schema["paths"]) == expected
    assert {path.removeprefix("/api") for path in schema["paths"]} > set(STREAMS)


def test_every_operation_has_an_id_its_errors_and_its_keys(schema):
    operations = [operation for path in schema["paths"].values() for operation in path.values()]

    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert {"401", "403", "500", "503"} <= set(operation["responses"]), operation["operationId"]
        of_sessions = "key" in operation["operationId"]
        assert operation["security"] == ([] if of_sessions else [{"apiKey": []}]) + [{"session": []}]


def test_every_reference_leads_somewhere(schema):
    text = json.dumps(schema)
    found = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}

    assert found <= set(schema["components"]["schemas"])
    for component in schema["components"]["schemas"].values():
        Draft202012Validator.check_schema(component)


def test_it_knows_the_fields_and_the_filters_that_the_code_knows(schema):
    assert set(submission_schema.SUBMISSION["properties"]) == submissions.FIELDS
    filters = {parameter["name"] for parameter in FILTERS}
    code = inspect.getsource(listing.parse)
    assert {*listing._FILTERS, "client", "search", "created_after", "cursor", "limit"} == filters
    assert all(f'"{name}"' in code or name in listing._FILTERS for name in filters)


@pytest.mark.parametrize("name", submission_schema.SUBMISSION_EXAMPLES)
def test_the_examples_are_what_it_says(schema, name):
    example = submission_schema.SUBMISSION_EXAMPLES[name]["value"]

    validator(schema, "Submission").validate(json.loads(json.dumps(example)))
    submissions.parse(example)


def test_the_job_in_the_examples_is_a_job(schema):
    validator(schema, "Job").validate(json.loads(json.dumps(components.JOB_EXAMPLE)))


def test_bounds_are_those_of_the_settings_when_the_schema_is_made(settings):
    """Not those of when its modules were imported."""
    bounds = {
        "MESSAGES_MAX": 17, "TIMEOUT_MAX_S": 7_001, "TIMEOUT_S": 61, "MAX_ATTEMPTS_MAX": 19, "MAX_ATTEMPTS": 3,
        "RETRY_FOR_MAX_S": 8_001, "RETRY_FOR_S": 62, "METADATA_VALUE_CHARS_MAX": 23, "METADATA_KEY_CHARS_MAX": 29,
        "METADATA_KEYS_MAX": 5, "SHARE_MAX_S": 90_001,
    }  # fmt: skip
    named = {"WAIT_MAX_S": 37, "RETRY_JOIN_S": 41, "BULK_LINES_MAX": 4_321}
    for name, value in {**bounds, **named}.items():
        setattr(settings, f"LLMJOBS_{name}", value)

    schema = Generator().get_schema(public=True)

    components = schema["components"]["schemas"]
    found = set(numbers({name: components[name] for name in ("Submission", "ShareOrder")}))
    assert set(bounds.values()) <= found
    described = json.dumps(schema["paths"])
    assert all(words in described for words in ("past 37 they", "within 41 s", "More lines than 4,321"))


def numbers(value: object) -> Iterator[object]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    else:
        yield value


# What is answered is what is written.


@pytest.mark.parametrize("state", list(State))
def test_a_job_in_any_state_is_as_described(schema, api, acme, state):
    job = make_job(state, client=acme)

    validator(schema, "Job").validate(api.get(f"jobs/{job.public_id}").json())
    validator(schema, "Job").validate(api.post(f"jobs/{job.public_id}/cancel").json())
    validator(schema, "JobList").validate(api.get("jobs").json())
    validator(schema, "Stats").validate(api.get("stats").json())


def test_the_other_answers_are_as_described(schema, api, operator):
    validator(schema, "Job").validate(api.submit().json())
    validator(schema, "ModelList").validate(api.get("models").json())
    validator(schema, "Stats").validate(operator.get("stats").json())
    for response in (api.submit(model=None), api.get("nothing"), Api(None).get("jobs"), api.get("jobs/7")):
        validator(schema, "Error").validate(response.json())


def test_a_field_more_or_less_would_be_noticed(schema, api):
    """That the tests above can fail."""
    job = api.submit().json()

    assert not validator(schema, "Job").is_valid({**job, "surprise": 1})
    assert not validator(schema, "Job").is_valid({name: value for name, value in job.items() if name != "eta_s"})
