"""The site's e-mail settings, from environment variables."""

import django
import pytest
from django.core.exceptions import ImproperlyConfigured

from project import mail


def test_admins_are_addresses_with_and_without_names() -> None:
    pairs = [("Ops", "ops@example.org"), ("", "night@example.org")]
    expected = pairs if django.VERSION < (6,) else ["ops@example.org", "night@example.org"]
    assert mail.addresses("ADMINS", "Ops <ops@example.org>, night@example.org") == expected
    assert mail.addresses("ADMINS", " ") == []


@pytest.mark.parametrize("text", ["ops", "Ops <ops>", "@example.org", "ops@example.org, night"])
def test_what_is_no_address_is_refused_with_the_variable_s_name(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ADMINS: expected addresses like "):
        mail.addresses("ADMINS", text)


def test_a_mail_server_is_a_url() -> None:
    found = mail.server("EMAIL_URL", "smtp+tls://us%40er:p%2Fw@mail.example.org:587")
    assert (found["EMAIL_HOST"], found["EMAIL_PORT"], found["EMAIL_USE_TLS"]) == ("mail.example.org", 587, True)
    assert (found["EMAIL_HOST_USER"], found["EMAIL_HOST_PASSWORD"]) == ("us@er", "p/w")
    assert mail.server("EMAIL_URL", "")["EMAIL_HOST"] == "localhost"


@pytest.mark.parametrize("url", ["mail.example.org", "http://u:s3cret@example.org", "smtp://u:s3cret@example.org:port"])
def test_another_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL: expected a URL like smtp") as raised:
        mail.server("EMAIL_URL", url)
    assert "s3cret" not in str(raised.value)
