"""The two topics of a log: making them, noticing when they are others than they were, and the epochs that follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tapehouse.bus.base import Began, Survives
from tapehouse.bus.kafka.cluster import Cluster, Topic, room
from tapehouse.bus.kafka.follower import Follower
from tapehouse.bus.kafka.journal import Begins, Epochs, Groups
from tapehouse.bus.kafka.writer import Writer
from tapehouse.errors import InvalidSetting, Unavailable

VERIFY_S = 1.0
"""How often it is asked whether a topic is still the one that it was."""
MAX_BATCH_BYTES = 8 << 20
"""What one batch of entries may have in a topic that is made here."""
_SEGMENT_BYTES = 64 << 20
_TRIES = 5
EPOCHS, GROUPS = 0, 1
"""The partitions of the journal."""


class Places:
    """What is known of a log's topics, kept up to date. Thread-safe.

    `partitions` and `replicas` are those of topics that are made here; `changed` is called when a topic took the place
    of another or lost its end.
    """

    def __init__(
        self, cluster: Cluster, name: str, partitions: int, replicas: int | None, changed: Callable[[], None]
    ) -> None:
        self._cluster, self.name, self.journal = cluster, name, f"{name}-groups"
        self._wanted, self._replicas, self._changed = partitions, replicas, changed
        self._lock, self._groups_lock = threading.RLock(), threading.Lock()
        self._verified = 0.0
        self._journal_id = ""
        self._ends: dict[int, int] = {}
        found = self._found()
        self.partitions = found[name].partitions
        config, journal_config = cluster.config_of(name), cluster.config_of(self.journal)
        self.room = room(config)
        self.survives = _survives(found[name], config)
        self.writer = Writer(cluster, self.journal, room(journal_config))
        self._forget()
        self.verify(always=True)
        self._check_commits()

    def _forget(self) -> None:
        """Begin to read the journal."""
        self._epochs, self._groups = Epochs(), Groups()
        self._epochs_read = Follower(self._cluster, self.journal, EPOCHS, self._epochs.apply)
        self._groups_read = Follower(self._cluster, self.journal, GROUPS, self._groups.apply)

    def _found(self) -> dict[str, Topic]:
        """Both topics, made if they are not there."""
        names = (self.name, self.journal)
        found = self._cluster.describe(names)
        if len(found) < len(names):
            if self.name not in found:
                self._cluster.create(self.name, self._wanted, self._replicas, self._settings())
            if self.journal not in found:
                compacted = {
                    "cleanup.policy": "compact",
                    "min.cleanable.dirty.ratio": "0.1",
                    "segment.bytes": str(_SEGMENT_BYTES),
                }
                self._cluster.create(self.journal, 2, self._replicas, self._settings() | compacted)
            found = self._cluster.await_topics(names)
        if found[self.journal].partitions != 2:
            raise InvalidSetting(f"the topic {self.journal} has other than 2 partitions, and is not one of ours")
        return found

    def _settings(self) -> dict[str, str]:
        # What is trimmed is decided here, where it is known who has not read it.
        settings = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
        settings["max.message.bytes"] = str(MAX_BATCH_BYTES)
        if self._replicas is not None and self._replicas > 1:
            settings["min.insync.replicas"] = "2"
        return settings

    def verify(self, *, always: bool = False) -> None:
        """Find out whether the topics are what they were, unless that was done a moment ago.

        Raises `Unavailable` when the brokers do not answer.
        """
        if not always and time.monotonic() - self._verified < VERIFY_S:
            return
        with self._lock:
            if not always and time.monotonic() - self._verified < VERIFY_S:
                return
            for _ in range(_TRIES):
                if self._verify():
                    self._verified = time.monotonic()
                    return
            raise Unavailable(f"the topics of the log in {self.name} change faster than they can be followed")

    def _verify(self) -> bool:
        """Whether all is as the journal has it; if not, the journal has it now, or somebody else was faster."""
        known, ends = self._epochs.topic_id, dict(self._ends)
        found = self._found()
        if found[self.journal].id != self._journal_id:
            self._close_followers()
            self._forget()
            self.writer.renew()
            self._journal_id = found[self.journal].id
            self._catch_up_epochs()
            known = self._epochs.topic_id
            found = self._found()
        latest = self._latest()
        self._follow(self._epochs_read, latest[self.journal, EPOCHS])
        if self._epochs.topic_id != known:
            self._renew()
            return False
        if found[self.name].id != known:
            self._declare(self._epochs.renewed(found[self.name].id))
            return False
        for partition, end in ends.items():
            if latest[self.name, partition] < end:
                self._declare(self._epochs.cut(partition, latest[self.name, partition]))
                return False
        return True

    def _latest(self) -> dict[tuple[str, int], int]:
        partitions = [(self.name, partition) for partition in range(self.partitions)]
        return self._cluster.latest([(self.journal, EPOCHS), *partitions])

    def _declare(self, begins: Begins) -> None:
        self.writer.send(EPOCHS, [begins.message()])
        self._catch_up_epochs()
        self._renew()

    def _renew(self) -> None:
        self._ends = {}
        self._changed()

    def went_back(self, partition: int, offset: int, epoch: int) -> None:
        """An entry got a number that another had in that epoch: the topic is a new one, or has lost its end."""
        with self._lock:
            self._ends[partition] = min(offset, self._ends.get(partition, 0))
            self.verify(always=True)
            newest = self._epochs.of(partition)[-1]
            if newest.epoch == epoch or newest.offset > offset:
                self._declare(self._epochs.cut(partition, offset))

    def _check_commits(self) -> None:
        """A log that ends before what a group came to lost its end while nobody watched."""
        with self.groups() as groups:
            committed = groups.positions()
        for partition, position in committed:
            if partition < self.partitions and position.epoch == self._epochs.newest(partition):
                self.reached(partition, position.offset + 1)
        self.verify(always=True)

    def reached(self, partition: int, following: int) -> None:
        """There are entries up to that one."""
        with self._lock:
            self._ends[partition] = max(following, self._ends.get(partition, 0))

    def end(self, partition: int) -> int:
        """The entry up to which there are some for sure, as far as this process knows."""
        return self._ends.get(partition, 0)

    def epochs_of(self, partition: int) -> tuple[Began, ...]:
        """The epochs of a partition, oldest first."""
        return self._epochs.of(partition)

    @contextmanager
    def groups(self, *, read: bool = True) -> Iterator[Groups]:
        """The groups, nobody else's meanwhile, and by default with all commits there are."""
        with self._groups_lock:
            if read:
                self._follow(self._groups_read, None)
            yield self._groups

    def _catch_up_epochs(self) -> None:
        self._follow(self._epochs_read, None)

    def _follow(self, follower: Follower, end: int | None) -> None:
        if not follower.catch_up(end):
            self._journal_id = ""
            raise Unavailable(f"the topic {self.journal} has less than it had, and is read again")

    def _close_followers(self) -> None:
        self._epochs_read.close()
        self._groups_read.close()

    def close(self) -> None:
        """Let go of the connections; idempotent."""
        self.writer.close()
        with self._lock:
            self._close_followers()


def _survives(topic: Topic, config: dict[str, str]) -> Survives:
    if topic.replicas > 1 and int(config.get("min.insync.replicas", 1)) > 1:
        return Survives.NODE
    return Survives.MACHINE if config.get("flush.messages") == "1" else Survives.PROCESS
