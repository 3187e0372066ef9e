"""How a worker reaches a provider that is not at api.openai.com: Azure, a server of one's own, a proxy, an own CA."""

import pytest
from django.core.exceptions import ValidationError

from llmjobs.models.pools import validate_base_url
from llmjobs.outcomes import Kind
from llmjobs.states import Endpoint
from tests.certificates import certificates
from tests.worker.scripted import said, scripted, stream_answer
from tests.worker.test_provider_calls import called

ANSWER = stream_answer(*said("Hello"))
FILTERS = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "object": ""}  # begins a stream of Azure's


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_azure_s_v1_is_a_base_url_like_any_other():
    with scripted(stream_answer(FILTERS, *said("Hello"))) as provider:
        outcome, texts = called(provider.url.replace("/v1", "/openai/v1/"), api_key="s3cret")
    [request] = provider.requests
    assert request.path == "/openai/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer s3cret" and "api-key" not in request.headers
    assert (outcome.kind, texts) == (Kind.COMPLETED, ["Hello"])


@pytest.mark.parametrize(
    ("endpoint", "path"), [(Endpoint.CHAT, "chat/completions"), (Endpoint.EMBEDDINGS, "embeddings")]
)
def test_azure_s_api_of_before_gets_its_version_and_its_header(endpoint, path):
    with scripted(ANSWER) as provider:
        base_url = provider.url.replace("/v1", "/openai/deployments/mini?api-version=2024-10-21")
        called(base_url, {"input": "x"}, endpoint=endpoint, api_key="s3cret")
    [request] = provider.requests
    assert request.path == f"/openai/deployments/mini/{path}?api-version=2024-10-21"
    assert request.headers["api-key"] == "s3cret" and "authorization" not in request.headers


def test_a_base_url_carries_azure_s_version_and_no_other_query():
    validate_base_url("https://acme.openai.azure.com/openai/deployments/mini?api-version=2025-04-01-preview")
    for url in ("https://a.example/v1?key=s3cret", "https://a.example/v1?", "https://a.example?api-version=1&key=2"):
        with pytest.raises(ValidationError, match="expected a URL"):
            validate_base_url(url)


def test_a_call_goes_through_the_proxy_of_the_environment(monkeypatch):
    with scripted(ANSWER) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        outcome, _ = called("http://vllm.internal:8000/v1")
        with scripted(ANSWER) as beside:
            called(beside.url)
    assert outcome.kind is Kind.COMPLETED
    assert [request.path for request in proxy.requests] == ["http://vllm.internal:8000/v1/chat/completions"]
    assert len(beside.requests) == 1, "NO_PROXY names it"


def test_a_certificate_authority_of_one_s_own_is_trusted_once_it_is_named(tmp_path, monkeypatch):
    authority, chain = certificates(tmp_path)
    with scripted(ANSWER, tls_chain=chain) as provider:
        stranger, _ = called(provider.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        known, _ = called(provider.url)
    assert stranger.kind is Kind.NOT_SENT and "certificate" in stranger.error.message.lower()
    assert (known.kind, known.output_text) == (Kind.COMPLETED, "Hello")
