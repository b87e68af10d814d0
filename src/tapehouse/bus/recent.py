"""Entries in memory, by number: the whole of a log that is in memory, and the end of one that is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tapehouse.bus.base import Logged
from tapehouse.codec.live.entries import Entry

ENTRY_BYTES = 400
"""What an entry takes beside its rows, about."""


class Recent:
    """Consecutive entries. Not thread-safe."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.bytes = 0
        self._entries: list[Logged] = []

    @property
    def next(self) -> int:
        """The number that comes after the last one."""
        return self.first + len(self._entries)

    def add(self, entries: Sequence[Logged]) -> None:
        """Add what comes next."""
        self._entries += entries
        self.bytes += sum(size_of(logged.entry) for logged in entries)

    def read(self, start: int, limit: int, max_bytes: int) -> list[Logged]:
        """Entries from that number on, which must not be before `first`."""
        at = start - self.first
        return within(self._entries[at : at + limit], max_bytes)

    def peek(self) -> Logged | None:
        """The oldest."""
        return self._entries[0] if self._entries else None

    def drop(self, number: int) -> int:
        """Let go of so many of the oldest; how many bytes they took."""
        freed = sum(size_of(logged.entry) for logged in self._entries[:number])
        del self._entries[:number]
        self.first += number
        self.bytes -= freed
        return freed

    def shrink(self, max_bytes: int) -> None:
        """Let go of the oldest half of the entries while there are more bytes than that."""
        while self.bytes > max_bytes and len(self._entries) > 1:
            self.drop(len(self._entries) // 2)


def within(entries: Iterable[Logged], max_bytes: int) -> list[Logged]:
    """As many of the entries as have so many bytes, and at least one."""
    taken: list[Logged] = []
    size = 0
    for logged in entries:
        size += size_of(logged.entry)
        if taken and size > max_bytes:
            break
        taken.append(logged)
    return taken


def size_of(entry: Entry) -> int:
    """The memory that an entry takes, about."""
    return len(entry.body) + ENTRY_BYTES
