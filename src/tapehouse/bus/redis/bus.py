"""The log in Redis, as everybody sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tapehouse.bus.base import Began, Committed, Ends, Logged, Membership, Piece, Retention, Survives
from tapehouse.bus.recent import within
from tapehouse.bus.redis import scripts
from tapehouse.bus.redis.members import Member
from tapehouse.bus.redis.server import TIMEOUT_S, Server
from tapehouse.codec.live.entries import Entry, decode_entry, encode_entry
from tapehouse.errors import InvalidData, InvalidSetting, LogDamaged, Unavailable, Unsettled
from tapehouse.model import Position

PARTITIONS = 4
MEMBER_S = 10.0
_SLICE_S = 0.2
"""A wait is cut into pieces of that length, so that `close` is noticed."""
_TRIES = 5
_UNKNOWN_FIT = 1_000
"""Entries that are read at once of a log that has not said how large they are."""


class RedisBus:
    """A log in the streams of one server.

    `partitions` are those of a log that is made; one that is there keeps its own. `max_bytes` is how much each
    partition may take. With `wait_replicas`, an append returns once so many replicas have it. Raises `Unavailable`
    when the server does not answer.
    """

    cluster = False

    def __init__(
        self,
        url: str,
        *,
        partitions: int = PARTITIONS,
        prefix: str = "tapehouse",
        max_bytes: int | None = None,
        wait_replicas: int = 0,
        timeout_s: float = TIMEOUT_S,
        member_s: float = MEMBER_S,
    ) -> None:
        self._server = Server(url, cluster=self.cluster, timeout_s=timeout_s)
        self._prefix, self._max_bytes, self._member_s = prefix, max_bytes or 0, member_s
        self._wait_replicas, self._timeout_s = wait_replicas, timeout_s
        self._closed, self._ended, self._reads = threading.Event(), threading.Condition(), 0
        self.partitions = self._agree(partitions)
        self._known: dict[int, Ends] = {}

    def _agree(self, partitions: int) -> int:
        """How many partitions the log has; whoever makes it says so first."""
        if partitions < 1:
            raise InvalidSetting(f"a log has at least one partition, not {partitions}", setting="bus")
        key = f"{{{self._prefix}:groups}}:partitions"
        self._server.call("SET", key, partitions, "NX")
        return int(self._server.call("GET", key))

    @property
    def survives(self) -> Survives:
        """See `Bus.survives`: by what the server is told to do with its append-only file."""
        if self._wait_replicas:
            return Survives.NODE
        try:
            told = self._server.config("appendonly", "appendfsync")
        except LogDamaged:
            return Survives.NOTHING  # it does not say
        if told.get("appendonly") != "yes":
            return Survives.NOTHING
        return Survives.MACHINE if told.get("appendfsync") == "always" else Survives.PROCESS

    def _keys(self, partition: int) -> list[str]:
        return [f"{{{self._prefix}:{partition}}}:log", f"{{{self._prefix}:{partition}}}:meta"]

    def _known_end(self, partition: int) -> tuple[int, int]:
        """The newest epoch and the next number that this process has seen."""
        ends = self._known.get(partition)
        return (0, 0) if ends is None else (ends.epochs[-1].epoch, ends.next)

    def append(self, partition: int, entries: Sequence[Entry]) -> list[Position]:
        """See `Bus.append`."""
        self._check_open()
        data = [encode_entry(entry) for entry in entries]
        now = time.time_ns() // 1_000_000
        arguments = [now, *self._known_end(partition), self._max_bytes, *data]
        first, epochs = self._server.ask_once(scripts.APPEND, self._keys(partition), arguments)
        begun, number = _epochs(epochs), int(first)
        self._note(partition, Ends(0, number + len(data), begun))
        if self._wait_replicas:
            self._await_replicas(partition)
        return [Position(begun[-1].epoch, number + place) for place in range(len(data))]

    def _await_replicas(self, partition: int) -> None:
        log, _ = self._keys(partition)
        have = self._server.replicas(log, self._wait_replicas, int(self._timeout_s * 1_000))
        if have < self._wait_replicas:
            raise Unsettled(f"{have} of {self._wait_replicas} replicas have the entries after {self._timeout_s:g} s")

    def _note(self, partition: int, ends: Ends) -> None:
        known = self._known.get(partition)
        if known is None or (ends.epochs[-1].epoch, ends.next) > (known.epochs[-1].epoch, known.next):
            self._known[partition] = ends

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
        due_s = time.monotonic() + wait_s
        self._check_open()
        with self._reading():
            while True:
                piece, start = self._read(partition, after, limit, max_bytes)
                left_s = due_s - time.monotonic()
                if piece.entries or piece.lost or left_s <= 0 or self._closed.is_set():
                    return piece
                self._wait(partition, start, min(left_s, _SLICE_S))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A read is under way: its connection is not closed before it has ended."""
        with self._ended:
            self._reads += 1
        try:
            yield
        finally:
            with self._ended:
                self._reads -= 1
                self._ended.notify_all()

    def _read(self, partition: int, after: Position | None, limit: int, max_bytes: int) -> tuple[Piece, int]:
        """What there is now, and the number of the entry to wait for when that is nothing."""
        ends = self._known.get(partition)
        start = 0 if after is None else after.offset + 1
        for _ in range(_TRIES):
            count = min(limit, _fitting(ends, max_bytes))
            ends, found = self._look(partition, start, count)
            wanted, lost = ends.start(after)
            if wanted == start:
                entries = within((self._decoded(partition, ends, *each) for each in found), max_bytes)
                return Piece(entries, lost), wanted
            start = wanted  # the log is not as it was: ask again from there
        raise Unavailable(f"partition {partition} of the log changes faster than it can be read")

    def _look(self, partition: int, start: int, count: int) -> tuple[Ends, list[Any]]:
        now = time.time_ns() // 1_000_000
        arguments = [now, *self._known_end(partition), max(0, start), count]
        epochs, first, following, size, found, oldest = self._server.ask(scripts.READ, self._keys(partition), arguments)
        since = decode_entry(oldest[0][1][1]).ingested if oldest else None
        ends = Ends(int(first), int(following), _epochs(epochs), int(size), since)
        self._note(partition, ends)
        return ends, found

    @staticmethod
    def _decoded(partition: int, ends: Ends, name: bytes, fields: Sequence[bytes]) -> Logged:
        number = int(name.partition(b"-")[0])
        try:
            return Logged(ends.at(number), decode_entry(fields[1]))
        except InvalidData as exc:
            raise LogDamaged(f"entry {number} of partition {partition} of the log: {exc}", offset=number) from exc

    def _wait(self, partition: int, start: int, wait_s: float) -> None:
        log, _ = self._keys(partition)
        self._server.wait(log, f"{max(0, start)}-0", max(1, int(wait_s * 1_000)))

    def ends(self, partition: int) -> Ends:
        """See `Bus.ends`."""
        self._check_open()
        return self._look(partition, 0, 0)[0]

    def commit(self, group: str, positions: Mapping[int, Position], state: bytes | None = None) -> None:
        """See `Bus.commit`."""
        self._check_open()
        fields: list[Any] = [group]
        for partition, at in positions.items():
            fields += [f"p:{partition}", f"{at.epoch}:{at.offset}"]
        if state is not None:
            fields += ["state", state]
        if len(fields) > 1:
            self._server.ask(scripts.COMMIT, [self._group_key(), self._group_key(group)], fields)

    def _group_key(self, name: str = "") -> str:
        return f"{{{self._prefix}:groups}}:{'group:' + name if name else 'names'}"

    def committed(self, group: str) -> Committed:
        """See `Bus.committed`."""
        self._check_open()
        held = self._pairs(self._server.call("HGETALL", self._group_key(group)))
        positions = {}
        for name, value in held.items():
            if name.startswith(b"p:"):
                epoch, _, offset = value.partition(b":")
                positions[int(name[2:])] = Position(int(epoch), int(offset))
        return Committed(positions, held.get(b"state"))

    @staticmethod
    def _pairs(answer: Any) -> dict[bytes, bytes]:
        if isinstance(answer, dict):
            return answer
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def groups(self) -> list[str]:
        """See `Bus.groups`."""
        self._check_open()
        return sorted(name.decode() for name in self._server.call("SMEMBERS", self._group_key()))

    def join(self, group: str) -> Membership:
        """See `Bus.join`."""
        tag = f"{{{self._prefix}:groups}}"
        keys = [f"{tag}:members:{group}", f"{tag}:leases:{group}"]
        return Member(self._server, keys, self.partitions, self._member_s)

    def trim(self, keep: Retention, protected: Mapping[int, Position]) -> int:
        """See `Bus.trim`."""
        return sum(self._trim(partition, keep, protected.get(partition)) for partition in range(self.partitions))

    def _trim(self, partition: int, keep: Retention, until: Position | None) -> int:
        ends = self.ends(partition)
        # What a group knows of another epoch may not be what is there now: then nothing of that is let go.
        most = ends.next if until is None else ends.start(until)[0]
        first = min(most, self._first_kept(partition, ends, keep))
        if first <= ends.first:
            return 0
        now = time.time_ns() // 1_000_000
        return int(self._server.ask(scripts.TRIM, self._keys(partition), [now, first]))

    def _first_kept(self, partition: int, ends: Ends, keep: Retention) -> int:
        """The number of the first entry that is young enough and that there is room for."""
        first = ends.first
        if keep.bytes is not None and ends.bytes > keep.bytes // self.partitions:
            share = keep.bytes // self.partitions / max(1, ends.bytes)
            first = ends.next - int((ends.next - ends.first) * share)
        if keep.age_s is not None:
            oldest = time.time_ns() - int(keep.age_s * 1e9)
            low, high = ends.first, ends.next
            while low < high:  # entries are in the order in which they were taken
                middle = (low + high) // 2
                found = self._look(partition, middle, 1)[1]
                if found and self._decoded(partition, ends, *found[0]).entry.ingested < oldest:
                    low = middle + 1
                else:
                    high = middle
            first = max(first, low)
        return first

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Unavailable("the log is closed")

    def close(self) -> None:
        """See `Closes.close`."""
        if not self._closed.is_set():
            self._closed.set()
            with self._ended:
                self._ended.wait_for(lambda: self._reads == 0, self._timeout_s)
            self._server.close()


class RedisClusterBus(RedisBus):
    """The same in a cluster, over which the partitions are spread."""

    cluster = True


def _epochs(text: bytes) -> tuple[Began, ...]:
    pairs = (part.split(b":") for part in text.split(b","))
    return tuple(Began(int(epoch), int(offset)) for epoch, offset in pairs)


def _fitting(ends: Ends | None, max_bytes: int) -> int:
    """How many entries have about so many bytes."""
    if ends is None or not ends.bytes or ends.next == ends.first:
        return _UNKNOWN_FIT
    return max(1, 2 * max_bytes * (ends.next - ends.first) // ends.bytes)
