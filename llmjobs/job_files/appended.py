"""A file that only grows, by whole lines, and survives whoever writes it being killed at any point.

Owns the lock (one writer at a time), the torn last line of one that was killed, and that what was added is on disk.
Does not own what the lines say: journal.py and results.py. Invariant: `add` has all its lines on disk when it returns;
a line that was cut is gone before another is added.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from llmjobs.errors import LlmjobsError


class FileRefused(LlmjobsError):
    """A file that is not what it was taken for; nothing of it was changed."""


class Appended:
    """`begins`: how each of its lines does. Another file than ours is refused, and stays as it is."""

    def __init__(self, path: Path, begins: tuple[bytes, ...]) -> None:
        self.path, self._begins = path, begins
        if path.exists() and not path.is_file():
            raise FileRefused(f"{path}: expected a file that is read again, got a folder, a pipe or a device")
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise FileRefused(f"{path} is in use: another submitjobs is at it") from None
        try:
            self._cut_torn_line()
            _write_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def lines(self) -> Iterator[bytes]:
        """What stands in it, from its beginning."""
        self._file.seek(0)
        for line in self._file:
            self._check(line)
            yield line

    def add(self, lines: Iterable[bytes]) -> None:
        """Each without its end."""
        data = b"".join(line + b"\n" for line in lines)
        try:
            while data:
                data = data[os.write(self._file.fileno(), data) :]
            os.fsync(self._file.fileno())
        except OSError as error:  # of a number it does not say which file it is
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        self._file.close()

    def _cut_torn_line(self) -> None:
        end = 0
        for line in self.lines():
            end += len(line) if line.endswith(b"\n") else 0
        self._file.truncate(end)

    def _check(self, line: bytes) -> None:
        if not any(
            line.startswith(begin[: len(line.rstrip(b"\n"))] if line[-1:] != b"\n" else begin) for begin in self._begins
        ):
            raise FileRefused(f"{self.path} is no file of submitjobs: a line of it begins with {line[:40]!r}")


def _write_folder(folder: Path) -> None:
    """Or a machine that goes down may lose a new file's name, and with it what was written there."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
