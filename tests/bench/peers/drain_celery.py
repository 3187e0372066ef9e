"""Celery over Redis: send no-op tasks, then drain them with one worker. Prints {"submit_s", "drain_s"} as JSON.

drain_celery.py COUNT PROCESSES: starts a redis-server of its own, on a free port, and ends it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from celery import Celery

PORT = os.environ.get("PEER_REDIS_PORT", "")
POLL_S = 0.005
app = Celery("drain_celery", broker=f"redis://127.0.0.1:{PORT}/0", backend=f"redis://127.0.0.1:{PORT}/0")
app.conf.worker_prefetch_multiplier = 64


@app.task(name="noop")
def noop(number: int, text: str) -> int:
    redis.Redis(port=int(PORT)).incr("done")
    return number


def main(count: int, processes: int) -> None:
    server = redis.Redis(port=int(PORT))
    while True:
        try:
            server.ping()
            break
        except redis.ConnectionError:
            time.sleep(POLL_S)
    began_at = time.perf_counter()
    for number in range(count):
        noop.delay(number, "hello " * 40)
    submitted_at = time.perf_counter()
    options = ["worker", "-P", "prefork", "-c", str(processes), "-l", "ERROR", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "drain_celery", *options]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (first := int(server.get("done") or 0)):
            time.sleep(POLL_S)
        first_at = time.perf_counter()
        while int(server.get("done") or 0) < count:
            time.sleep(POLL_S)
        drain_s = (time.perf_counter() - first_at) * count / (count - first)
    finally:
        worker.terminate()
        worker.wait()
    print(json.dumps({"submit_s": submitted_at - began_at, "drain_s": drain_s}))


def with_server(arguments: list[str]) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(["redis-server", "--port", port, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            environment = {**os.environ, "PEER_REDIS_PORT": port}
            return subprocess.run([sys.executable, __file__, *arguments], env=environment, check=False).returncode
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    if PORT:
        main(int(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(with_server(sys.argv[1:]))
