"""One POST to a receiver that is not trusted: where it may go, how long, how much is read, what is said of it."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmjobs import posting
from llmjobs.posting import Answer, Poster
from tests.webhook_receiver import WebhookReceiver, webhook_receiver

BODY = b'{"said": 1}'


@pytest.fixture(scope="module")
def loopback() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(loopback: WebhookReceiver, settings: Any) -> WebhookReceiver:
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = True
    loopback.heard.clear()
    return loopback


async def post(url: str, poster: Poster | None = None) -> Answer:
    return await (poster or Poster()).post(url, BODY, {"webhook-id": "msg_1"})


async def test_a_2xx_counts_as_taken_and_nothing_is_left_out(receiver):
    assert await post(receiver.url("/ok?token=1")) == Answer(200)
    [heard] = receiver.heard
    assert (heard.path, heard.body, heard.headers["webhook-id"]) == ("/ok?token=1", BODY, "msg_1")
    assert heard.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert heard.headers["user-agent"].startswith("llmjobs/")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/status/500", Answer(500, "HTTP 500", "so so")),
        ("/status/404", Answer(404, "HTTP 404", "so so")),
        ("/status/410", Answer(410, "HTTP 410", "so so", is_final=True)),
        ("/moved", Answer(302, "HTTP 302: a redirect, which is not followed")),
        ("/later", Answer(429, "HTTP 429", wait_s=30)),
        ("/status/201", Answer(201)),
    ],
)
async def test_what_is_no_2xx_is_a_failure_that_says_so(receiver, path, answer):
    assert await post(receiver.url(path)) == answer
    assert [heard.path for heard in receiver.heard] == [path], "once, and never elsewhere"


@pytest.mark.parametrize("path", ["/hang", "/drip"])
async def test_an_answer_that_does_not_come_to_an_end_is_not_waited_for(receiver, settings, path):
    settings.LLMJOBS_WEBHOOK_TIMEOUT_S = 0.3
    assert await post(receiver.url(path)) == Answer(error="expected an answer within 0.3 s, got none")


async def test_of_a_huge_answer_little_is_read(receiver):
    answer = await post(receiver.url("/huge"))
    assert (answer.status, answer.error) == (500, "HTTP 500")
    assert set(answer.said) == {"x"} and len(answer.said) <= 200
    assert receiver.sent_bytes < 16 * 1024 * 1024, "what fits into the sockets' buffers"


async def test_receivers_get_no_cookies_back_and_no_connection_twice(receiver):
    poster = Poster()
    for _ in range(2):
        assert await post(receiver.url(), poster) == Answer(200)
    assert all("cookie" not in heard.headers for heard in receiver.heard)


async def test_proxies_of_the_environment_are_not_asked(receiver, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await post(receiver.url()) == Answer(200)


async def test_nobody_listens_and_no_such_name_are_words_too(receiver):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = await post(f"http://127.0.0.1:{port}/")
    assert refused.error and refused.error.startswith("ConnectError") and not refused.is_final
    unknown = await post("http://no.such.name.invalid/")
    assert unknown.error and unknown.error.startswith("expected a name that can be resolved: ")
    assert not unknown.is_final, "names come back"


@pytest.mark.parametrize("url", ["ftp://example.org/", "http://", "http://[::1", "nonsense", "http://a b/", "//x"])
async def test_what_is_no_url_is_never_tried_again(receiver, url):
    answer = await post(url)
    assert answer.error and answer.error.startswith("expected a ")
    assert answer.is_final or "resolved" in answer.error


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]", "LOCALHOST"]
)
async def test_a_private_address_is_not_connected_to_however_it_is_written(receiver, settings, host):
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = False
    answer = await post(receiver.url(host=host))
    assert answer.error and answer.error.startswith("expected a public address, got ")
    assert receiver.heard == []


@pytest.fixture
def name_server(monkeypatch: Any) -> list[str]:
    """`hooks.example` resolves to the receiver at the first question, and to nothing good later; who asked what."""
    asked: list[str] = []

    def resolved(name: str, port: int, **kwargs: Any) -> list[Any]:
        asked.append(name)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(posting, "refusal", lambda address: None if address == "127.0.0.1" else "private")
    return asked


async def test_a_name_that_resolves_to_something_else_a_moment_later_leads_nowhere(receiver, settings, name_server):
    """DNS rebinding: the address that was checked is the one that is connected to."""
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = False
    assert await post(receiver.url(host="hooks.example")) == Answer(200)
    assert name_server == ["hooks.example"]
    assert receiver.heard[0].headers["host"] == f"hooks.example:{receiver.port}"
    again = await post(receiver.url(host="hooks.example"))
    assert again.error == "expected a public address, got 127.0.0.2 (private)" and len(receiver.heard) == 1


async def test_one_private_address_of_a_name_refuses_all_of_them(receiver, settings, monkeypatch):
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = False
    found = [(socket.AF_INET, 1, 6, "", (address, 80)) for address in (*["8.8.8.8"] * 9, "8.8.4.4", "10.0.0.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    answer = await post("http://hooks.example/")
    assert answer.error == "expected a public address, got 10.0.0.7 (private)"


async def test_an_address_that_refuses_is_followed_by_the_next(receiver, monkeypatch):
    found = [(socket.AF_INET, 1, 6, "", (address, 80)) for address in ("127.0.0.9", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert await post(receiver.url(host="hooks.example")) == Answer(200)


async def test_the_certificate_is_the_names_though_the_address_is_connected_to(settings, tmp_path, name_server):
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = True
    certificate, key = made_certificate(tmp_path, "hooks.example")
    names: list[str | None] = []
    with tls_receiver(certificate, key, names) as port:
        trusting = Poster()
        trusting._tls = ssl.create_default_context(cafile=str(certificate))
        assert await post(f"https://hooks.example:{port}/", trusting) == Answer(200)
        name_server.clear()
        other = await post(f"https://other.example:{port}/", trusting)
        assert other.error and "other.example" in other.error
        name_server.clear()
        stranger = await post(f"https://hooks.example:{port}/")
        assert stranger.error and "CERTIFICATE_VERIFY_FAILED" in stranger.error
    assert names[:2] == ["hooks.example", "other.example"]


def made_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@contextmanager
def tls_receiver(certificate: Path, key: Path, names: list[str | None]) -> Iterator[int]:
    """A receiver with a certificate: answers 200, and keeps the names that it was asked for (SNI). Yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda sock, name, context: names.append(name)
    server = _QuietServer(("127.0.0.1", 0), _Ok)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _QuietServer(HTTPServer):
    def handle_error(self, *args: Any) -> None:
        pass


class _Ok(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass
