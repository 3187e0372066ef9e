"""The figures as text for a terminal, and as JSON for programs. Owns words and layout."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from llmjobs.simulation.measures import ClientFigures, Figures, Waits

CLIENTS_SHOWN = 24


def as_json(figures: Figures) -> dict[str, Any]:
    """All but the curves, which are the picture's. Waits in seconds, costs in weighted tokens, shares from 0 to 1."""
    found = asdict(figures)
    del found["curves"]
    return found


def lines(figures: Figures) -> Iterator[str]:
    yield "Under full load: every client always has a call waiting. Shares are of weighted tokens."
    yield ""
    yield from _table(list(_full_load(figures)))
    yield ""
    yield "As the calls arrive: seconds from arrival to start; alone: had the client all slots to itself."
    yield ""
    yield from _table(list(_arrivals(figures)))


def _full_load(figures: Figures) -> Iterator[list[str]]:
    policies = figures.policies.values()
    yield ["", "ideal", *figures.policies]
    for tier, weight in enumerate(figures.weights):
        shares = [_percent(policy.shares[tier]) for policy in policies]
        yield [f"share of the tier of weight {weight:g}", _percent(figures.ideal_shares[tier]), *shares]
    yield [
        "tokens that another tier should have had",
        _percent(0),
        *[_percent(policy.misplaced) for policy in policies],
    ]
    yield ["a tier's share is off by at most", _percent(0), *[_percent(policy.share_error) for policy in policies]]
    yield ["Jain's index of equal clients, the least", "1.0000", *[f"{policy.jain:.4f}" for policy in policies]]
    gaps = [f"{policy.largest_gap:,.0f}" for policy in policies]
    yield ["largest gap of two equal clients, tokens", f"≤ {figures.gap_bound:,.0f}", *gaps]


def _arrivals(figures: Figures) -> Iterator[list[str]]:
    names = ["alone", *figures.policies]
    yield ["client", "weight", "calls", *[head for name in names for head in (f"{name} p50", "p95")]]
    for client in _shown(figures.clients):
        if client is None:
            yield ["…"]
            continue
        waits = [client.alone, *client.waits.values()]
        cells = [cell for wait in waits for cell in _cells(wait)]
        yield [str(client.client + 1), f"{figures.weights[client.tier]:g}", str(client.calls), *cells]
    used = [cell for policy in figures.policies.values() for cell in (_percent(policy.utilisation), "")]
    yield ["slots in use", "", "", "", "", *used]


def _shown(clients: Sequence[ClientFigures]) -> Iterator[ClientFigures | None]:
    """The ones that ask most and the ones that ask least; None stands for those between them."""
    if len(clients) <= CLIENTS_SHOWN:
        yield from clients
        return
    yield from clients[: CLIENTS_SHOWN // 2]
    yield None
    yield from clients[-CLIENTS_SHOWN // 2 :]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first row is the heading. The first column is words, the others are numbers."""
    columns = max(map(len, rows))
    padded = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*padded, strict=True)]
    for number, row in enumerate(padded):
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *numbers]).rstrip()
        if number == 0:
            yield "  ".join("─" * width for width in widths)


def _cells(waits: Waits) -> tuple[str, str]:
    return f"{waits.p50_s:.2f}", f"{waits.p95_s:.2f}"


def _percent(part: float) -> str:
    return f"{part * 100:.2f} %"
