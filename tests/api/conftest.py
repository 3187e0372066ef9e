"""A client of the API, as a program would hold one: a key, and JSON both ways."""

import json
from typing import Any

import pytest
from django.test import Client as HttpClient

from llmjobs.models import Client, Model
from tests.factories import make_client, make_key, make_model

MESSAGES = [{"role": "user", "content": "Say hello."}]


class Api:
    """`key=None`: without credentials. Paths are under /api/. A crash of the server is an answer, not an exception."""

    def __init__(self, key: str | None, **defaults: Any) -> None:
        self.http = HttpClient(raise_request_exception=False, **defaults)
        self.headers = {"Authorization": f"Bearer {key}"} if key is not None else {}

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        return self.http.get(f"/api/{path}", headers={**self.headers, **(headers or {})})

    def delete(self, path: str) -> Any:
        return self.http.delete(f"/api/{path}", headers=self.headers)

    def post(self, path: str, data: Any = None, headers: dict[str, str] | None = None) -> Any:
        body = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
        return self.http.post(
            f"/api/{path}", body, content_type="application/json", headers={**self.headers, **(headers or {})}
        )

    def submit(self, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        """POST /api/jobs with a chat for the model "gpt", but for what `fields` say; None leaves a field out."""
        data = {"model": "gpt", "messages": MESSAGES, **fields}
        return self.post("jobs", {name: value for name, value in data.items() if value is not None}, headers)


def assert_error(response: Any, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The error shape of the contract, and nothing else; returns the error."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "type", "param"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param), body
    assert body["error"]["message"]
    return body["error"]


@pytest.fixture
def model(db) -> Model:
    return make_model("gpt")


@pytest.fixture
def acme(db) -> Client:
    return make_client("acme")


@pytest.fixture
def api(acme, model) -> Api:
    """acme's key, with the scopes that a key has by default."""
    return Api(make_key(acme))


@pytest.fixture
def stranger(db) -> Api:
    """The key of another client."""
    return Api(make_key(make_client("stranger")))


@pytest.fixture
def operator(db) -> Api:
    return Api(make_key(make_client("operations"), scopes=["operator"]))
