"""Who is next to be sent a webhook: clients in turn, and of each client its receivers in turn. Pure.

Owns the turns and how many deliveries are under way. Does not own deliveries: which of them is next is SQL's to say.
Invariant: no receiver (a host) has more under way than its bound, and no client, so that neither a slow receiver nor a
client with many of them keeps the others waiting.
"""

from collections import Counter

Pair = tuple[int, str]  # a client's id, and a receiver of its
KNOWN_OF_CLIENT_MAX = 500


class Receivers:
    def __init__(self) -> None:
        self._due: dict[int, dict[str, None]] = {}  # who was served last stands last, clients and receivers alike
        self._under_way: Counter[int | str] = Counter()  # by client, and by receiver

    def __bool__(self) -> bool:
        """Whether anybody is known to have something due."""
        return bool(self._due)

    def add(self, pair: Pair) -> None:
        """It has something due."""
        client_id, receiver = pair
        receivers = self._due.setdefault(client_id, {})
        if len(receivers) < KNOWN_OF_CLIENT_MAX:
            receivers.setdefault(receiver)

    def remove(self, pair: Pair) -> None:
        """It turned out to have nothing due."""
        client_id, receiver = pair
        receivers = self._due.get(client_id, {})
        receivers.pop(receiver, None)
        if not receivers:
            self._due.pop(client_id, None)

    def begin(self, pair: Pair) -> None:
        self._under_way.update(pair)

    def end(self, pair: Pair) -> None:
        self._under_way.subtract(pair)
        self._under_way += Counter()  # without those that have none

    def next(self, count: int, *, per_receiver: int, per_client: int) -> list[Pair]:
        """Up to `count` that have room for one more, each once; one of each client, before a second of any."""
        found: dict[Pair, None] = {}
        chosen: Counter[int | str] = Counter()
        is_more = True
        while is_more and len(found) < count:
            is_more = False
            for client_id, receivers in self._due.items():
                if len(found) == count:
                    break
                if self._under_way[client_id] + chosen[client_id] >= per_client:
                    continue
                for receiver in receivers:
                    pair = (client_id, receiver)
                    if pair not in found and self._under_way[receiver] + chosen[receiver] < per_receiver:
                        found[pair] = None
                        chosen.update(pair)
                        is_more = True
                        break
        for pair in found:
            self._serve_last(pair)
        return list(found)

    def _serve_last(self, pair: Pair) -> None:
        client_id, receiver = pair
        receivers = self._due.pop(client_id)
        receivers[receiver] = receivers.pop(receiver)
        self._due[client_id] = receivers
