"""An answer on its way out: its pace, its way of ending, and how much of it went.

Owns the timers of answers and the last word in a ledger entry. Does not own the connection (`wire.py`) and
does not decide an answer.
Invariant: whatever ends a playback (its last byte, a fault, the client, the simulator's stop) closes its
ledger entry once, with the output tokens that had been sent.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmjobs.providers.simulator.answers import Answer, Script
from llmjobs.providers.simulator.ledger import Entry, Ledger
from llmjobs.providers.simulator.speech import STAMP

if TYPE_CHECKING:
    from llmjobs.providers.simulator.generations import Generation
    from llmjobs.providers.simulator.wire import Connection

TICK_S = 0.02
TICK_S_PER_STREAM = 50e-6  # 1,000 streams tick every 50 ms: at most 20,000 writes a second
RESET_AFTER_S = 0.005  # so that what was sent has left the socket before the RST overtakes it

_LAST_CHUNK = b"0\r\n\r\n"


class Pacer:
    """One timer for all paced streams: each tick sends every stream the tokens that are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._streams: set[Playback] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: "Playback") -> None:
        self._streams.add(stream)
        if self._timer is None:
            self._schedule()

    def discard(self, stream: "Playback") -> None:
        self._streams.discard(stream)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _schedule(self) -> None:
        tick_s = max(TICK_S, TICK_S_PER_STREAM * len(self._streams))
        self._timer = self._loop.call_later(tick_s, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        for stream in list(self._streams):
            stream.tick(now)
        self._timer = None
        if self._streams:
            self._schedule()


@dataclass(frozen=True, slots=True)
class Stage:
    """What the playbacks of all connections share."""

    loop: asyncio.AbstractEventLoop
    pacer: Pacer
    ledger: Ledger
    clock: Callable[[], float]  # of the ledger: Unix time


class Playback:
    __slots__ = (
        "_answer",
        "_begun_at",
        "_connection",
        "_entry",
        "_events_sent",
        "_is_head_sent",
        "_is_opened",
        "_keep_alive",
        "_script",
        "_stage",
        "_timer",
        "_tokens_sent",
    )

    def __init__(
        self, connection: "Connection", stage: Stage, answer: Answer, entry: Entry | None, *, keep_alive: bool
    ) -> None:
        self._connection = connection
        self._stage = stage
        self._answer = answer
        self._script = answer.script
        self._entry = entry  # None once it is closed, or if there is none
        self._keep_alive = keep_alive
        self._timer: asyncio.TimerHandle | None = None
        self._begun_at = 0.0  # of the loop's clock, when the first token went out
        self._events_sent = 0
        self._tokens_sent = 0
        self._is_head_sent = False
        self._is_opened = False

    def start(self) -> None:
        if not self._answer.wait_s:
            self._speak()
            return
        if self._script:
            self._send(b"")  # the head of a stream comes before its first token
            if self._answer.generation:
                self._send(_chunk(self._take_opening(self._script)))
        self._timer = self._stage.loop.call_later(self._answer.wait_s, self._speak)

    def tick(self, now: float) -> None:
        """Send the tokens that are due; called by the pacer. A client that reads too slowly is waited for."""
        script = self._script
        if script is None or self._connection.is_choked:
            return
        due = min(len(script.events), int((now - self._begun_at) / self._answer.token_s) + 1)
        if (generation := self._answer.generation) and generation.cancelled_at is not None:
            self._end_cancelled(script, generation)
            return
        text = self._stamped(script, "".join(script.events[self._events_sent : due]))
        self._count(script, due)
        if due == len(script.events):
            self._stage.pacer.discard(self)
            self._end_stream(script, text)
        else:
            self._send(_chunk(text))

    def cut_off(self, outcome: str) -> None:
        """The client, or the simulator, is gone before the end."""
        if self._timer:
            self._timer.cancel()
        self._stage.pacer.discard(self)
        if self._entry and not self._is_head_sent:
            self._entry.status = 0
        self._close_entry(outcome)

    def _speak(self) -> None:
        """The first piece of the body, and all the others if there is no pace to keep."""
        answer, script = self._answer, self._script
        if script and answer.generation and answer.generation.cancelled_at is not None:
            self._end_cancelled(script, answer.generation)
        elif script is None:
            self._tokens_sent = answer.body_tokens
            self._end(answer.body if answer.sent_bytes is None else answer.body[: answer.sent_bytes])
        elif answer.token_s and script.events:
            self._begun_at = self._stage.loop.time() - self._since_first_token_s()
            self._send(_chunk(self._take_opening(script)))
            self._stage.pacer.add(self)
            self.tick(self._stage.loop.time())
        else:
            self._count(script, len(script.events))
            self._end_stream(script, self._take_opening(script) + self._stamped(script, "".join(script.events)))

    def _end_cancelled(self, script: Script, generation: "Generation") -> None:
        """What had been said until then, and no event that ends it."""
        self._stage.pacer.discard(self)
        said = script.events[self._events_sent : generation.events_said(self._stage.clock())]
        self._end(_chunk(self._take_opening(script) + self._stamped(script, "".join(said))) + _LAST_CHUNK)

    def _take_opening(self, script: Script) -> str:
        """Once: a response in the background is announced before its first token."""
        opening = "" if self._is_opened else script.opening
        self._is_opened = True
        return opening

    def _since_first_token_s(self) -> float:
        """Of a response in the background that had begun before this viewer came."""
        generation = self._answer.generation
        if generation is None:
            return 0.0
        return max(0.0, self._stage.clock() - generation.began_at - generation.wait_s)

    def _end_stream(self, script: Script, text: str) -> None:
        """`text` is the last that is said."""
        is_complete = self._answer.ending == "complete"
        generation = self._answer.generation
        if generation and is_complete and len(script.events) == len(generation.script.events):
            generation.finish()
        self._end(_chunk(text + script.closing) + _LAST_CHUNK if is_complete else _chunk(text))

    def _end(self, raw: bytes) -> None:
        """Send the last bytes, and end as the answer says.

        The entry is closed before they go: a client that has seen the end must find it in the ledger, whatever
        happens to the simulator in between.
        """
        answer, loop = self._answer, self._stage.loop
        match answer.ending:
            case "complete" | "hang_up":
                self._close_entry(answer.outcome)
                self._send(raw)
                self._connection.finished(is_reusable=self._keep_alive and answer.ending == "complete")
            case "reset":
                self._send(raw)
                self._timer = loop.call_later(RESET_AFTER_S if self._is_head_sent else 0, self._reset)
            case "stall":
                self._send(raw)
                if answer.hold_s is not None:
                    self._timer = loop.call_later(answer.hold_s, self._give_up)

    def _reset(self) -> None:
        self._close_entry(self._answer.outcome)
        self._connection.reset()

    def _give_up(self) -> None:
        self._close_entry(self._answer.outcome)
        self._connection.finished(is_reusable=False)

    def _send(self, raw: bytes) -> None:
        """Send `raw`, after the head if that is still to go."""
        if not self._is_head_sent and self._answer.status:
            self._is_head_sent = True
            raw = self._answer.head() + raw
        if raw:
            self._connection.transport.write(raw)

    def _stamped(self, script: Script, text: str) -> str:
        return text.replace(STAMP, f"{self._stage.clock():.6f}") if script.is_stamped else text

    def _count(self, script: Script, events_sent: int) -> None:
        self._events_sent = events_sent
        self._tokens_sent = events_sent * script.tokens_per_event

    def _close_entry(self, outcome: str) -> None:
        if self._entry:
            self._stage.ledger.close_entry(self._entry, self._stage.clock(), outcome, self._tokens_sent)
            self._entry = None


def _chunk(text: str) -> bytes:
    """`text` as a piece of a chunked body; nothing for nothing, since an empty chunk ends the body."""
    raw = text.encode("utf-8", "replace")
    return b"%x\r\n%b\r\n" % (len(raw), raw) if raw else b""
