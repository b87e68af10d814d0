"""Writing to a topic: what several callers want written goes out together, and each hears what became of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tapehouse.bus.kafka.cluster import Cluster, error_of, faults, translated
from tapehouse.errors import LimitExceeded, TapehouseError, Unavailable, Unsettled

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

MAX_MESSAGES = 10_000
"""Messages of one batch, the driver's own limit."""
_MESSAGE_BYTES = 64
"""What a message takes beside its key, value and headers, generously."""

# With these the broker says, or the driver knows, that nothing was written; with any other it may have been.
_REFUSED = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
        "INVALID_MSG",
        "INVALID_RECORD",
        "INVALID_TIMESTAMP",
        "POLICY_VIOLATION",
        "TOPIC_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
        "KAFKA_STORAGE_ERROR",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "_QUEUE_FULL",
    }
)


class Outgoing(NamedTuple):
    """A message to be written; `time_ms` 0: the time of writing."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] | None = None
    time_ms: int = 0

    @property
    def size(self) -> int:
        """The bytes that it takes at most."""
        headers = sum(len(name) + len(value) + 8 for name, value in self.headers or ())
        return len(self.value or b"") + len(self.key or b"") + headers + _MESSAGE_BYTES


class _Wanted:
    """What one caller wants written to a partition."""

    __slots__ = ("done", "error", "messages", "offsets", "partition", "sent", "size")

    def __init__(self, partition: int, messages: Sequence[Outgoing]) -> None:
        self.partition = partition
        self.messages = messages
        self.size = sum(message.size for message in messages)
        self.offsets: list[int | None] = [None] * len(messages)
        self.error: TapehouseError | None = None
        self.sent = self.done = False


_Parcel = list[tuple[_Wanted, int]]
"""Messages, as who wants them and the place among his, that go out as one batch, which a broker takes whole or not."""


class Writer:
    """Writes to the partitions of a topic, whose batches may have `max_bytes`. Thread-safe."""

    def __init__(self, cluster: Cluster, topic: str, max_bytes: int) -> None:
        self._cluster, self._topic, self._max_bytes = cluster, topic, max_bytes
        self._waiting: deque[_Wanted] = deque()
        self._turn = threading.Lock()
        self._producer: Producer | None = None
        self._closed = False

    def connect(self) -> None:
        """Begin to connect, which takes half a second, before there is something to send."""
        with self._turn:
            self._connected()

    def send(self, partition: int, messages: Sequence[Outgoing]) -> list[int]:
        """Write the messages in that order, next to each other, and give their offsets.

        All are there or none when they fit one batch. Raises `LimitExceeded` for one that is too large, `Unsettled`
        when they, or the first of them, may be there nevertheless.
        """
        wanted = _Wanted(partition, messages)
        self._check(wanted)
        self._waiting.append(wanted)
        with self._turn:
            if not wanted.done:  # else somebody whose turn it was took it along
                self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        if wanted.error is not None:
            raise wanted.error
        return [offset for offset in wanted.offsets if offset is not None]

    def _check(self, wanted: _Wanted) -> None:
        largest = max((message.size for message in wanted.messages), default=0)
        if largest > self._max_bytes:
            raise LimitExceeded(
                f"a message of {largest:,} bytes; the topic {self._topic} takes at most {self._max_bytes:,}",
                bytes=largest,
                limit=self._max_bytes,
            )

    def _write(self, together: list[_Wanted]) -> None:
        """Under `_turn`."""
        queues = {each.partition: deque(self._parcels(together, each.partition)) for each in together}
        try:
            while any(queues.values()):
                if not self._post([queue.popleft() for queue in queues.values() if queue]):
                    break
        except TapehouseError as exc:
            for each in together:
                if not each.sent:
                    each.error = exc
        finally:
            self._conclude(together)

    def _conclude(self, together: list[_Wanted]) -> None:
        """What is not known to be written by now is not waited for any more."""
        lacking = [each for each in together if None in each.offsets]
        if lacking:
            self._renew()
        for each in lacking:
            if each.error is None:
                each.error = _unsettled(each, "the brokers did not say in time") if each.sent else _unsent(self._topic)
        for each in together:
            each.done = True

    def _parcels(self, together: list[_Wanted], partition: int) -> Iterator[_Parcel]:
        """What is wanted in the partition, in order; only who wants more than a batch is cut."""
        parcel: _Parcel = []
        size = 0
        for wanted in together:
            if wanted.partition != partition:
                continue
            whole = wanted.size <= self._max_bytes and len(wanted.messages) <= MAX_MESSAGES
            for place, message in enumerate(wanted.messages):
                ahead, count = (wanted.size, len(wanted.messages)) if whole and place == 0 else (message.size, 1)
                fits = whole and place > 0
                if parcel and not fits and (size + ahead > self._max_bytes or len(parcel) + count > MAX_MESSAGES):
                    yield parcel
                    parcel, size = [], 0
                parcel.append((wanted, place))
                size += message.size
        if parcel:
            yield parcel

    def _post(self, parcels: list[_Parcel]) -> bool:
        """One batch for each of some partitions; whether all of it was acknowledged."""
        producer = self._connected()
        for wanted, place in (each for parcel in parcels for each in parcel):
            self._produce(producer, wanted, place)
        # The driver gives up by itself at the same time; the second is for it to say so.
        producer.flush(self._cluster.timeout_s + 1)
        return all(wanted.offsets[place] is not None for parcel in parcels for wanted, place in parcel)

    def _produce(self, producer: Producer, wanted: _Wanted, place: int) -> None:
        from confluent_kafka import KafkaException

        message = wanted.messages[place]
        wanted.sent = True
        try:
            producer.produce(
                self._topic,
                message.value,
                message.key,
                wanted.partition,
                on_delivery=self._told(wanted, place),
                timestamp=message.time_ms,
                headers=list(message.headers or ()),
            )
        except KafkaException as exc:
            wanted.error = wanted.error or self._refused(wanted, error_of(exc))
        except BufferError as exc:
            wanted.error = wanted.error or _unsettled(wanted, str(exc))

    def _told(self, wanted: _Wanted, place: int) -> Callable[[KafkaError | None, Message], None]:
        def told(error: KafkaError | None, message: Message) -> None:
            if error is None:
                wanted.offsets[place] = message.offset()
            elif wanted.error is None:
                wanted.error = self._refused(wanted, error)

        return told

    def _refused(self, wanted: _Wanted, error: KafkaError) -> TapehouseError:
        if error.name() in _REFUSED and all(offset is None for offset in wanted.offsets):
            return translated(error, self._cluster.servers)
        return _unsettled(wanted, error.str())

    def _connected(self) -> Producer:
        if self._closed:
            raise Unavailable(f"the log in {self._topic} is closed")
        if self._producer is None:
            producer = self._cluster.producer(self._max_bytes)
            with faults(
                self._cluster.servers
            ):  # before anything is sent, who is not there can be told from who is slow
                producer.list_topics(self._topic, self._cluster.timeout_s)
            self._producer = producer
        return self._producer

    def renew(self) -> None:
        """Begin with a new connection."""
        with self._turn:
            self._renew()

    def _renew(self) -> None:
        if self._producer is not None:
            # Nothing that was given up may be sent later, when its caller has sent it again.
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer.flush(0)
            self._producer = None

    def close(self) -> None:
        """Let go of the connection once what is being written is; idempotent."""
        with self._turn:
            self._closed = True
            self._renew()


def _unsettled(wanted: _Wanted, why: str) -> Unsettled:
    known = sum(offset is not None for offset in wanted.offsets)
    return Unsettled(f"{known} of {len(wanted.messages)} messages are known to be in the log: {why}")


def _unsent(topic: str) -> Unavailable:
    return Unavailable(f"what was written to {topic} before this failed, and this was not sent")
