"""Reading the journal: each partition from where it was read to the last time up to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tapehouse.bus.kafka.cluster import Cluster, faults, translated
from tapehouse.bus.kafka.journal import Message
from tapehouse.errors import Unavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka import Message as Read

_AT_ONCE = 500


class Follower:
    """Applies the messages of one partition, in their order and each once."""

    def __init__(self, cluster: Cluster, topic: str, partition: int, apply: Callable[[Message], None]) -> None:
        self._cluster, self._place, self._apply = cluster, (topic, partition), apply
        self._next = 0
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._closed = False

    def catch_up(self, end: int | None = None) -> bool:
        """Apply all there is now, or what is before `end`; False when the partition has less than was read of it."""
        with self._lock:
            if self._closed:
                raise Unavailable(f"the log's journal {self._place[0]} is closed, or is read anew")
            end = self._cluster.latest([self._place])[self._place] if end is None else end
            if end < self._next:
                return False
            if end > self._next:
                self._read_to(end)  # and what came since the end was asked for
            return True

    def _read_to(self, end: int) -> None:
        from confluent_kafka import TopicPartition

        if self._consumer is None:
            # Many consumers wait half a second for what comes next, and hear of nothing else until then.
            self._consumer = self._cluster.consumer({"fetch.wait.max.ms": 10})
        patience = time.monotonic() + self._cluster.timeout_s
        with faults(self._cluster.servers):
            self._consumer.assign([TopicPartition(*self._place, self._next)])
            while self._next < end:
                for message in self._consumer.consume(1, 0.1) + self._consumer.consume(_AT_ONCE, 0):
                    if self._took(message, end):
                        patience = time.monotonic() + self._cluster.timeout_s
                if time.monotonic() > patience:
                    raise Unavailable(f"Kafka at {self._cluster.servers} does not hand out {self._place[0]}")
            self._consumer.unassign()

    def _took(self, message: Read, end: int) -> bool:
        error, offset = message.error(), message.offset()
        if error is None and offset is not None:
            self._apply(Message(message.key() or b"", message.value(), message.timestamp()[1]))
            self._next = offset + 1
        elif error is not None and error.name() == "_PARTITION_EOF":
            # Compaction may have removed what was last.
            self._next = max(self._next, end)
        elif error is not None and not (error.retriable() or error.name() in ("_TRANSPORT", "_ALL_BROKERS_DOWN")):
            raise translated(error, self._cluster.servers)
        return error is None

    def close(self) -> None:
        """Let go of the connection; idempotent."""
        with self._lock:
            self._closed = True
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None
