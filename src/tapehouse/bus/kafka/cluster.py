"""The brokers: how they are reached, what a topic there is like, and their errors as ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tapehouse.errors import LimitExceeded, LogError, LogFull, MissingExtra, TapehouseError, Unavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
    from confluent_kafka.admin import AdminClient, OffsetSpec

LINGER_S = 1.0
"""How long the driver collects messages that nobody flushes; a flush, which follows at once, does not wait for it."""
_POLL_S = 0.05
_LOGGER = logging.getLogger("tapehouse.bus.kafka")
_OWN = 1024
"""Bytes of a batch of messages that are not theirs, generously."""

# What broker, driver and network say when they cannot do it now.
_AWAY = frozenset(
    {
        "_TRANSPORT",
        "_ALL_BROKERS_DOWN",
        "_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_MSG_TIMED_OUT",
        "_RESOLVE",
        "_NODE_UPDATE",
        "_WAIT_COORD",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "_DESTROY",
        "_STATE",
        "UNKNOWN_TOPIC_OR_PART",
        "UNKNOWN_TOPIC_ID",
    }
)
# What is said of partitions while they change hands, or are being made: it passes by itself.
_LEADERLESS = frozenset(
    {
        "_NOENT",  # "no leaders found"
        "NOT_LEADER_FOR_PARTITION",
        "LEADER_NOT_AVAILABLE",
        "BROKER_NOT_AVAILABLE",
        "REPLICA_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "OFFSET_NOT_AVAILABLE",
        "NOT_ENOUGH_REPLICAS",
        "NOT_CONTROLLER",
        "NOT_COORDINATOR",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "REQUEST_TIMED_OUT",
        "NETWORK_EXCEPTION",
    }
)
_TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"})
_NO_ROOM = frozenset({"KAFKA_STORAGE_ERROR", "POLICY_VIOLATION"})


class Topic(NamedTuple):
    """A topic as it stands; one that was deleted and created again has another `id`."""

    name: str
    id: str
    partitions: int
    replicas: int


class Cluster:
    """Makes clients of the brokers and asks them about topics.

    `config` are settings of librdkafka (`security.protocol`, `sasl.username` ...) for all of them. Each question takes
    at most about `timeout_s` and raises `Unavailable` when it is not answered by then.
    """

    def __init__(self, servers: str, config: Mapping[str, str], timeout_s: float, compression: str) -> None:
        self.timeout_s, self._compression = timeout_s, compression
        self._config: dict[str, Any] = {
            "client.id": "tapehouse",
            "socket.timeout.ms": _ms(max(timeout_s, 1.0)),
            "socket.connection.setup.timeout.ms": _ms(max(timeout_s, 1.0)),
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1_000,
            "retry.backoff.ms": 50,
            "topic.metadata.refresh.fast.interval.ms": 50,
            "log.connection.close": False,
            "bootstrap.servers": servers,
            **config,
        }
        self._servers = servers
        self._admin = self._made_admin()

    def _made_admin(self) -> AdminClient:
        try:
            from confluent_kafka.admin import AdminClient
        except ModuleNotFoundError as exc:
            raise MissingExtra(f"{exc.name} is not installed: pip install 'tapehouse[kafka]'", extra="kafka") from exc
        with faults(self._servers):
            return AdminClient(dict(self._config), logger=_LOGGER)

    def producer(self, max_bytes: int) -> Producer:
        """A producer whose messages are in order, there once, and acknowledged by all replicas in sync."""
        from confluent_kafka import Producer

        config = {
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": _ms(min(LINGER_S, self.timeout_s / 2)),
            "message.timeout.ms": _ms(self.timeout_s),
            "request.timeout.ms": _ms(self.timeout_s),
            # The driver counts what is its own in a batch; ours is what the messages may have.
            "message.max.bytes": max_bytes + _OWN // 2,
            "batch.size": max_bytes + _OWN // 2,
            "compression.type": self._compression,
        }
        with faults(self._servers):
            return Producer({**config, **self._config}, logger=_LOGGER)

    def consumer(self, settings: Mapping[str, Any] | None = None) -> Consumer:
        """A consumer that never commits by itself and never leaps over what is missing."""
        from confluent_kafka import Consumer

        config = {
            "group.id": "tapehouse",  # of no effect on who only assigns and never commits, but the driver wants one
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 10,
            "fetch.error.backoff.ms": 50,
            "queued.max.messages.kbytes": 8 << 10,
            "max.partition.fetch.bytes": 4 << 20,
        }
        with faults(self._servers):
            return Consumer({**config, **self._config, **(settings or {})}, logger=_LOGGER)

    def describe(self, names: Iterable[str]) -> dict[str, Topic]:
        """Those of the topics that exist."""
        from confluent_kafka import TopicCollection

        wanted = TopicCollection(list(names))
        with faults(self._servers):
            asked = self._admin.describe_topics(wanted, request_timeout=self.timeout_s)
        found = {}
        for name, future in asked.items():
            with faults(self._servers, unless=("UNKNOWN_TOPIC_OR_PART",)):
                told = future.result()
                replicas = min((len(each.replicas) for each in told.partitions), default=0)
                found[name] = Topic(name, str(told.topic_id), len(told.partitions), replicas)
        return found

    def create(self, name: str, partitions: int, replicas: int | None, config: Mapping[str, str]) -> None:
        """A topic of that name, unless there is one, or somebody else is making it."""
        from confluent_kafka.admin import NewTopic

        new = NewTopic(name, partitions, -1 if replicas is None else replicas, config=dict(config))
        with faults(self._servers, unless=("TOPIC_ALREADY_EXISTS",)):
            asked = self._admin.create_topics(
                [new], operation_timeout=self.timeout_s, request_timeout=self.timeout_s + 1
            )
            asked[name].result()

    def await_topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """The topics, which were just created and that not all brokers may know yet."""
        wanted, end = set(names), time.monotonic() + self.timeout_s
        while set(found := self.describe(wanted)) != wanted:
            if time.monotonic() > end:
                raise Unavailable(f"Kafka at {self._servers} has no {' and '.join(sorted(wanted - set(found)))}")
            time.sleep(_POLL_S)
        return found

    def config_of(self, name: str) -> dict[str, str]:
        """The settings of a topic."""
        from confluent_kafka.admin import ConfigResource, ResourceType

        resource = ConfigResource(ResourceType.TOPIC, name)
        with faults(self._servers):
            asked = self._admin.describe_configs([resource], request_timeout=self.timeout_s)
            return {each: str(entry.value) for each, entry in asked[resource].result().items()}

    def bounds(self, name: str, partition: int) -> tuple[int, int]:
        """The offsets of the first entry and of the one that comes next."""
        from confluent_kafka.admin import OffsetSpec

        place = (name, partition)
        first, following = self._offsets({place: OffsetSpec.earliest()}, {place: OffsetSpec.latest()})
        return first[place], following[place]

    def latest(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The offset that comes next, for each (topic, partition)."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets({place: OffsetSpec.latest() for place in places})[0]

    def since(self, name: str, partition: int, time_ms: int) -> int | None:
        """The offset of the first entry of that time or later; None: all are older."""
        from confluent_kafka.admin import OffsetSpec

        place = (name, partition)
        found = self._offsets({place: OffsetSpec.for_timestamp(time_ms)})[0][place]
        return None if found < 0 else found

    def _offsets(self, *wanted: Mapping[tuple[str, int], OffsetSpec]) -> list[dict[tuple[str, int], int]]:
        """The offsets, once the partitions have leaders that know them; each of the questions at the same time."""
        from confluent_kafka import KafkaException

        end = time.monotonic() + self.timeout_s
        with faults(self._servers):
            while True:
                asked = [self._asked_offsets(each) for each in wanted]
                try:
                    return [{at: int(future.result().offset) for at, future in each.items()} for each in asked]
                except KafkaException as exc:
                    if error_of(exc).name() not in _LEADERLESS or time.monotonic() > end:
                        raise
                time.sleep(_POLL_S)

    def _asked_offsets(self, wanted: Mapping[tuple[str, int], OffsetSpec]) -> dict[tuple[str, int], Future[Any]]:
        from confluent_kafka import TopicPartition

        specs = {TopicPartition(*place): spec for place, spec in wanted.items()}
        asked: dict[Any, Future[Any]] = self._admin.list_offsets(specs, request_timeout=self.timeout_s)
        return {(at.topic, at.partition): future for at, future in asked.items()}

    def drop_before(self, name: str, partition: int, offset: int) -> None:
        """Let the brokers delete the entries before that one."""
        from confluent_kafka import TopicPartition

        with faults(self._servers):
            asked = self._admin.delete_records(
                [TopicPartition(name, partition, offset)], request_timeout=self.timeout_s
            )
            for future in asked.values():
                future.result()

    @property
    def servers(self) -> str:
        """The addresses as they were given."""
        return self._servers


def room(config: Mapping[str, str]) -> int:
    """How many bytes the messages of one batch may have, keys and headers included, on a topic of those settings."""
    return int(config.get("max.message.bytes", 1_048_588)) - _OWN


def _ms(seconds: float) -> int:
    return int(seconds * 1_000)


@contextmanager
def faults(servers: str, *, unless: tuple[str, ...] = ()) -> Iterator[None]:
    """The driver's exceptions as ours; those of the codes in `unless` just end what is done here."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as exc:
        if error_of(exc).name() not in unless:
            raise translated(error_of(exc), servers) from exc


def error_of(exc: KafkaException) -> KafkaError:
    """What is in the driver's exception."""
    error: KafkaError = exc.args[0]
    return error


def translated(error: KafkaError, servers: str) -> TapehouseError:
    """The driver's error as ours, when nothing was written or it is known that it was not."""
    name, text = error.name(), f"Kafka at {servers}: {error.str()}"
    make: Callable[..., TapehouseError] = LogError
    if name in _TOO_LARGE:
        make = LimitExceeded
    elif name in _NO_ROOM:
        make = LogFull
    elif name in _AWAY or name in _LEADERLESS or error.retriable():
        make = Unavailable
    return make(text, kafka=name)
