"""The contract of a bus: the system that holds the log, the durable stream that all live data goes through.

    partition 0   ──► entry 0, entry 1, entry 2 ...     an entry is a batch of records of one channel and source
    partition 1   ──► entry 0, entry 1 ...              all records of a symbol are in one partition

Entries are numbered from 0 in each partition. A `Position` is such a number and the epoch in which the entry was
written. A bus that may have lost entries goes on in a new epoch, and remembers with which number each began: who had
come further than that has seen entries that are there no more, or lacks some that were, and is told (`Lost`). All
methods may block and may be called from any thread.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from tapehouse.codec.live.entries import Entry
from tapehouse.model import Position


class Survives(StrEnum):
    """What an acknowledged entry survives: each of them also what stands before it."""

    NOTHING = "nothing"
    PROCESS = "process"
    MACHINE = "machine"
    NODE = "node"


class Logged(NamedTuple):
    """An entry and its place."""

    position: Position
    entry: Entry


class Lost(msgspec.Struct, frozen=True):
    """Entries that a reader asked for and that are there no more: those after `after` and before `first`.

    When the epochs differ, what was there in the old one is not known.
    """

    after: Position
    first: Position


class Piece(NamedTuple):
    """What a read found: entries in order, and what was lost before them."""

    entries: list[Logged]
    lost: Lost | None = None


class Began(msgspec.Struct, frozen=True):
    """An epoch, and the number of the first entry that was, or will be, written in it."""

    epoch: int
    offset: int


class Ends(msgspec.Struct, frozen=True):
    """What a partition holds: entries from number `first` up to, not with, `next`; epochs, oldest first.

    `bytes` is about what they take, `since` when the first came (UTC nanoseconds; None: there is none).
    """

    first: int
    next: int
    epochs: tuple[Began, ...]
    bytes: int = 0
    since: int | None = None

    @property
    def last(self) -> Position:
        """The position after which the next entry comes; its offset is -1 before the first."""
        return self.at(self.next - 1)

    def at(self, offset: int) -> Position:
        """The position of the entry of that number."""
        epoch = next((began.epoch for began in reversed(self.epochs) if began.offset <= offset), self.epochs[0].epoch)
        return Position(epoch, offset)

    def start(self, after: Position | None) -> tuple[int, Lost | None]:
        """The number of the next entry for a reader that came to `after`, and what it has lost."""
        if after is None:
            return self.first, None
        if self._known(after):
            start = max(self.first, after.offset + 1)
            return start, None if start == after.offset + 1 else Lost(after=after, first=self.at(start))
        # What a new epoch began with may replace entries that the reader knows: it gets all from there on.
        newer = [began.offset for began in self.epochs if began.epoch > after.epoch]
        start = max(self.first, min(newer[0], self.next)) if newer else self.first
        return start, Lost(after=after, first=self.at(start))

    def _known(self, after: Position) -> bool:
        """Whether the entry of that position is, or was, one of this log as it stands."""
        epochs = [began.epoch for began in self.epochs]
        if after.epoch not in epochs:
            return False
        later = self.epochs[epochs.index(after.epoch) + 1 :]
        return after.offset < (later[0].offset if later else self.next)


class Retention(msgspec.Struct, frozen=True):
    """How much is kept, whichever is reached first; None: no limit of that kind."""

    age_s: float | None = None
    bytes: int | None = None


class Committed(msgspec.Struct, frozen=True):
    """How far a consumer group came, by partition, and what it wrote down with that."""

    positions: dict[int, Position] = {}
    state: bytes | None = None


class Membership(Protocol):
    """One consumer of a group whose members share the partitions."""

    def partitions(self) -> frozenset[int]:
        """Those that are this member's now, and no other's; to be asked every second, or others take them over."""

    def leave(self) -> None:
        """Let others have them; idempotent."""


class Bus(Protocol):
    """The system that holds the log."""

    @property
    def survives(self) -> Survives:
        """What an entry survives whose `append` has returned."""

    @property
    def partitions(self) -> int:
        """How many there are; a symbol is in `partition_of(symbol, partitions)`."""

    def append(self, partition: int, entries: Sequence[Entry]) -> list[Position]:
        """Append all of them, next to each other; none is there when it raises, unless it raises `Unsettled`.

        Raises `LogFull` when the log has no room, and `Unavailable` when its server cannot be reached.
        """

    def read(
        self,
        partition: int,
        after: Position | None,
        *,
        limit: int = 1_000,
        max_bytes: int = 1 << 24,
        wait_s: float = 0.0,
    ) -> Piece:
        """The entries after a position, the oldest there are for None; at least one if there is any.

        Waits so long for the first. Who came to a position that is there no more is told what is `lost` before them.
        """

    def ends(self, partition: int) -> Ends:
        """What the partition holds."""

    def commit(self, group: str, positions: Mapping[int, Position], state: bytes | None = None) -> None:
        """Keep how far a consumer group came, and what it writes down with that: both or neither, and durable."""

    def committed(self, group: str) -> Committed:
        """What the group's newest `commit` of each partition kept."""

    def groups(self) -> list[str]:
        """The names of the groups that committed anything, sorted."""

    def join(self, group: str) -> Membership:
        """Take part in a group; a bus of one process gives each member all partitions."""

    def trim(self, keep: Retention, protected: Mapping[int, Position]) -> int:
        """Let go of what is more or older than is to be kept, never of what comes after the protected positions; how
        many bytes went."""


class Closes(Protocol):
    """A bus that holds resources."""

    def close(self) -> None:
        """Let go of them; whoever waits in a `read` gets nothing. Idempotent."""


def partition_of(symbol: str, partitions: int) -> int:
    """The partition of a symbol: CRC-32 of its UTF-8, modulo; never to be changed, since logs outlive programs."""
    return zlib.crc32(symbol.encode()) % partitions if partitions > 1 else 0


class All:
    """The membership of a bus that only one process consumes."""

    def __init__(self, partitions: int) -> None:
        self._partitions = frozenset(range(partitions))

    def partitions(self) -> frozenset[int]:
        """See `Membership.partitions`."""
        return self._partitions

    def leave(self) -> None:
        """See `Membership.leave`."""
        self._partitions = frozenset()
