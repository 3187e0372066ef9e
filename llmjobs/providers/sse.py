"""Server-Sent Events as providers send them, cut out of raw bytes. An object a token, as the SDK makes, costs four
times this.

Owns framing only: what an event means is the assembler's business.
"""

from collections.abc import Iterator


class Splitter:
    """Feed it bytes as they come; it gives the data of each event that is complete.

    Lines may end in LF, CRLF or CR; `data:` lines of one event are joined by LF; comments and other fields are dropped.
    Raises ValueError when an event grows past `bytes_max`.
    """

    def __init__(self, bytes_max: int) -> None:
        self._rest = b""
        self._bytes_max = bytes_max

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        buffer = self._rest + chunk
        if b"\r" in buffer:
            tail = b"\r" if buffer.endswith(b"\r") else b""  # it may be half of a CRLF
            buffer = buffer[: len(buffer) - len(tail)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + tail
        *events, self._rest = buffer.split(b"\n\n")
        if len(self._rest) > self._bytes_max:
            raise ValueError(f"expected events of at most {self._bytes_max} bytes")
        for event in events:
            if (data := _data(event)) is not None:
                yield data

    def close(self) -> Iterator[bytes]:
        """What stands at the end of the stream without its blank line: some providers leave that out."""
        if (data := _data(self._rest.replace(b"\r", b"\n"))) is not None:
            yield data
        self._rest = b""


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
