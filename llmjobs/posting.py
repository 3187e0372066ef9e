"""One POST to a receiver that somebody else named: to a public address, once, within a time, with nothing followed.

Owns the way to a URL that is not trusted. Does not own what is sent, nor what follows: an Answer is a value.

Invariant: the address that is connected to is one that was checked. The name is resolved here, all its addresses are
looked at, and the connection goes to one of them as a number; the name goes along for Host, SNI and the certificate. So
a name that resolves to something else a moment later (DNS rebinding) leads nowhere. No proxy is asked, which would
resolve the name again; no redirect is followed, no cookie kept, no connection used twice.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from llmjobs import __version__
from llmjobs.addresses import refusal
from llmjobs.conf import conf
from llmjobs.providers.headers import retry_after_s

T = TypeVar("T")

USER_AGENT = f"llmjobs/{__version__}"
ADDRESSES_TRIED = 4  # of one name, when the ones before can't be connected to
CONNECT_TIMEOUT_S = 5.0  # of one address
SAID_BYTES_MAX = 4096  # read of an answer that is no 2xx, for operators; of a 2xx nothing is
SAID_CHARS_MAX = 200
GONE = 410
ASK_TO_WAIT = (429, 503)
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; for http, which does not ask it


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a POST. `error`: why it does not count as taken, in words that may be logged; None: it was taken.

    `said`: the receiver's own words, which may be anybody's. `wait_s`: it asked for so much time. `is_final`: it will
    never be taken.
    """

    status: int | None = None
    error: str | None = None
    said: str = ""
    wait_s: float | None = None
    is_final: bool = False


class _Refused(Exception):
    """The receiver may not be called, or can't be found. The message may be logged."""


class Poster:
    """One a worker. Knows no secrets: signatures come as headers."""

    def __init__(self) -> None:
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            return Answer(error="expected a URL that HTTP knows", is_final=True)
        if parsed.scheme not in ("http", "https") or not parsed.raw_host:
            return Answer(error="expected a URL of http or https, with a host", is_final=True)
        try:
            async with asyncio.timeout(conf.webhook_timeout_s):
                return await self._post(parsed, body, headers)
        except TimeoutError:
            return Answer(error=f"expected an answer within {conf.webhook_timeout_s:g} s, got none")
        except _Refused as refused:
            return Answer(error=str(refused))
        except (httpx2.HTTPError, OSError) as error:
            return Answer(error=_in_words(error))

    async def _post(self, url: httpx2.URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """To the first of its addresses that can be connected to. A name with one that may not be called is refused."""
        name, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        addresses = await _resolved(name, port)
        if not conf.webhook_allow_private:
            for address in addresses:
                if what := refusal(address):
                    raise _Refused(f"expected a public address, got {address} ({what})")
        *others, last = addresses[:ADDRESSES_TRIED]
        for address in others:
            try:
                return await self._post_to(address, url, body, headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                pass  # nothing was sent
        return await self._post_to(last, url, body, headers)

    async def _post_to(self, address: str, url: httpx2.URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        tls = await self._context() if url.scheme == "https" else NO_TLS
        transport = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, retries=0)
        async with httpx2.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
        ) as client:
            # A client of its own: cookies and connections of one receiver are no other's.
            request = client.build_request(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers={**headers, "host": url.netloc.decode("ascii"), "user-agent": USER_AGENT, "accept": "*/*"},
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            response = await client.send(request, stream=True)
            try:
                return await _answer(response)
            finally:
                await response.aclose()

    async def _context(self) -> ssl.SSLContext:
        """Made once, at the first use, and not in the loop: it reads all certificates there are."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx2.create_ssl_context)
        return self._tls


async def _answer(response: httpx2.Response) -> Answer:
    status = response.status_code
    if response.is_success:
        return Answer(status)
    error = f"HTTP {status}"
    if 300 <= status < 400:
        error += ": a redirect, which is not followed"
    wait_s = retry_after_s(response.headers) if status in ASK_TO_WAIT else None
    return Answer(status, error, await _said(response), wait_s, is_final=status == GONE)


async def _said(response: httpx2.Response) -> str:
    """The beginning of the answer's body, in a line. As it came: what is compressed may be of any size."""
    said = b""
    try:
        async with asyncio.timeout(1):
            async for chunk in response.aiter_raw():
                said += chunk[: SAID_BYTES_MAX - len(said)]
                if len(said) >= SAID_BYTES_MAX:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass  # the status says enough
    text = "".join(char if char.isprintable() else " " for char in said.decode("utf-8", "replace"))
    return " ".join(text.split())[:SAID_CHARS_MAX]


async def _resolved(name: str, port: int) -> list[str]:
    """The addresses of `name`, in the order in which they should be tried. Raises _Refused."""
    try:
        found = await in_daemon_thread(lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise _Refused(f"expected a name that can be resolved: {reason}") from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses:
        raise _Refused("expected a name that can be resolved, got no address")
    return addresses


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """In a thread of its own, for which nobody waits at the end of the process.

    A name server that says nothing keeps it for half a minute: in the loop's executor it would keep others from
    resolving their providers' names.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="llmjobs-resolve", daemon=True).start()
    return await future


def _in_words(error: Exception) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return "expected a connection, got none in time"
    said = " ".join(str(error).split())[:SAID_CHARS_MAX]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
