"""What the queue adds, when nothing else waits: from the POST to the provider, and from a token to its viewer.

All clocks are this machine's. The simulator's ledger says when it saw a call; a `[[stamp]]` in the prompt makes each
token the time at which the simulator sends it.
"""

import threading
import time
from typing import Any

from llmjobs.demo.client import Api
from llmjobs.states import EventType
from tests.bench.ground import MODEL, Ground
from tests.bench.report import Table, percentile, progress

POSTS = 250
PAUSE_S = 0.03  # between two posts, so that the one before has settled
VIEWERS = 10
TOKENS, TOKENS_PER_S = 80, 20
POST_P50_MS, POST_P99_MS, TOKEN_P50_MS = 25, 100, 80


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table("What the queue adds, idle")
    with ground.web() as url, ground.worker():
        api = Api(url, ground.key)
        for number in range(10):
            _post(api, f"warm {number}")
        to_provider_ms = _posts(ground, api, 200 if is_quick else POSTS)
        api.close()
        progress(f"latency: {VIEWERS} viewers of {TOKENS} tokens")
        to_viewer_ms = _tokens(ground, url)
    table.at_most("POST to provider, p50", percentile(to_provider_ms, 50), POST_P50_MS, "ms")
    table.at_most("POST to provider, p99", percentile(to_provider_ms, 99), POST_P99_MS, "ms")
    table.add(
        "    calls, least and most", f"{len(to_provider_ms)}, {min(to_provider_ms):.1f} to {max(to_provider_ms):.1f} ms"
    )
    table.at_most("token to viewer (SSE), p50", percentile(to_viewer_ms, 50), TOKEN_P50_MS, "ms")
    table.add("token to viewer (SSE), p99", f"{percentile(to_viewer_ms, 99):.1f} ms")
    table.add(
        "    tokens, least and most", f"{len(to_viewer_ms):,}, {min(to_viewer_ms):.1f} to {max(to_viewer_ms):.1f} ms"
    )
    return table


def _posts(ground: Ground, api: Api, count: int) -> list[float]:
    """Milliseconds from before each POST until the simulator had read the call."""
    posted_at: dict[str, float] = {}
    for number in range(count):
        if number % 50 == 0:
            progress(f"latency: POST {number} of {count}")
        at = time.time()
        posted_at[f"{_post(api, str(number))}.1"] = at
        time.sleep(PAUSE_S)
    ground.wait_until(lambda: posted_at.keys() <= _seen_at(ground).keys(), "a call for each job")
    seen_at = _seen_at(ground)
    return [(seen_at[request] - at) * 1000 for request, at in posted_at.items()]


def _post(api: Api, text: str) -> str:
    messages = [{"role": "user", "content": f"{text} [[tokens=1]]"}]
    return str(api.submit({"model": MODEL, "messages": messages})["id"])


def _seen_at(ground: Ground) -> dict[str, float]:
    return {call["client_request_id"]: call["started_at"] for call in ground.simulator.ledger()}


def _tokens(ground: Ground, url: str) -> list[float]:
    """Milliseconds from each token's sending until a viewer of its job's stream had it."""
    delays_ms: list[float] = []
    viewers = [threading.Thread(target=_view, args=(Api(url, ground.key), delays_ms)) for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
        time.sleep(0.13)  # not all in step
    for viewer in viewers:
        viewer.join()
    if len(delays_ms) != VIEWERS * TOKENS:
        raise RuntimeError(f"expected {VIEWERS * TOKENS} tokens, got {len(delays_ms)}")
    return delays_ms


def _view(api: Api, delays_ms: list[float]) -> None:
    prompt = f"[[stamp]] [[tokens={TOKENS}]] [[tokens_per_s={TOKENS_PER_S}]]"
    job: dict[str, Any] = api.submit({"model": MODEL, "messages": [{"role": "user", "content": prompt}]})
    for event in api.follow(f"/api/jobs/{job['id']}/events"):
        at = time.time()
        if event.type == EventType.DELTA:
            delays_ms += [(at - float(stamp)) * 1000 for stamp in event.data["text"].split()]
    api.close()
