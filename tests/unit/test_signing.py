"""Signatures as Standard Webhooks has them, against its own published example."""

import binascii

import pytest

from llmjobs.signing import webhook_headers, webhook_key

# The test vector of the specification's libraries (standard-webhooks/standard-webhooks, libraries/*/test).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID, SENT_AT_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_signature_is_the_one_of_the_reference_implementations():
    headers = webhook_headers(MESSAGE_ID, BODY, [SECRET], sent_at_s=SENT_AT_S)
    assert headers == {
        "content-type": "application/json",
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": str(SENT_AT_S),
        "webhook-signature": SIGNATURE,
    }


def test_each_secret_signs_beside_the_others():
    other = "whsec_" + "QUJD" * 8
    alone = webhook_headers(MESSAGE_ID, BODY, [other], sent_at_s=SENT_AT_S)["webhook-signature"]
    both = webhook_headers(MESSAGE_ID, BODY, [other, SECRET], sent_at_s=SENT_AT_S)["webhook-signature"]
    assert both == f"{alone} {SIGNATURE}"


def test_without_a_secret_nothing_is_signed():
    assert "webhook-signature" not in webhook_headers(MESSAGE_ID, BODY, [])


def test_what_is_no_secret_is_not_signed_with():
    with pytest.raises(binascii.Error):
        webhook_headers(MESSAGE_ID, BODY, ["whsec_not base64!"])
    assert webhook_key("whsec_QUJD") == webhook_key("QUJD") == b"ABC"
