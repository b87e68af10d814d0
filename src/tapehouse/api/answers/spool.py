"""Answers that are kept for a short while, so that a client can read one in ranges, by several requests.

Readers of remote files ask for the end of a file, then for parts of it, and expect one file although the store is
written to in between. None of them says which version it means. So the first such request of a client binds its
question to the bytes of one commit, and the ones that follow get those bytes.

What begins a reading (`HEAD`, or the last bytes) is answered from the newest commit, unless this client is in the
middle of another reading: then both get the same bytes, rather than one of them a mixture.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tapehouse.api.answers.validators import ETag
from tapehouse.errors import LimitExceeded, Overloaded

_IN_MEMORY_BYTES = 1024 * 1024
"""Of one answer; what is larger goes to a temporary file, which has no name."""

_MOST_ANSWERS = 1_000
_MIDDLE_OF_READING_S = 1.0
_UNREAD_BYTES = 64 * 1024
"""A reading is over when no more than this was left out: readers pass over headers."""

_MOST_PIECES = 1_000


class Rendered:
    """The bytes of one answer. Written by one thread and then read by any."""

    def __init__(self) -> None:
        self.size = 0
        self.etag: ETag | None = None
        self.headers: Mapping[str, str] = {}
        self.used_s = 0.0
        """When it was last asked for, on the monotonic clock."""
        self.users = 0
        self.kept = False
        self._read: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._file: Any = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by `close`

    def write(self, data: bytes) -> None:
        """Add to the end."""
        with self._lock:
            self._file.seek(0, 2)
            self._file.write(data)
            self.size += len(data)

    def read(self, start: int, end: int) -> bytes:
        """Those bytes."""
        with self._lock:
            self._file.seek(start)
            data: bytes = self._file.read(end - start)
        return data

    def note_read(self, start: int, end: int) -> None:
        """Remember that these bytes were asked for."""
        if len(self._read) < _MOST_PIECES:
            self._read.append((start, end))

    def in_the_middle(self, now_s: float) -> bool:
        """Whether some of it was read lately, and some was not read yet."""
        if not self._read or now_s - self.used_s > _MIDDLE_OF_READING_S:
            return False
        unread, reached = 0, 0
        for start, end in sorted(self._read):
            unread += max(0, start - reached)
            reached = max(reached, end)
        return unread + self.size - reached > _UNREAD_BYTES

    def close(self) -> None:
        """Give the room back."""
        with self._lock:
            self._file.close()


Reader = tuple[str, ...]
"""Who reads what, as far as can be told: a client, its program and a question."""


@dataclass
class Spool:
    """All rendered answers of one server; used by one event loop only."""

    max_bytes: int
    keep_s: float
    clock: Callable[[], float]
    bytes: int = 0
    _answers: OrderedDict[str, Rendered] = field(default_factory=OrderedDict)
    """By tag, the one that was used last at the end."""
    _readers: dict[Reader, str] = field(default_factory=dict)

    def find(self, etag: str) -> Rendered | None:
        """The answer with that tag, if it is still there."""
        self.expire()
        return self._use(etag)

    def of(self, reader: Reader) -> Rendered | None:
        """What this reader reads."""
        self.expire()
        return self._use(self._readers.get(reader, ""))

    def in_the_middle(self, reader: Reader) -> Rendered | None:
        """What this reader has begun to read and not ended."""
        found = self._answers.get(self._readers.get(reader, ""))
        return self.of(reader) if found is not None and found.in_the_middle(self.clock()) else None

    def take(self, size: int) -> None:
        """Make room for so many bytes: what was not used for longest goes. `Overloaded` when all of it is in use."""
        if size > self.max_bytes:
            raise LimitExceeded(
                f"this answer has more than {self.max_bytes:,} bytes, too many to be read in ranges: ask for a shorter "
                "span, for pages with limit, or for all of it at once",
                limit=self.max_bytes,
            )
        for etag in [etag for etag, one in self._answers.items() if not one.users]:
            if self.bytes + size <= self.max_bytes and len(self._answers) < _MOST_ANSWERS:
                break
            self._forget(etag)
        if self.bytes + size > self.max_bytes:
            raise Overloaded("other answers take all room that there is for reading in ranges", retry_after_s=5.0)
        self.bytes += size

    def give_back(self, size: int) -> None:
        """Give back what was taken for an answer that is not kept."""
        self.bytes -= size

    def keep(self, rendered: Rendered, reader: Reader) -> Rendered:
        """Keep an answer, for which room was taken, for this reader; the same one of before, if there is one."""
        etag = str(rendered.etag)
        if (known := self._answers.get(etag)) is not None:
            self.give_back(rendered.size)
            rendered.close()
            rendered = known
        self._answers[etag] = rendered
        rendered.kept = True
        self._readers[reader] = etag
        found = self._use(etag)
        assert found is not None
        return found

    def release(self, rendered: Rendered) -> None:
        """A request is done with it."""
        rendered.users -= 1
        if not rendered.users and not rendered.kept:
            rendered.close()

    def expire(self) -> None:
        """Forget what nobody asked for lately."""
        now_s = self.clock()
        for etag in [etag for etag, one in self._answers.items() if now_s - one.used_s > self.keep_s]:
            self._forget(etag)

    def close(self) -> None:
        """Forget everything."""
        for etag in list(self._answers):
            self._forget(etag)

    def _use(self, etag: str) -> Rendered | None:
        rendered = self._answers.get(etag)
        if rendered is not None:
            self._answers.move_to_end(etag)
            rendered.used_s = self.clock()
        return rendered

    def _forget(self, etag: str) -> None:
        rendered = self._answers.pop(etag)
        rendered.kept = False
        self.bytes -= rendered.size
        self._readers = {reader: one for reader, one in self._readers.items() if one != etag}
        if not rendered.users:
            rendered.close()
