"""The site behind nginx, with the file that people copy: pages, streams and sockets, and who is cut off."""

import contextlib
import json
import os
import re
import socket
import ssl

import httpx2
import pytest
from websockets.sync.client import connect as connect_websocket
from websockets.typing import Subprotocol

from llmjobs.conf import KNOBS
from tests.deployment.front import NAME, SHIPPED, Front, nginx, nginx_binary
from tests.factories import make_key
from tests.live_process import web_server
from tests.simulated import KEY
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)
needs_nginx = pytest.mark.skipif(
    nginx_binary() is None and not os.environ.get("REQUIRE_SERVERS"), reason="nginx is not installed here"
)
SITE = {
    "HTTPS_ONLY": "true",
    "TRUST_X_FORWARDED_PROTO": "true",
    "ALLOWED_HOSTS": NAME,
    "LLMJOBS_METRICS_OPEN": "true",
}
WORDS = "Count. [[tokens=4000]] [[tokens_per_s=40]]"  # until it is cancelled


@pytest.fixture
def front(transactional_db):
    with web_server(**SITE) as web, nginx(web.port, client_header_timeout="1s") as running:
        yield running
        assert "Traceback" not in web.output(), web.output()[-4000:]


def http(front: Front, key: str | None = None, **options) -> httpx2.Client:
    headers = {"Host": NAME} | ({"Authorization": f"Bearer {key}"} if key else {})
    return httpx2.Client(
        base_url=f"https://127.0.0.1:{front.port}", headers=headers, verify=front.tls, timeout=30, trust_env=False,
        **options,
    )  # fmt: skip


@needs_nginx
def test_a_job_streams_through_it_by_both_roads_and_nothing_secret_is_logged(front, client, pool):
    key = make_key(client)
    body = {"model": "model", "messages": [{"role": "user", "content": WORDS}]}
    with worker_process(**KEY), http(front, key) as browser:
        posted = browser.post("/api/jobs", json=body)
        assert posted.status_code == 202, posted.text
        job = posted.json()
        came = []
        with browser.stream("GET", f"/api/jobs/{job['id']}/events") as stream:
            for line in stream.iter_lines():
                if not line.startswith("event: "):
                    continue
                came.append(line[7:])
                if came.count("delta") == 5 and came[-1] == "delta":  # they come as they are said, not all at the end
                    assert browser.post(f"/api/jobs/{job['id']}/cancel").is_success
        offered = [Subprotocol("llmjobs"), Subprotocol(key)]
        way = socket.create_connection(("127.0.0.1", front.port))
        url = f"wss://{NAME}/ws/jobs/{job['id']}/"
        with connect_websocket(url, sock=way, ssl=front.tls, subprotocols=offered, proxy=None) as opened:
            frames = [json.loads(frame)["type"] for frame in opened]
        for secret in ("/shared/s3cret-token/", "/login/?next=s3cret"):
            browser.get(secret)

    assert came[-1] == "done"
    assert frames[-1] == "done" and "delta" in frames
    assert "POST /api/jobs" in front.access_log and "s3cret" not in front.access_log
    assert key not in front.access_log


@needs_nginx
def test_who_it_sends_on_answers_itself_or_cuts_off(front):
    """HTTP is sent on to HTTPS; a client's own word on the protocol does not count; /metrics stays inside; a body of
    any size is not taken in; who sends a request line byte by byte is cut off.
    """
    with http(front) as browser:
        page = browser.get("/login/")
        assert page.status_code == 200 and "Secure" in page.headers["set-cookie"], page.text
        assert browser.get("/login/", headers={"X-Forwarded-Proto": "http"}).status_code == 200
        assert browser.get("/readyz").status_code == 200
        assert browser.get("/metrics").status_code == 404
        assert browser.post("/api/jobs", content=b"x" * (6 << 20)).status_code == 413
    plain = httpx2.get(f"http://127.0.0.1:{front.plain_port}/api/jobs", headers={"Host": NAME}, trust_env=False)
    assert (plain.status_code, plain.headers["location"]) == (301, f"https://{NAME}/api/jobs")

    with front.connect() as slow:
        slow.sendall(b"GET / HT")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert slow.recv(1000) == b"", "long before this end gives up"


def test_its_bounds_are_above_those_of_the_site():
    """What is too large is answered by the site, in the API's shape; nothing that the site allows is cut off."""
    text, knobs = SHIPPED.read_text(), {knob.name: knob.default for knob in KNOBS}
    page, bulk = (int(size) << 20 for size in re.findall(r"client_max_body_size (\d+)m;", text))
    assert knobs["body_max_bytes"] < page < 2 * knobs["body_max_bytes"]
    assert knobs["bulk_max_bytes"] < bulk < 2 * knobs["bulk_max_bytes"]
    reads = [int(seconds) for seconds in re.findall(r"proxy_read_timeout\s+(\d+)s;", text)]
    assert min(reads) > knobs["wait_max_s"] > knobs["sse_keepalive_s"]
