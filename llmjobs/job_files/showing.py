"""How far a run is, on a terminal: one line, drawn over itself. Elsewhere nothing."""

import shutil
import time
from typing import TextIO

BAR_CHARS = 24
DRAWN_EVERY_S = 0.1


class Bar:
    def __init__(self, out: TextIO) -> None:
        self._out, self._is_drawn = out, out.isatty()
        self.begin("", None)

    def begin(self, doing: str, total: int | None) -> None:
        self._doing, self._total, self._done, self._failed = doing, total, 0, 0
        self._began_s, self._drawn_s = time.monotonic(), 0.0

    def show(self, done: int, failed: int) -> None:
        self._done, self._failed = done, failed
        if time.monotonic() - self._drawn_s >= DRAWN_EVERY_S:
            self._draw(self.text())

    def add(self, count: int, failed: int) -> None:
        self.show(self._done + count, failed)

    def note(self, why: str) -> None:
        if time.monotonic() - self._drawn_s >= DRAWN_EVERY_S:
            self._draw(f"{self.text()}  {why}")

    def end(self) -> None:
        if self._is_drawn:
            self._out.write("\r\x1b[2K")
            self._out.flush()

    def text(self) -> str:
        rate = self._done / max(time.monotonic() - self._began_s, 0.001)
        parts = [f"{self._doing} {self._done:,}", f"{rate:,.0f}/s"]
        if self._total:
            filled = round(min(self._done / self._total, 1) * BAR_CHARS)
            parts[0] = f"{'█' * filled}{'░' * (BAR_CHARS - filled)}  {parts[0]} of {self._total:,}"
            if rate and self._total > self._done:
                parts.append(f"{duration((self._total - self._done) / rate)} left")
        return "  ".join([*parts, *([f"{self._failed:,} failed"] if self._failed else [])])

    def _draw(self, text: str) -> None:
        self._drawn_s = time.monotonic()
        if self._is_drawn:
            room = shutil.get_terminal_size().columns - 1  # what goes on in a second line is not drawn over
            self._out.write(f"\r\x1b[2K{text[:room]}")
            self._out.flush()


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
