"""Reading entries: consumers that stand where readers came to, so that who reads on needs to seek nothing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tapehouse.bus.base import Began
from tapehouse.bus.kafka.cluster import Cluster, faults, translated
from tapehouse.bus.recent import ENTRY_BYTES
from tapehouse.model import Position

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

MAX_IDLE = 8
"""Cursors of a log that are kept while nobody reads with them; each has a connection and up to 8 MB."""
STAMP = "epoch"
"""The header that says in which epoch whoever wrote an entry believed to be."""
_SLICE_S = 0.25
"""How soon who waits notices that the log was closed."""
_AT_ONCE = 500
_PASSING = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION")
_STRAYED = ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_LOG_TRUNCATION", "UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID")


class Strayed(Exception):
    """What comes next for a cursor is not there any more: trimmed, cut off, or of a topic that is gone."""


class Found(NamedTuple):
    """An entry as it was read; `stamp` is empty when it has none."""

    offset: int
    stamp: bytes
    data: bytes


class Cursor:
    """A consumer of one partition, used by one thread at a time."""

    def __init__(self, cluster: Cluster, topic: str, partition: int) -> None:
        self._cluster, self._place = cluster, (topic, partition)
        self._consumer: Consumer = cluster.consumer()
        self._held: deque[Found] = deque()
        self._strayed = False
        self.partition = partition
        self.next = 0
        self.epochs: tuple[Began, ...] = ()
        """Those of the partition when it was started: what it finds later may be of another one."""
        self.after: Position | None = None
        """Where the reader stands who got the last entry that this one gave."""

    def start(self, offset: int, epochs: tuple[Began, ...]) -> None:
        """Stand before that entry of a partition with those epochs."""
        from confluent_kafka import TopicPartition

        self._held.clear()
        self._strayed, self.after, self.next, self.epochs = False, None, offset, epochs
        with faults(self._cluster.servers):
            self._consumer.assign([TopicPartition(*self._place, offset)])

    def take(self, limit: int, max_bytes: int, wait_s: float, stopped: Callable[[], bool], end: int = 0) -> list[Found]:
        """What comes next, waiting so long for the first, or for all before `end`.

        Raises `Strayed` when the next one is another than it should be.
        """
        deadline = time.monotonic() + wait_s
        self._fetch(limit, deadline, stopped)
        while self._held and self._wanting(limit, max_bytes, end) and self._fetch_more(limit, deadline, stopped):
            pass
        taken: list[Found] = []
        size = 0
        while self._held and len(taken) < limit and self._held[0].offset == self.next:
            size += len(self._held[0].data) + ENTRY_BYTES
            if taken and size > max_bytes:
                break
            taken.append(self._held.popleft())
            self.next += 1
        if not taken and (self._held or self._strayed):
            raise Strayed
        return taken

    @property
    def leap(self) -> int | None:
        """After `Strayed`: the number of the entry that is there in place of the next one, if there is one."""
        return self._held[0].offset if self._held else None

    def _wanting(self, limit: int, max_bytes: int, end: int) -> bool:
        """Whether more than what is held is there and asked for."""
        held = self._held
        return held[-1].offset + 1 < end and len(held) < limit and sum(len(each.data) for each in held) < max_bytes

    def _fetch(self, limit: int, deadline: float, stopped: Callable[[], bool]) -> None:
        while not (self._held or self._strayed):
            if not self._fetch_more(limit, deadline, stopped):
                return

    def _fetch_more(self, limit: int, deadline: float, stopped: Callable[[], bool]) -> bool:
        """False once nobody waits any more."""
        left = deadline - time.monotonic()
        message = self._consumer.poll(max(0.0, min(left, _SLICE_S)))
        if message is None:
            return left > 0 and not stopped() and not self._strayed
        self._keep(message)
        if limit > 1:
            for each in self._consumer.consume(min(limit - 1, _AT_ONCE), 0):
                self._keep(each)
        return not self._strayed

    def _keep(self, message: Message) -> None:
        error = message.error()
        if error is None:
            stamp = dict(message.headers() or ()).get(STAMP) or b""
            found = Found(message.offset() or 0, stamp, message.value() or b"")  # type: ignore[arg-type]
            self._held.append(found)
        elif error.name() in _STRAYED:
            self._strayed = True
        elif error.name() != "_PARTITION_EOF" and error.name() not in _PASSING and not error.retriable():
            raise translated(error, self._cluster.servers)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


class Cursors:
    """The cursors of a log. Thread-safe."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster, self._topic = cluster, topic
        self._idle: list[Cursor] = []
        self._lock = threading.Lock()
        self._generation = 0
        self._closed = False

    @contextmanager
    def after(self, partition: int, after: Position | None) -> Iterator[Cursor | None]:
        """One that stands after that entry, if there is one; it is kept for the next reader unless it strays."""
        with self._lock:
            standing = (each for each in self._idle if each.partition == partition and each.after == after)
            cursor = None if after is None else next(standing, None)
            if cursor is not None:
                self._idle.remove(cursor)
        with self._lent(cursor):
            yield cursor

    @contextmanager
    def at(self, partition: int, offset: int, epochs: tuple[Began, ...]) -> Iterator[Cursor]:
        """One that stands before that entry; see `Cursor.start`."""
        with self._lock:
            full = len(self._idle) >= MAX_IDLE
            cursor = next((each for each in self._idle if full and each.partition == partition), None)
            if cursor is not None:
                self._idle.remove(cursor)
        cursor = cursor or Cursor(self._cluster, self._topic, partition)
        with self._lent(cursor):
            cursor.start(offset, epochs)
            yield cursor

    @contextmanager
    def _lent(self, cursor: Cursor | None) -> Iterator[None]:
        generation = self._generation
        try:
            yield
        except BaseException:
            if cursor is not None:
                cursor.close()
            raise
        if cursor is not None:
            self._return(cursor, generation)

    def _return(self, cursor: Cursor, generation: int) -> None:
        surplus = [cursor]
        with self._lock:
            if generation == self._generation and not self._closed:
                self._idle.append(cursor)
                surplus, self._idle = self._idle[:-MAX_IDLE], self._idle[-MAX_IDLE:]
        for each in surplus:
            each.close()

    def forget(self) -> None:
        """None of those that there are is to be used again: what they stand in is not what it was."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()

    def close(self) -> None:
        """Close all; those in use when they come back."""
        self._closed = True
        self.forget()
