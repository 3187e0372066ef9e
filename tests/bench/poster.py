"""Posts the same request over and over, over connections that stay open. Prints {"took_s", "statuses"} as JSON.

python -m tests.bench.poster URL KEY COUNT CONNECTIONS < BODY

Sockets and bytes alone, so that it takes little of the processor that it shares with what it measures.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Poster:
    def __init__(self, url: str, key: str, body: bytes, count: int) -> None:
        self._address = urlsplit(url)
        head = f"POST {self._address.path} HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request, self._left = head.encode() + body, count
        self.statuses: Counter[str] = Counter()

    async def run(self) -> None:
        """Over one connection, until no post is left."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        while self._left > 0:
            self._left -= 1
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            if length is None:
                raise RuntimeError(f"expected a Content-Length, got {head!r}")
            await reader.readexactly(int(length[1]))
            self.statuses[head.split(b" ", 2)[1].decode()] += 1
        writer.close()


async def main(url: str, key: str, count: int, connections: int) -> None:
    poster = Poster(url, key, sys.stdin.buffer.read(), count)
    began_at = time.perf_counter()
    await asyncio.gather(*(poster.run() for _ in range(connections)))
    print(json.dumps({"took_s": time.perf_counter() - began_at, "statuses": poster.statuses}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
