"""The provider behind the sockets: from a request to its answer, with limits, faults and a ledger.

Owns accounts (one for each API key and model), the count of each job's calls for faults that end after some,
and the order in which a call is judged: key, body, faults that keep it out, limits, faults of the service,
the answer. Does not own a socket or a timer: `server.py` hands requests in, `playback.py` plays the answers.
Invariant: every call to one of the three endpoints has one entry in the ledger, and counts once in its limits.
"""

import hashlib
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from llmjobs.providers.simulator import chat, embeddings, responses
from llmjobs.providers.simulator.answers import EVENT_STREAM, Answer, error_answer, json_answer, spoiled
from llmjobs.providers.simulator.calls import CHAT, EMBEDDINGS, ENDPOINTS, Call, open_body, prompt_of, read_call
from llmjobs.providers.simulator.control import Behaviour
from llmjobs.providers.simulator.faults import (
    MIXED_FAULTS,
    NO_FAULT,
    SERVER_ERROR,
    STATUS_FAULTS,
    UNCOUNTED_FAULTS,
    ApiError,
    Fault,
    due,
    error_of,
    parse_orders,
    retry_after,
)
from llmjobs.providers.simulator.fields import BadRequest
from llmjobs.providers.simulator.generations import PREFIX, Generation, Generations, Later, Visit, first_view
from llmjobs.providers.simulator.ledger import Entry, Ledger
from llmjobs.providers.simulator.limits import Account, Refusal, duration
from llmjobs.providers.simulator.rehearsed import Rehearsed

ACCOUNTS_MAX = 10_000
JOBS_MAX = 100_000
MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "text-embedding-3-small", "text-embedding-3-large")
_MODELS_CREATED_AT = 1_744_000_000


class Request(NamedTuple):
    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]  # names in lower case
    body: bytes
    keep_alive: bool


def unix_clock() -> Callable[[], float]:
    """Seconds of the Unix clock that never go back, whatever is done to the system's time meanwhile."""
    offset_s = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset_s


@lru_cache(maxsize=1024)
def key_label(authorization: bytes) -> str:
    """What stands for an API key in the ledger: the start of its hash."""
    return "key-" + hashlib.sha256(authorization).hexdigest()[:12]


class Provider:
    def __init__(
        self,
        behaviour: Behaviour,
        ledger: Ledger,
        clock: Callable[[], float] | None = None,
        later: Later | None = None,
    ) -> None:
        """`later`: the `call_later` of the loop in which responses in the background end."""
        self.clock = clock or unix_clock()
        self.ledger = ledger
        self.generations = Generations(ledger, self.clock, later)
        self._run = os.urandom(10).hex()
        self._calls = 0
        self.behaviour = behaviour
        self.behave(behaviour, afresh=True)

    def behave(self, behaviour: Behaviour, *, afresh: bool = False) -> None:
        """Take on a behaviour. What it changes begins anew: accounts, dice, counts; `afresh` all of them."""
        old, self.behaviour = self.behaviour, behaviour
        if afresh or (old.rpm, old.tpm, old.window) != (behaviour.rpm, behaviour.tpm, behaviour.window):
            self._accounts: dict[tuple[str, str], Account] = {}
        if afresh or not behaviour.answers:
            self._rehearsed = Rehearsed()
        if afresh or old.seed != behaviour.seed:
            self._dice = random.Random(behaviour.seed)  # noqa: S311, dice
        if afresh or (old.fault, old.faults) != (behaviour.fault, behaviour.faults):
            self._jobs: dict[str, int] = {}

    def respond(self, request: Request) -> tuple[Answer, Entry | None]:
        """The answer, and its entry in the ledger where it is for who sends the answer to close that."""
        if request.path not in ENDPOINTS:
            return self._other(request), None
        if request.method != "POST":
            message = f"Not allowed to {request.method} on {request.path}. Did you mean to make a POST request?"
            return self._error(ApiError(405, message), self._identity(self._next_number())), None
        number = self._next_number()
        headers = request.headers
        authorization = headers.get(b"authorization")
        client_request_id = headers.get(b"x-client-request-id")
        entry = self.ledger.open_entry(
            at=self.clock(),
            key=key_label(authorization) if authorization else "",
            endpoint=request.path,
            request_id=f"req_{number}",
            client_request_id=client_request_id.decode("latin-1") if client_request_id else None,
        )
        answer = self._judge(request, entry, number)
        entry.status = answer.status
        self.ledger.began(entry)
        if answer.generation is not None and answer.status == 200:
            self.generations.begin(answer.generation, entry)
            return answer, None  # which is closed when the response ends, whoever watches
        return answer, entry

    def _judge(self, request: Request, entry: Entry, number: str) -> Answer:
        now, lines = entry.at, self._identity(number)
        if not entry.key:
            message = "You didn't provide an API key. You need to provide your API key in an Authorization header."
            return self._error(ApiError(401, message), lines, outcome="unauthorized")
        account = None
        try:
            body, entry.model = open_body(request.body)
            account = self._account(entry.key, entry.model)
            call = self._as_rehearsed(
                read_call(request.path, request.headers, body, entry.model), entry.client_request_id
            )
            entry.stream = call.is_stream
            fault = self._fault(call, entry.client_request_id)
            entry.fault = fault.name if fault else None
            if fault and fault.name in UNCOUNTED_FAULTS:
                return self._faulty(call, fault, entry, lines, number)
            refusal = account.admit(now, self._counted_tokens(call))
            lines += account.headers(now)
            account = None  # a call is counted once, whatever is still found wrong with it
            if refusal:
                return self._error(_limit_error(refusal, call.model), lines, outcome="rate_limit")
            return self._faulty(call, fault, entry, lines, number)
        except BadRequest as bad:
            if account:
                account.admit(now, 0)
                lines += account.headers(now)
            return self._error(bad.error, lines, outcome="invalid_request")

    def _faulty(self, call: Call, fault: Fault | None, entry: Entry, lines: str, number: str) -> Answer:
        """The answer, or what the fault makes of it; what will have to be paid for it goes into the entry."""
        if fault and fault.name in STATUS_FAULTS:
            error = error_of(fault, model=call.model, prompt_param=call.prompt_param, input_tokens=call.input_tokens)
            return self._error(error, lines, outcome=fault.name)
        if fault and fault.name == "stream_error" and not call.is_stream:
            return self._error(SERVER_ERROR, lines, outcome=fault.name)
        answer = self._answer(call, lines, number, created=int(entry.at))
        if call.in_background and answer.script is not None:
            began_at, script = entry.at, answer.script
            generation = Generation(call, number, script, began_at, answer.wait_s, answer.token_s, entry.key)
            answer = first_view(answer, generation)
        if fault:
            answer = spoiled(answer, fault)
        if answer.status == 200 or answer.outcome == "reset":
            entry.input_tokens = call.input_tokens
        return answer

    def _answer(self, call: Call, lines: str, number: str, created: int) -> Answer:
        behaviour = self.behaviour
        wait_s = (behaviour.ttft_ms if call.ttft_ms is None else call.ttft_ms) / 1000
        tokens_per_s = behaviour.tokens_per_s if call.tokens_per_s is None else call.tokens_per_s
        token_s = 1 / tokens_per_s if tokens_per_s else 0.0
        if call.is_stream or call.in_background:
            write_script = chat.script if call.endpoint == CHAT else responses.script
            script = write_script(call, number, created)
            script.is_stamped = call.choices[0].is_stamped
            lines += f"openai-processing-ms: {math.ceil(wait_s * 1000)}\r\n"
            return Answer(200, EVENT_STREAM, lines, script=script, wait_s=wait_s, token_s=token_s)
        if call.endpoint == EMBEDDINGS:
            body = embeddings.whole(call)
        else:
            wait_s += len(call.choices[0].tokens) * token_s  # choices are written side by side
            body = (chat.whole if call.endpoint == CHAT else responses.whole)(call, number, created)
        lines += f"openai-processing-ms: {math.ceil(wait_s * 1000)}\r\n"
        raw = body.encode("utf-8", "replace")
        return Answer(200, lines=lines, body=raw, body_tokens=call.output_tokens, wait_s=wait_s)

    def _as_rehearsed(self, call: Call, client_request_id: str | None) -> Call:
        lines = self.behaviour.answers
        if not lines or not call.choices:
            return call
        job = client_request_id and (client_request_id.rpartition(".")[0] or client_request_id)
        said = self._rehearsed.said(lines, prompt_of(call), job, max_tokens=call.max_tokens)
        return call if said is None else replace(call, choices=(said,) * len(call.choices))

    def _account(self, key: str, model: str) -> Account:
        account = self._accounts.get((key, model))
        if account is None:
            behaviour = self.behaviour
            account = Account(behaviour.window, rpm=behaviour.rpm, tpm=behaviour.tpm)
            if len(self._accounts) >= ACCOUNTS_MAX:
                del self._accounts[next(iter(self._accounts))]
            self._accounts[key, model] = account
        return account

    def _counted_tokens(self, call: Call) -> int:
        if self.behaviour.count_max_tokens and call.max_tokens is not None:
            return call.input_tokens + call.max_tokens * max(1, len(call.choices))
        return call.input_tokens + call.output_tokens

    def _fault(self, call: Call, client_request_id: str | None) -> Fault | None:
        """The call's own order, else what is on for all: a share of the calls, or every call."""
        behaviour = self.behaviour
        if call.orders:
            return self._due(call.orders, call, client_request_id)
        if behaviour.faults:
            roll = self._dice.random()
            for order, share in behaviour.faults.items():
                if roll < share:
                    return self._due(parse_orders(order), call, client_request_id)
                roll -= share
        if behaviour.fail_rate is not None and self._dice.random() >= behaviour.fail_rate:
            return None
        if behaviour.fault:
            return self._due(behaviour.orders(), call, client_request_id)
        return Fault(self._dice.choice(MIXED_FAULTS)) if behaviour.fail_rate is not None else None

    def _due(self, orders: tuple[Fault, ...], call: Call, client_request_id: str | None) -> Fault | None:
        """The orders' fault for this call; orders for some calls count those of its job, or of its prompt."""
        if len(orders) == 1 and orders[0].times is None:
            return orders[0] if orders[0].name != NO_FAULT else None
        job = client_request_id.rpartition(".")[0] or client_request_id if client_request_id else call.seed.hex()
        nth = self._jobs.pop(job, 0)
        if len(self._jobs) >= JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[job] = nth + 1
        return due(orders, nth)

    def _other(self, request: Request) -> Answer:
        lines = self._identity(self._next_number())
        models = [
            {"id": name, "object": "model", "created": _MODELS_CREATED_AT, "owned_by": "simulator"} for name in MODELS
        ]
        if request.method == "GET" and request.path == "/v1/models":
            return json_answer(200, {"object": "list", "data": models}, lines=lines)
        if request.method == "GET" and request.path.startswith("/v1/models/"):
            name = request.path.removeprefix("/v1/models/")
            found: list[dict[str, Any]] = [model for model in models if model["id"] == name]
            if found:
                return json_answer(200, found[0], lines=lines)
            fault = Fault("not_found")
            return self._error(error_of(fault, model=name, prompt_param="model", input_tokens=0), lines)
        if request.path.startswith(PREFIX):
            authorization = request.headers.get(b"authorization")
            key = key_label(authorization) if authorization else ""
            request_id = request.headers.get(b"x-client-request-id", b"").decode("latin-1") or None
            visit = Visit(request.method, request.path, request.query, key, request_id)
            return self.generations.respond(visit, lines=lines, kept_s=self.behaviour.responses_kept_s)
        return self._error(ApiError(404, f"Invalid URL ({request.method} {request.path})"), lines)

    def _error(self, error: ApiError, lines: str, *, outcome: str = "invalid_request") -> Answer:
        return error_answer(error, lines=f"{lines}openai-processing-ms: 1\r\n", outcome=outcome)

    def _next_number(self) -> str:
        """32 hex digits that no other call of any simulator has."""
        self._calls += 1
        return f"{self._run}{self._calls:012x}"

    def _identity(self, number: str) -> str:
        return f"x-request-id: req_{number}\r\nopenai-version: 2020-10-01\r\n"


def _limit_error(refusal: Refusal, model: str) -> ApiError:
    unit = "requests per min (RPM)" if refusal.dimension == "requests" else "tokens per min (TPM)"
    where = f"for {model} in organization org-simulated on {unit}: Limit {refusal.limit}"
    if math.isinf(refusal.wait_s):
        message = f"Request too large {where}, Requested {refusal.requested}. The tokens must be reduced."
        headers = {"x-should-retry": "false"}
    else:
        message = (
            f"Rate limit reached {where}, Used {refusal.used}, Requested {refusal.requested}. "
            f"Please try again in {duration(refusal.wait_s)}."
        )
        headers = retry_after(refusal.wait_s)
    return ApiError(429, message, refusal.dimension, "rate_limit_exceeded", headers=headers)
