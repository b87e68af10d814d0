"""The log in Kafka, as everybody sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from tapehouse.bus.base import Committed, Ends, Logged, Lost, Membership, Piece, Retention, Survives
from tapehouse.bus.kafka.cluster import Cluster
from tapehouse.bus.kafka.cursors import STAMP, Cursor, Cursors, Found, Strayed
from tapehouse.bus.kafka.members import Member
from tapehouse.bus.kafka.places import GROUPS, Places
from tapehouse.bus.kafka.writer import Outgoing, Writer
from tapehouse.codec.live.entries import Entry, decode_entry, encode_entry
from tapehouse.errors import InvalidData, LogDamaged, Unavailable
from tapehouse.model import Position

PARTITIONS = 4
TIMEOUT_S = 10.0
SESSION_S = 10.0
COMPRESSION = "lz4"
_TRIES = 5


class _Sizes:
    """What an entry of a partition takes on average, by those that this process met; brokers do not tell."""

    def __init__(self) -> None:
        self.entries = self.bytes = 0

    def add(self, sizes: Sequence[int]) -> None:
        self.entries += len(sizes)
        self.bytes += sum(sizes)

    def of(self, entries: int) -> int:
        return -(-self.bytes * entries // self.entries) if self.entries else 0


class KafkaBus:
    """A log in the topic of that name, which is made when there is none.

    `partitions` and `replicas` (None: as the brokers do by default) are those of a topic that is made. An append or a
    question is given up after `timeout_s`; a member of a group that does not ask for `session_s` loses its partitions.
    `config` are settings of librdkafka. Raises `Unavailable` when the brokers do not answer.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        *,
        partitions: int = PARTITIONS,
        replicas: int | None = None,
        timeout_s: float = TIMEOUT_S,
        session_s: float = SESSION_S,
        compression: str = COMPRESSION,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._cluster = Cluster(servers, config or {}, timeout_s, compression)
        self._topic, self._timeout_s, self._session_s = topic, timeout_s, session_s
        self._closed = threading.Event()
        self._cursors = Cursors(self._cluster, topic)
        self._writer: Writer | None = None
        self._places = Places(self._cluster, topic, partitions, replicas, self._changed)
        self._writer = Writer(self._cluster, topic, self._places.room)
        self._writer.connect()
        self._sizes = [_Sizes() for _ in range(self.partitions)]
        self._members: dict[str, list[Member]] = {}
        self._since: dict[int, tuple[Position, int]] = {}

    @property
    def survives(self) -> Survives:
        """See `Bus.survives`: by how many brokers have an entry before it counts, and whether they sync it to disk."""
        return self._places.survives

    @property
    def partitions(self) -> int:
        """See `Bus.partitions`."""
        return self._places.partitions

    def _changed(self) -> None:
        """A topic is another than it was, or lost its end: no connection goes on where it stood."""
        self._cursors.forget()
        if self._writer is not None:
            self._writer.renew()

    def append(self, partition: int, entries: Sequence[Entry]) -> list[Position]:
        """See `Bus.append`. Raises `LimitExceeded` for an entry that is larger than the topic takes."""
        self._check_open()
        self._places.verify()
        before, epochs = self._places.end(partition), self._places.epochs_of(partition)
        stamp = [(STAMP, b"%d" % epochs[-1].epoch)]
        now_ms = time.time_ns() // 1_000_000
        messages = [
            Outgoing(encode_entry(entry), None, stamp, max(1, min(entry.ingested // 1_000_000, now_ms)))
            for entry in entries
        ]
        assert self._writer is not None
        offsets = self._writer.send(partition, messages)
        self._sizes[partition].add([len(message.value or b"") for message in messages])
        if offsets and offsets[0] < before:
            self._places.went_back(partition, offsets[0], epochs[-1].epoch)
        if offsets:
            self._places.reached(partition, offsets[-1] + 1)
        known = Ends(0, 0, self._places.epochs_of(partition))
        return [known.at(offset) for offset in offsets]

    def read(
        self,
        partition: int,
        after: Position | None,
        *,
        limit: int = 1_000,
        max_bytes: int = 1 << 24,
        wait_s: float = 0.0,
    ) -> Piece:
        """See `Bus.read`. Raises `Unavailable` when there are entries and no broker hands them out."""
        end = time.monotonic() + wait_s
        for _ in range(_TRIES):
            if self._closed.is_set():
                return Piece([])
            self._places.verify()
            left = max(0.0, end - time.monotonic()) if wait_s else 0.0
            try:
                piece = self._read_on(partition, after, limit, max_bytes, left)
                return piece or self._read_from(partition, after, limit, max_bytes, left)
            except Strayed:
                self._places.verify(always=True)
        raise Unavailable(f"the log in {self._topic} changes faster than it can be read")

    def _read_on(
        self, partition: int, after: Position | None, limit: int, max_bytes: int, wait_s: float
    ) -> Piece | None:
        """With a cursor that stands there; None when there is none."""
        with self._cursors.after(partition, after) as cursor:
            if cursor is None:
                return None
            if wait_s:
                found = cursor.take(limit, max_bytes, wait_s, self._closed.is_set)
            else:
                place = (self._topic, partition)
                end = self._cluster.latest([place])[place]
                found = self._take_there(cursor, limit, max_bytes, end) if end > cursor.next else []
            return self._piece(cursor, found, after, None)

    def _read_from(self, partition: int, after: Position | None, limit: int, max_bytes: int, wait_s: float) -> Piece:
        ends = self._bounds(partition)
        start, lost = ends.start(after)
        there = start < ends.next
        if not there and (lost or not wait_s):
            return Piece([], lost)
        with self._cursors.at(partition, start, ends.epochs) as cursor:
            try:
                if there:
                    found = self._take_there(cursor, limit, max_bytes, ends.next)
                else:
                    found = cursor.take(limit, max_bytes, wait_s, self._closed.is_set)
            except Strayed:
                # What is there begins later than the log does: something else wrote to the topic, or deleted from it.
                if cursor.leap is None or cursor.leap < start:
                    raise
                lost = Lost(after=after or ends.at(start - 1), first=ends.at(cursor.leap))
                cursor.next = cursor.leap
                found = cursor.take(limit, max_bytes, 0.0, self._closed.is_set)
            return self._piece(cursor, found, after if lost is None else None, lost)

    def _take_there(self, cursor: Cursor, limit: int, max_bytes: int, end: int) -> list[Found]:
        """What is known to be there, up to that entry."""
        found = cursor.take(limit, max_bytes, self._timeout_s, self._closed.is_set, end)
        if not found and not self._closed.is_set():
            raise Unavailable(f"Kafka at {self._cluster.servers} does not hand out entry {cursor.next}")
        return found

    def _piece(self, cursor: Cursor, found: list[Found], after: Position | None, lost: Lost | None) -> Piece:
        """What was found, and where the reader stands then."""
        partition = cursor.partition
        stamps = {b"%d" % began.epoch for began in cursor.epochs} | {b""}
        if any(each.stamp not in stamps for each in found):
            self._places.verify(always=True)
        if self._places.epochs_of(partition) != cursor.epochs:
            raise Strayed
        known = Ends(0, 0, cursor.epochs)
        logged = [self._decoded(known.at(each.offset), each.data) for each in found]
        if found:
            self._places.reached(partition, cursor.next)
            self._sizes[partition].add([len(each.data) for each in found])
        cursor.after = logged[-1].position if logged else after
        return Piece(logged, lost)

    def _decoded(self, position: Position, data: bytes) -> Logged:
        try:
            return Logged(position, decode_entry(data))
        except InvalidData as exc:
            raise LogDamaged(
                f"entry {position.offset} of the log in {self._topic}: {exc}", offset=position.offset
            ) from exc

    def _bounds(self, partition: int) -> Ends:
        first, following = self._cluster.bounds(self._topic, partition)
        return Ends(first, following, self._places.epochs_of(partition))

    def ends(self, partition: int) -> Ends:
        """See `Bus.ends`; `bytes` is how many entries there are, times what those take that this process met."""
        self._places.verify()
        ends = self._bounds(partition)
        since = self._since_of(partition, ends) if ends.first < ends.next else None
        size = self._sizes[partition].of(ends.next - ends.first)
        return Ends(ends.first, ends.next, ends.epochs, size, since)

    def _since_of(self, partition: int, ends: Ends) -> int | None:
        oldest = ends.at(ends.first)
        known = self._since.get(partition)
        if known is None or known[0] != oldest:
            found = self.read(partition, None, limit=1).entries
            if not found:
                return None
            known = self._since[partition] = found[0].position, found[0].entry.ingested
        return known[1]

    def commit(self, group: str, positions: Mapping[int, Position], state: bytes | None = None) -> None:
        """See `Bus.commit`."""
        self._check_open()
        self._places.verify()
        with self._places.groups(read=False) as groups:
            messages = groups.commit(group, positions, state)
        self._places.writer.send(GROUPS, messages)
        for member in self._members.get(group, ()):
            member.mirror(positions)

    def committed(self, group: str) -> Committed:
        """See `Bus.committed`."""
        self._places.verify()
        with self._places.groups() as groups:
            return groups.committed(group)

    def groups(self) -> list[str]:
        """See `Bus.groups`."""
        self._places.verify()
        with self._places.groups() as groups:
            return groups.names()

    def join(self, group: str) -> Membership:
        """See `Bus.join`; for Kafka's tools the group is `TOPIC.GROUP`. Waits until there is a first share."""
        self._check_open()
        member = Member(self._cluster, self._topic, f"{self._topic}.{group}", self._session_s)
        self._members.setdefault(group, []).append(member)
        return member

    def trim(self, keep: Retention, protected: Mapping[int, Position]) -> int:
        """See `Bus.trim`; bytes are those of `ends`, and a broker frees its disk segment by segment."""
        self._check_open()
        self._places.verify()
        return sum(self._trim(partition, keep, protected.get(partition)) for partition in range(self.partitions))

    def _trim(self, partition: int, keep: Retention, protected: Position | None) -> int:
        ends, sizes = self._bounds(partition), self._sizes[partition]
        until = ends.first
        if keep.age_s is not None:
            oldest = self._cluster.since(self._topic, partition, int((time.time() - keep.age_s) * 1_000))
            until = ends.next if oldest is None else oldest
        if keep.bytes is not None and self._size_known(partition, ends):
            most = keep.bytes // self.partitions * sizes.entries // max(1, sizes.bytes)
            until = max(until, ends.next - most)
        if protected is not None:
            until = min(until, ends.start(protected)[0])
        until = min(until, ends.next)
        if until <= ends.first:
            return 0
        self._cluster.drop_before(self._topic, partition, until)
        return sizes.of(until - ends.first)

    def _size_known(self, partition: int, ends: Ends) -> bool:
        """Whether there is an entry to know sizes by; one is read if none was met."""
        if not self._sizes[partition].entries and ends.first < ends.next:
            self.read(partition, None, limit=1)
        return self._sizes[partition].entries > 0

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Unavailable(f"the log in {self._topic} is closed")

    def close(self) -> None:
        """See `Closes.close`; members leave their groups."""
        self._closed.set()
        for member in [each for members in self._members.values() for each in members]:
            member.leave()
        self._cursors.close()
        if self._writer is not None:
            self._writer.close()
        self._places.close()
