"""HTTP as clients of all kinds speak it: kept, pipelined, chunked, cut into pieces, or not HTTP at all."""

import json

import pytest

from tests.providers.simulating import KEY, answered, asked, calls_of, connected, request, says, simulated

PATH = "/v1/chat/completions"
HELLO = {"model": "m", "messages": says("[[tokens=3]]")}


async def test_a_connection_is_kept_for_the_next_call() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        for stream in (False, True, False):
            writer.write(request(PATH, {**HELLO, "stream": stream}))
            assert (await answered(reader))[0] == 200


async def test_pipelined_calls_are_answered_in_their_order() -> None:
    async with simulated(ttft_ms=1) as (simulator, _), connected(simulator.url) as (reader, writer):
        for nth in range(100):
            writer.write(request(PATH, {"model": f"m{nth}", "messages": says("[[tokens=1]]")}))
        models = [json.loads((await answered(reader))[2])["model"] for _ in range(100)]
        assert models == [f"m{nth}" for nth in range(100)]


async def test_a_request_may_come_byte_by_byte_and_in_chunks() -> None:
    raw = json.dumps(HELLO).encode()
    head = f"POST {PATH} HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (raw[:9], raw[9:])) + b"0\r\n\r\n"
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        for byte in head + chunks:
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await answered(reader))[0] == 200


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        head, body = request(PATH, HELLO, lines="expect: 100-continue\r\n").split(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answered(reader))[0] == 200


async def test_a_client_that_will_not_stay_is_answered_and_let_go() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(request(PATH, HELLO, lines="connection: close\r\n"))
        assert (await answered(reader))[0] == 200
        assert await reader.read() == b""


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"]
)
async def test_what_is_no_http_is_answered_with_400_and_closed(raw: bytes) -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(raw)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        assert calls_of(simulator) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", PATH, 405), ("POST", "/v1/completions", 404), ("GET", "/", 404), ("GET", "/v1/models/typo", 404)],
)
async def test_an_unknown_route_is_an_error_in_openais_shape(method: str, path: str, status: int) -> None:
    async with simulated() as (simulator, _):
        got, headers, answer = await asked(simulator.url, path, method=method)
        assert got == status
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert headers["x-request-id"].startswith("req_")


async def test_a_lone_surrogate_is_answered() -> None:
    """JSON can carry half of a character; a hash or an encoding must not trip over it."""
    async with simulated() as (simulator, _):
        body = b'{"model": "m\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}'
        for stream in (b"", b', "stream": true'):
            async with connected(simulator.url) as (reader, writer):
                writer.write(request(PATH, body[:-1] + stream + b"}"))
                assert (await answered(reader))[0] == 200
