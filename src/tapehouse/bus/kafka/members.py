"""Membership of a consumer group, as Kafka shares out the partitions; the entries are read by other consumers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tapehouse.bus.kafka.cluster import Cluster, faults, translated
from tapehouse.errors import Unavailable
from tapehouse.model import Position

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition

_POLLS = 5
_POLL_S = 0.005
_PASSING = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_PARTITION_EOF", "_MAX_POLL_EXCEEDED", "_TIMED_OUT")
_LOGGER = logging.getLogger("tapehouse.bus.kafka")


class Member:
    """See `Membership`. Who does not ask for `session_s` has no partitions then, and is let in anew when it asks."""

    def __init__(self, cluster: Cluster, topic: str, group: str, session_s: float) -> None:
        self._cluster, self._topic, self._group, self._session_s = cluster, topic, group, session_s
        self._lock = threading.RLock()
        self._owned: set[int] = set()
        self._left = False
        self._consumer: Consumer | None = None
        self._join()

    def _join(self) -> None:
        """Wait for the first share."""
        session_ms = int(self._session_s * 1_000)
        consumer = self._cluster.consumer(
            {
                "group.id": self._group,
                "session.timeout.ms": session_ms,
                "max.poll.interval.ms": session_ms,
                "heartbeat.interval.ms": max(100, session_ms // 5),
                "partition.assignment.strategy": "cooperative-sticky",
                "on_commit": _noted,
            }
        )
        self._settled, self._asked = False, time.monotonic()
        try:
            with faults(self._cluster.servers):
                consumer.subscribe(
                    [self._topic], on_assign=self._given, on_revoke=self._taken_away, on_lost=self._taken_away
                )
                end = time.monotonic() + max(self._cluster.timeout_s, 2 * self._session_s)
                while not self._settled and time.monotonic() < end:
                    self._poll(consumer, 0.1)
            if not self._settled:
                raise Unavailable(f"Kafka at {self._cluster.servers} did not let a member into the group {self._group}")
        except BaseException:
            consumer.close()
            raise
        self._consumer = consumer

    def _given(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        from confluent_kafka import OFFSET_END, TopicPartition

        # Others read them: this one is to fetch nothing.
        consumer.incremental_assign([TopicPartition(each.topic, each.partition, OFFSET_END) for each in partitions])
        consumer.pause(partitions)
        self._owned |= {each.partition for each in partitions}
        self._settled = True

    def _taken_away(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned -= {each.partition for each in partitions}
        consumer.incremental_unassign(partitions)

    def _poll(self, consumer: Consumer, wait_s: float) -> None:
        message = consumer.poll(wait_s)
        error = None if message is None else message.error()
        if error is not None and error.name() not in _PASSING and not error.retriable():
            raise translated(error, self._cluster.servers)

    def partitions(self) -> frozenset[int]:
        """See `Membership.partitions`."""
        with self._lock:
            if self._left:
                return frozenset()
            if time.monotonic() - self._asked > self._session_s:
                # This process stood still, and others may have its partitions long before the driver hears of it.
                self._part()
            if self._consumer is None:
                self._join()
            else:
                with faults(self._cluster.servers):
                    for _ in range(_POLLS):
                        self._poll(self._consumer, _POLL_S)
            self._asked = time.monotonic()
            return frozenset(self._owned)

    def mirror(self, positions: Mapping[int, Position]) -> None:
        """Let Kafka's own tools see how far the group came; nothing here depends on it, or waits for it."""
        from confluent_kafka import TopicPartition

        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._consumer is not None:
                offsets = [TopicPartition(self._topic, at, each.offset + 1) for at, each in positions.items()]
                with faults(self._cluster.servers, unless=("_STATE",)):
                    self._consumer.commit(offsets=offsets, asynchronous=True)
        finally:
            self._lock.release()

    def leave(self) -> None:
        """See `Membership.leave`."""
        with self._lock:
            self._left = True
            self._part()

    def _part(self) -> None:
        self._owned.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()


def _noted(error: KafkaError | None, partitions: list[Any]) -> None:
    if error is not None:
        _LOGGER.debug("Kafka did not note how far a group came: %s", error.str())
