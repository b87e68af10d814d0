"""Every bus that the contract suite runs over: how one is opened, on a place of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.servers_kafka import shared_broker

from tapehouse.bus.memory import MemoryBus
from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.codec.live.entries import Entry, make_entry, table_of
from tapehouse.errors import LogFull
from tapehouse.model import TIMESTAMP, Position

Open = Callable[..., Any]


@contextmanager
def memory(folder: Path) -> Iterator[Open]:
    yield MemoryBus


@contextmanager
def sqlite(folder: Path) -> Iterator[Open]:
    def opened(**options: Any) -> SQLiteBus:
        return SQLiteBus(folder / "log", **options)

    yield opened


@contextmanager
def kafka(folder: Path) -> Iterator[Open]:
    from tapehouse.bus.kafka import KafkaBus

    topic = f"log-{uuid.uuid4().hex[:8]}"
    broker = shared_broker()

    def opened(**options: Any) -> KafkaBus:
        return KafkaBus(broker, topic, **{"partitions": 2, **options})

    yield opened


@contextmanager
def redis(folder: Path) -> Iterator[Open]:
    from tests.servers_redis import server

    from tapehouse.bus.redis import RedisBus

    with server(folder) as running:
        yield lambda **options: RedisBus(running.url, **{"partitions": 2, **options})


@contextmanager
def redis_cluster(folder: Path) -> Iterator[Open]:
    from tests.servers_redis import shared_cluster

    from tapehouse.bus.redis import RedisClusterBus

    prefix, url = f"log-{uuid.uuid4().hex[:8]}", shared_cluster()
    yield lambda **options: RedisClusterBus(url, **{"partitions": 2, "prefix": prefix, **options})


redis.marks = redis_cluster.marks = pytest.mark.redis  # type: ignore[attr-defined]
kafka.marks = pytest.mark.kafka  # type: ignore[attr-defined]

BUSES: dict[str, Callable[[Path], Any]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
    "redis+cluster": redis_cluster,
    "kafka": kafka,
}
"""Name -> a context in which one place for a log is there, and that gives a function which opens it."""

LIMITED = ("memory", "sqlite", "redis")
"""Those that a `max_bytes` keeps small."""
DURABLE = ("sqlite", "redis", "redis+cluster", "kafka")
"""Those of which a second one finds what the first one left."""
SHARED = ("redis", "redis+cluster", "kafka")
"""Those that several processes use at once."""


def entry(*prices: float, symbol: str = "A", first: int | None = None, ingested: int = 1_700_000_000 * 10**9) -> Entry:
    """Trades at those prices."""
    rows = len(prices)
    table = pa.record_batch(
        {
            "symbol": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([symbol])),
            "timestamp": pa.array(np.arange(rows)).view(TIMESTAMP),
            "price": np.array(prices, float),
            "size": np.ones(rows),
        }
    )
    return make_entry("trades", table, "test", ingested, first=first, last=None if first is None else first + rows - 1)


def prices(bus: Any, after: Position | None = None, **options: Any) -> list[float]:
    """The prices in the entries that a read finds."""
    found = bus.read(0, after, **options).entries
    return [price for logged in found for price in table_of(logged.entry)["price"].to_pylist()]


def fill(bus: Any, rows: int = 100) -> Iterator[float]:
    """Append until the log is full; the price of each entry that was taken."""
    for number in range(100_000):
        try:
            bus.append(0, [entry(*[number] * rows)])
        except LogFull:
            return
        yield float(number)
    raise AssertionError("it was never full")
