"""A simulator and clients of it, for the tests of this folder: the real SDK, and a raw connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from openai import AsyncOpenAI

from llmjobs.providers.simulator.control import Behaviour
from llmjobs.providers.simulator.server import Simulator

KEY = "sk-test"
USER = "user"


@asynccontextmanager
async def simulated(**behaviour: Any) -> AsyncIterator[tuple[Simulator, AsyncOpenAI]]:
    async with Simulator(Behaviour(**behaviour)) as simulator, sdk(simulator) as client:
        yield simulator, client


def sdk(simulator: Simulator, *, api_key: str = KEY, timeout_s: float = 10) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=simulator.url, api_key=api_key, max_retries=0, timeout=timeout_s)


def says(text: str) -> list[Any]:
    return [{"role": USER, "content": text}]


def calls_of(simulator: Simulator) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = simulator.ledger.page()["calls"]
    return calls


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the host of `url`, closed at the end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(path: str, body: Any = None, *, method: str = "POST", lines: str = "") -> bytes:
    """One HTTP request with a JSON body (bytes are sent as they are)."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: simulator\r\nauthorization: Bearer {KEY}\r\n{lines}"
    return f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer, chunked or not. Raises IncompleteReadError if it is cut off."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    if headers.get("transfer-encoding") != "chunked":
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    return int(head[0].split(" ")[1]), headers, body


async def asked(url: str, path: str, body: Any = None, *, method: str = "POST") -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own; the body is read as JSON."""
    async with connected(url) as (reader, writer):
        writer.write(request(path, body, method=method))
        status, headers, raw = await answered(reader)
        return status, headers, json.loads(raw)
