"""The receiver of a chaos run hears only what is signed, and behaves as badly as it is asked to."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time

import httpx2
import pytest

from tests.chaos.receiver import Receiver
from tests.live_process import ROOT

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
BODY = {"id": "msg_1", "object": "event", "type": "job.completed", "data": {"id": "job-1", "status": "completed"}}


@pytest.fixture
def receiver():
    one = Receiver([SECRET])
    yield one
    one.close()


def deliver(receiver, *, key=b"k" * 32, at=None, body=BODY):
    stamp, content = str(int(time.time() if at is None else at)), json.dumps(body).encode()
    digest = hmac.digest(key, f"msg_1.{stamp}.".encode() + content, hashlib.sha256)
    headers = {
        "webhook-id": "msg_1", "webhook-timestamp": stamp,
        "webhook-signature": "v1,AAAA v1," + base64.b64encode(digest).decode(),
    }  # fmt: skip
    return httpx2.post(receiver.url, content=content, headers=headers, timeout=5, trust_env=False)


def test_what_is_signed_is_heard_under_its_id(receiver):
    assert deliver(receiver).status_code == 204
    assert receiver.heard.jobs == {"msg_1": "job-1"} and receiver.heard.wrong == []


def test_a_wrong_signature_an_old_timestamp_and_another_type_are_noted(receiver):
    deliver(receiver, key=b"x" * 32)
    deliver(receiver, at=time.time() - 3_600)
    deliver(receiver, body=BODY | {"type": "job.failed"})

    assert len(receiver.heard.wrong) == 3


def test_whoever_follows_a_redirect_falls_into_the_trap(receiver):
    httpx2.post(receiver.url.replace("/hook", "/trap"), timeout=5, trust_env=False)

    assert receiver.heard.trapped == 1 and not receiver.heard.ids


def test_one_that_has_left_refuses_and_comes_back_where_it_was(receiver):
    receiver.leave()
    with pytest.raises(httpx2.ConnectError):
        deliver(receiver)
    receiver.listen()
    assert deliver(receiver).status_code == 204


def test_a_shifted_clock_is_off_in_all_that_tells_the_time(tmp_path):
    script = tmp_path / "say.py"
    script.write_text(
        "import time, datetime as d\n"
        "print(time.time(), d.datetime.now().timestamp(), d.datetime.now(d.UTC).timestamp(), time.time_ns() / 1e9)\n"
        "print(isinstance(d.datetime.fromisoformat('2020-01-01'), d.datetime))\n"
    )
    command = [sys.executable, "-m", "tests.chaos.shifted_clock", "-3600", str(script)]

    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    assert [float(said) for said in lines[0].split()] == [pytest.approx(time.time() - 3_600, abs=30)] * 4
    assert lines[1] == "True"
