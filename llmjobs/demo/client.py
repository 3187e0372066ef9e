"""The public HTTP API as a program outside uses it: a key, JSON, Server-Sent Events. Standard library only.

An `Api` keeps one connection for its requests, so each thread has one of its own; a stream opens another for itself.
"""

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60.0  # longer than the keep-alive comments of a stream are apart
RETRIES_MAX = 5  # of a connection that was cut off
PAUSE_S = 0.1  # before a stream is opened again


class ApiError(Exception):
    """An answer with an error's status; the message is the API's own. `retry_after_s`: when it says to come back."""

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        self.status = status
        self.retry_after_s = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
        self.code = None
        try:
            error = json.loads(body)["error"]
            message, self.code = error["message"], error.get("code")
        except (ValueError, KeyError, TypeError):
            message = body[:200].decode(errors="replace")
        super().__init__(f"HTTP {status}: {message}")


@dataclass(frozen=True, slots=True)
class Event:
    """One of a stream; `data` is its JSON. In the feed of all jobs that has `job`, `seq`, `type` and `data`."""

    id: str
    type: str
    data: dict[str, Any]


class Api:
    def __init__(self, url: str, key: str) -> None:
        self._address = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {key}"}
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> dict[str, Any]:
        """Raises ApiError, OSError, http.client.HTTPException."""
        return self._json("GET", path, None)

    def submit(self, job: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """POST /api/jobs, once there is room in the queue. Raises as `get` does.

        A key makes it safe to send again when the connection is cut off.
        """
        body, headers = json.dumps(job), {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        tries_left = RETRIES_MAX if headers else 0
        while True:
            try:
                return self._json("POST", "/api/jobs", body, headers)
            except ApiError as error:
                if error.code != "queue_full" or error.retry_after_s is None:
                    raise
                time.sleep(error.retry_after_s)
            except (OSError, http.client.HTTPException):
                if not tries_left:
                    raise
                tries_left -= 1

    def follow(self, path: str) -> Iterator[Event]:
        """The events of a stream until the server says that there is no more (204): the feed of all jobs never ends.

        A connection that ends before is opened again, and resumed; the feed repeats some events then. Raises as `get`.
        """
        last_id, tries_left = "", RETRIES_MAX
        while True:
            connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
            try:
                response = self._open(connection, path, last_id)
                if response.status == 204:
                    return
                for event in _events(response):
                    last_id, tries_left = event.id or last_id, RETRIES_MAX
                    yield event
            except (OSError, http.client.HTTPException):
                tries_left -= 1
                if not tries_left:
                    raise
            finally:
                connection.close()
            time.sleep(PAUSE_S)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, connection: http.client.HTTPConnection, path: str, last_id: str) -> http.client.HTTPResponse:
        resume = {"Last-Event-ID": last_id} if last_id else {}
        connection.request("GET", path, headers=self._headers | resume)
        response = connection.getresponse()
        if response.status not in (200, 204):
            raise ApiError(response.status, response.read())
        return response

    def _json(self, method: str, path: str, body: str | None, headers: dict[str, str] | None = None) -> dict[str, Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        given = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self._connection.request(method, path, body, self._headers | given | (headers or {}))
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.status >= 400:
            raise ApiError(response.status, content, response.headers.get("Retry-After"))
        answer: dict[str, Any] = json.loads(content)
        return answer


def _events(response: http.client.HTTPResponse) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for raw in response:
        name, _, value = raw.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
            fields = {}
