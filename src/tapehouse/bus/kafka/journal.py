"""What all processes know of a log beside its entries: its epochs, and how far each consumer group came.

It is in a compacted topic of two partitions, one for each, whose messages everybody applies in their order:

    0   ["began", follows, number]    an epoch begins: of the whole topic, or of a partition that lost its end
    1   ["state", group, id, n]       a part of what a group wrote down; deleted once there is a newer state
        ["commit", group, partition]  a commit, said in full under each of its partitions, since compaction keeps the
        ["commit", group, null]       newest of each; under null when it has a state, whose parts go before it
"""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from tapehouse.bus.base import Began, Committed
from tapehouse.bus.kafka.writer import Outgoing
from tapehouse.errors import LogDamaged
from tapehouse.model import Position

ORPHAN_S = 600.0
"""After that, parts of a state are of a process that died before it committed them."""
_PART_BYTES = 512 << 10
_NO_PARTITION = -1
"""Of which there are only the epochs of all."""


class Message(NamedTuple):
    """A message of the journal as it was read; `value` None: it deletes."""

    key: bytes
    value: bytes | None
    time_ms: int


class Begins(msgspec.Struct, frozen=True):
    """An epoch begins; it counts when the epoch that it `follows` is the newest, so that of two, all take the first.

    Without a `partition` it is of a topic that was not known, in all of its partitions.
    """

    topic_id: str
    epoch: int
    offset: int
    partition: int | None = None
    follows: int | None = None

    def message(self) -> Outgoing:
        """As the journal has it."""
        key = ["began", self.partition, self.follows, self.epoch, uuid.uuid4().hex]
        return Outgoing(msgspec.json.encode(self), msgspec.json.encode(key))


class Epochs:
    """The epochs of a topic."""

    def __init__(self) -> None:
        self.topic_id: str | None = None
        self._former: set[str] = set()
        self._base: Began | None = None
        self._later: dict[int, tuple[Began, ...]] = {}

    def apply(self, message: Message) -> None:
        """What the next message says."""
        if message.value is None:
            return
        begins = msgspec.json.decode(message.value, type=Begins)
        began = Began(begins.epoch, begins.offset)
        if begins.partition is not None:
            if begins.topic_id == self.topic_id and begins.follows == self.newest(begins.partition):
                # Two that saw the end was gone may tell of it in the other order: what the lower one says goes.
                before = [each for each in self._later.get(begins.partition, ()) if each.offset < began.offset]
                self._later[begins.partition] = (*before, began)
        elif begins.follows == self.newest(_NO_PARTITION) and begins.topic_id not in self._former:
            self._former |= {begins.topic_id}
            self.topic_id, self._base, self._later = begins.topic_id, began, {}

    def of(self, partition: int) -> tuple[Began, ...]:
        """Those of a partition, oldest first; there is one at least once the topic is known."""
        return (*(() if self._base is None else (self._base,)), *self._later.get(partition, ()))

    def newest(self, partition: int) -> int | None:
        """The number of the newest."""
        epochs = self.of(partition)
        return epochs[-1].epoch if epochs else None

    def renewed(self, topic_id: str) -> Begins:
        """The beginning of a topic that took the place of the one that was known."""
        return Begins(topic_id, self._next(), 0, follows=self.newest(_NO_PARTITION))

    def cut(self, partition: int, offset: int) -> Begins:
        """The beginning after the end of a partition was lost, from that offset on."""
        return Begins(self.topic_id or "", self._next(), offset, partition, self.newest(partition))

    def _next(self) -> int:
        """Larger than all there are, and than those of a journal that is there no more: the clock's milliseconds."""
        known = [began.epoch for partition in (_NO_PARTITION, *self._later) for began in self.of(partition)]
        return max([time.time_ns() // 1_000_000, *(epoch + 1 for epoch in known)])


class _Stored(msgspec.Struct, frozen=True):
    """Where the state of a commit is: in parts under an id; `crc` is the CRC-32 of it all."""

    id: str
    parts: int
    size: int
    crc: int


class _Commit(msgspec.Struct, frozen=True):
    """Positions by partition, as (epoch, offset), and the state, if there is a new one."""

    positions: dict[int, tuple[int, int]]
    state: _Stored | None = None


class _Parts:
    """The parts of one state, as far as they were read."""

    def __init__(self) -> None:
        self.time_ms = 0
        self.bytes: dict[int, bytes] = {}


class _Group:
    def __init__(self, name: str) -> None:
        self._name = name
        self.committed = False
        self.positions: dict[int, Position] = {}
        self.state: _Stored | None = None
        self.parts: dict[str, _Parts] = {}
        self.obsolete: dict[str, int] = {}
        """Ids of former states, and how many parts they have."""
        self.own: _Stored | None = None
        """The newest that this process wrote, which it may not have read back."""

    def apply(self, commit: _Commit) -> None:
        self.committed = True
        self.positions |= {partition: Position(*at) for partition, at in commit.positions.items()}
        if commit.state is not None and (self.state is None or commit.state.id != self.state.id):
            if self.state is not None:
                self.parts.pop(self.state.id, None)
                self.obsolete[self.state.id] = self.state.parts
            self.state = commit.state

    def keep(self, id_: str, number: int, message: Message) -> None:
        if message.value is None:
            self.obsolete.pop(id_, None)
            self.parts.pop(id_, None)
        elif id_ not in self.obsolete:
            parts = self.parts.setdefault(id_, _Parts())
            parts.time_ms = message.time_ms
            parts.bytes[number] = message.value

    def whole(self) -> bytes | None:
        if self.state is None:
            return None
        found = self.parts.get(self.state.id, _Parts()).bytes
        state = b"".join(found.get(number, b"") for number in range(self.state.parts))
        if len(state) != self.state.size or zlib.crc32(state) != self.state.crc:
            raise LogDamaged(f"what the group {self._name} wrote down is not what it was written as")
        return state

    def deletions(self, now_ms: int) -> list[Outgoing]:
        """Of the parts that nobody needs any more."""
        current = self.state and self.state.id
        old = now_ms - int(ORPHAN_S * 1_000)
        orphans = {i: max(p.bytes) + 1 for i, p in self.parts.items() if i != current and p.time_ms < old and p.bytes}
        gone = {**self.obsolete, **orphans, **({self.own.id: self.own.parts} if self.own else {})}
        return [Outgoing(None, _part_key(self._name, id_, n)) for id_, parts in gone.items() for n in range(parts)]


class Groups:
    """How far the groups came."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def apply(self, message: Message) -> None:
        """What the next message says."""
        kind, name, *rest = msgspec.json.decode(message.key)
        group = self._groups.setdefault(name, _Group(name))
        if kind == "state":
            group.keep(rest[0], rest[1], message)
        elif message.value is not None:
            group.apply(msgspec.json.decode(message.value, type=_Commit))

    def committed(self, name: str) -> Committed:
        """See `Bus.committed`; raises `LogDamaged` for a state that is not whole."""
        group = self._groups.get(name)
        return Committed() if group is None else Committed(dict(group.positions), group.whole())

    def names(self) -> list[str]:
        """See `Bus.groups`."""
        return sorted(name for name, group in self._groups.items() if group.committed)

    def positions(self) -> list[tuple[int, Position]]:
        """All positions that were committed, with their partitions."""
        return [each for group in self._groups.values() for each in group.positions.items()]

    def commit(self, name: str, positions: Mapping[int, Position], state: bytes | None) -> list[Outgoing]:
        """The messages of a commit."""
        places: list[int | None] = [*positions]
        messages: list[Outgoing] = []
        stored = None
        deletions: list[Outgoing] = []
        if state is not None:
            places.append(None)
            stored, messages = _in_parts(name, state)
            group = self._groups.setdefault(name, _Group(name))
            deletions = group.deletions(time.time_ns() // 1_000_000)
            group.own = stored
        commit = msgspec.json.encode(_Commit({p: (at.epoch, at.offset) for p, at in positions.items()}, stored))
        messages += [Outgoing(commit, msgspec.json.encode(["commit", name, place])) for place in places]
        return messages + deletions


def _in_parts(name: str, state: bytes) -> tuple[_Stored, list[Outgoing]]:
    id_ = uuid.uuid4().hex
    parts = [state[at : at + _PART_BYTES] for at in range(0, len(state), _PART_BYTES)]
    messages = [Outgoing(part, _part_key(name, id_, number)) for number, part in enumerate(parts)]
    return _Stored(id_, len(parts), len(state), zlib.crc32(state)), messages


def _part_key(name: str, id_: str, number: int) -> bytes:
    return msgspec.json.encode(["state", name, id_, number])
