"""An API over the store in memory, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.unit.api.parts import Client, bars, build

from tapehouse.model import Interval, Kind
from tapehouse.store.memory import MemoryStore

Connect = Callable[..., Client]


@pytest.fixture
def store() -> MemoryStore:
    """Three days of AAPL and two of MSFT, each symbol in a commit of its own."""
    store = MemoryStore()
    store.write(Kind.BARS, bars("AAPL", [185.0, 184.0, 181.5]), interval=Interval.D1, source="vendor")
    store.write(Kind.BARS, bars("MSFT", [370.0, 371.0]), interval=Interval.D1, source="vendor")
    return store


@pytest.fixture
def connect(store: MemoryStore) -> Iterator[Connect]:
    """Makes a client of an API with those settings, which comes in by `over` and always sends `headers`."""
    with ExitStack() as stack:

        def make(
            *,
            over: str = "tcp",
            address: str = "localhost:8720",
            headers: dict[str, str] | None = None,
            of: Any = None,
            **options: Any,
        ) -> Client:
            api = build(of or store, **options)
            stack.callback(api.close)
            client = Client(api.over_tcp if over == "tcp" else api.over_socket, address, headers)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()
