"""`memory://`: the log of one process, which ends with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from tapehouse.bus.base import All, Began, Committed, Ends, Logged, Membership, Piece, Retention, Survives
from tapehouse.bus.recent import Recent, size_of
from tapehouse.codec.live.entries import Entry
from tapehouse.errors import LogFull
from tapehouse.model import Position

MAX_BYTES = 1 << 30


class MemoryBus:
    """A log of one partition. `max_bytes` is how much it holds; `LogFull` beyond."""

    survives = Survives.NOTHING
    partitions = 1

    def __init__(self, *, max_bytes: int | None = MAX_BYTES) -> None:
        self._max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        # Positions of a former process, which clients may still have, are of another epoch.
        self._epochs = (Began(time.time_ns() // 1_000_000, 0),)
        self._entries = Recent(0)
        self._groups: dict[str, Committed] = {}
        self._changed = threading.Condition()
        self._closed = False

    def append(self, partition: int, entries: Sequence[Entry]) -> list[Position]:
        """See `Bus.append`."""
        size = sum(map(size_of, entries))
        with self._changed:
            if self._entries.bytes + size > self._max_bytes:
                held, most = self._entries.bytes, self._max_bytes
                raise LogFull(f"the log has {held:,} bytes, and {most:,} is the most", partition=partition)
            epoch, following = self._epochs[-1].epoch, self._entries.next
            positions = [Position(epoch, following + number) for number in range(len(entries))]
            self._entries.add(list(map(Logged, positions, entries)))
            self._changed.notify_all()
        return positions

    def read(
        self,
        partition: int,
        after: Position | None,
        *,
        limit: int = 1_000,
        max_bytes: int = 1 << 24,
        wait_s: float = 0.0,
    ) -> Piece:
        """See `Bus.read`."""
        with self._changed:
            start, lost = self._ends().start(after)
            if lost is None and wait_s:
                self._changed.wait_for(lambda: self._entries.next > start or self._closed, wait_s)
                start, lost = self._ends().start(after)  # some may have been trimmed meanwhile
            return Piece(self._entries.read(start, limit, max_bytes), lost)

    def ends(self, partition: int) -> Ends:
        """See `Bus.ends`."""
        with self._changed:
            return self._ends()

    def _ends(self) -> Ends:
        oldest = self._entries.peek()
        since = None if oldest is None else oldest.entry.ingested
        return Ends(self._entries.first, self._entries.next, self._epochs, self._entries.bytes, since)

    def commit(self, group: str, positions: Mapping[int, Position], state: bytes | None = None) -> None:
        """See `Bus.commit`."""
        with self._changed:
            before = self._groups.get(group, Committed())
            self._groups[group] = Committed({**before.positions, **positions}, before.state if state is None else state)

    def committed(self, group: str) -> Committed:
        """See `Bus.committed`."""
        with self._changed:
            return self._groups.get(group, Committed())

    def groups(self) -> list[str]:
        """See `Bus.groups`."""
        with self._changed:
            return sorted(self._groups)

    def join(self, group: str) -> Membership:
        """See `Bus.join`."""
        return All(self.partitions)

    def trim(self, keep: Retention, protected: Mapping[int, Position]) -> int:
        """See `Bus.trim`."""
        oldest = None if keep.age_s is None else time.time_ns() - int(keep.age_s * 1e9)
        until, freed = protected.get(0), 0
        with self._changed:
            while (logged := self._entries.peek()) is not None and (until is None or logged.position <= until):
                too_many = keep.bytes is not None and self._entries.bytes > keep.bytes
                if not too_many and (oldest is None or logged.entry.ingested >= oldest):
                    break
                freed += self._entries.drop(1)
        return freed

    def close(self) -> None:
        """See `Closes.close`; the entries are gone with the process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
