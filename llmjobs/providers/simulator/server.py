"""The simulator as a server: its ports, its control routes, its start and its stop.

    async with Simulator(Behaviour(rpm=60)) as simulator:
        AsyncOpenAI(base_url=simulator.url, api_key="any", max_retries=0)

Owns two listeners on loopback: the provider's port, which can be made to refuse connections, and a control
port, which can't; both serve every route. Does not judge a call (`provider.py`) nor play an answer
(`wire.py`).

    GET  /_control     the behaviour, and the two urls
    POST /_control     changes some of it: control.py names the fields
    GET  /_ledger      every call, or with `?after=N&limit=M` some of them: ledger.py names the fields; `resumes`:
                       who asked for a response in the background again, or cancelled it

Invariant: what `POST /_control` changes holds from before its answer is sent.
"""

import asyncio
import ipaddress
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from llmjobs.providers.simulator.answers import Answer, error_answer, json_answer
from llmjobs.providers.simulator.control import DEFAULT, BadControl, Behaviour, changed
from llmjobs.providers.simulator.faults import ApiError
from llmjobs.providers.simulator.ledger import SIMULATOR_STOPPED, Entry, Ledger
from llmjobs.providers.simulator.listener import Listener
from llmjobs.providers.simulator.playback import Pacer, Stage
from llmjobs.providers.simulator.provider import Provider, Request
from llmjobs.providers.simulator.wire import Connection


class Simulator:
    def __init__(
        self,
        behaviour: Behaviour = DEFAULT,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ledger_path: Path | None = None,
    ) -> None:
        """Port 0: any free one. Raises ValueError for a host that other machines can reach."""
        if not _is_loopback(host):
            raise ValueError(
                f"host: expected a loopback address, got {host!r}: whoever reaches the simulator controls it"
            )
        self._initial = behaviour
        self._ledger_path = ledger_path
        self._address = ("127.0.0.1" if host == "localhost" else host, port)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The provider's base URL, as an OpenAI client wants it."""
        return f"http://{self._provider_port.netloc}/v1"

    @property
    def control_url(self) -> str:
        """Where /_control and /_ledger answer even while the provider refuses connections."""
        return f"http://{self._control_port.netloc}"

    async def start(self) -> None:
        """Raises OSError if the port is taken, or the ledger's file can't be written."""
        self._loop = asyncio.get_running_loop()
        self.ledger = Ledger(self._ledger_path)
        self._provider = Provider(self._initial, self.ledger, later=self._loop.call_later)
        self._stage = Stage(self._loop, Pacer(self._loop), self.ledger, self._provider.clock)
        self._connections: dict[str, set[Connection]] = {"provider": set(), "control": set()}
        self._resume: asyncio.TimerHandle | None = None
        self._provider_port = Listener(self._address, partial(self._connected, "provider"))
        self._control_port = Listener((self._provider_port.host, 0), partial(self._connected, "control"))
        self._refuse(self._initial.refuse)

    async def stop(self) -> None:
        """Drop every connection; calls that still run are closed in the ledger as `simulator_stopped`."""
        if self._resume:
            self._resume.cancel()
        self._provider_port.close()
        self._control_port.close()
        for group in self._connections.values():
            for connection in list(group):
                connection.stop(SIMULATOR_STOPPED)
        self._stage.pacer.stop()
        self._provider.generations.stop(SIMULATOR_STOPPED)
        await asyncio.sleep(0)  # the loop tells the connections that they are lost
        self.ledger.close()

    def state(self) -> dict[str, Any]:
        return {**self._provider.behaviour.as_dict(), "url": self.url, "control_url": self.control_url}

    def change(self, wanted: dict[str, Any]) -> None:
        """What `POST /_control` does. Raises BadControl, and changes nothing then."""
        behaviour = changed(self._provider.behaviour, wanted, initial=self._initial)
        if wanted.get("reset_ledger"):
            self.ledger.clear()
            self._provider.generations.clear_resumes()
        self._provider.behave(behaviour, afresh=bool(wanted.get("reset")))
        if "refuse" in wanted or wanted.get("reset"):
            self._refuse(behaviour.refuse)

    def _respond(self, request: Request) -> tuple[Answer, Entry | None]:
        match request.method, request.path:
            case "GET", "/_control":
                return json_answer(200, self.state()), None
            case "POST", "/_control":
                return self._changed(request), None
            case "GET", "/_ledger":
                return self._ledger_page(request), None
        return self._provider.respond(request)

    def _changed(self, request: Request) -> Answer:
        try:
            wanted = json.loads(request.body or b"{}")
            if not isinstance(wanted, dict):
                raise BadControl("body", "a JSON object", wanted)
            self.change(wanted)
        except (ValueError, RecursionError):
            return _bad_control("body: expected a JSON object, got something else", "body")
        except BadControl as bad:
            return _bad_control(str(bad), bad.field)
        return json_answer(200, self.state())

    def _ledger_page(self, request: Request) -> Answer:
        query = parse_qs(request.query)
        numbers: dict[str, int] = {}
        for name in ("after", "limit"):
            if name in query:
                if not query[name][0].isdecimal():
                    return _bad_control(f"{name}: expected a whole number from 0, got {query[name][0]!r}", name)
                numbers[name] = int(query[name][0])
        return json_answer(200, self.ledger.page(**numbers) | {"resumes": self._provider.generations.resumes()})

    def _refuse(self, refuse: bool | float) -> None:
        if self._resume:
            self._resume.cancel()
            self._resume = None
        if not refuse:
            self._provider_port.open()
            return
        self._provider_port.shut()
        # Later, so that the connection on which this was asked for still gets its answer.
        self._loop.call_soon(self._wind_down)
        if not isinstance(refuse, bool):
            self._resume = self._loop.call_later(refuse, self._listen_again)

    def _wind_down(self) -> None:
        for connection in list(self._connections["provider"]):
            connection.wind_down()

    def _listen_again(self) -> None:
        self._provider.behave(replace(self._provider.behaviour, refuse=False))
        self._provider_port.open()

    def _connected(self, group: str) -> Connection:
        connection = Connection(self._respond, self._stage, gone=self._connections[group].discard)
        self._connections[group].add(connection)
        return connection


def _bad_control(message: str, field: str) -> Answer:
    error = ApiError(400, message, code="invalid_control", param=field)
    return error_answer(error, lines="", outcome="invalid_request")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
