"""How a provider is reached: the SDK's clients with their transport, the address, the key's header.

Owns what an account's base URL means. Does not own who keeps the clients (`openai.py`), nor what is asked. The
transport goes through the proxy that HTTPS_PROXY and the like name, and trusts whom the TLS context trusts.

A base URL with an `api-version` is one of Azure's API of before v1: each request carries that, and the key stands in a
header of its own, where `Authorization` would be taken for a token of Entra ID.
"""

import ssl
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx2
import openai

from llmjobs.providers.calls import Call

# The transport looks at each connection of its pool, with a system call, for each request: with 64 in one pool that was
# a quarter of all the time of a worker. Many small pools cost some 50 kB each.
CONNECTIONS_PER_CLIENT = 8
NO_KEY = "none"  # the SDK wants one; servers that ask for none ignore it


def new_client(call: Call, tls: ssl.SSLContext) -> openai.AsyncOpenAI:
    """For the account of `call`."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS_PER_CLIENT)
    url = urlsplit(call.base_url)
    return openai.AsyncOpenAI(
        api_key=call.api_key or NO_KEY,
        base_url=urlunsplit(url._replace(query="")),
        default_query=dict(parse_qsl(url.query)),
        max_retries=0,
        organization="",
        project="",
        http_client=openai.DefaultAsyncHttpxClient(limits=limits, verify=tls, follow_redirects=False),
    )


def headers_of(call: Call) -> dict[str, Any]:
    """What each request of `call` carries beside what the SDK adds."""
    headers: dict[str, Any] = {"X-Client-Request-Id": call.request_id}
    if "?" in call.base_url:
        headers |= {"Authorization": openai.Omit(), "api-key": call.api_key or NO_KEY}
    return headers
