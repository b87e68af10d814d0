"""Streams of the Python client: everything once, over lost connections and restarts of the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Server
from tests.system.streams import Feed

from tapehouse import AsyncClient, Client
from tapehouse.client.live.following import CaughtUp, Reconnected, Records
from tapehouse.errors import InvalidRequest, NotSupported, ServerUnreachable, UnknownInterval


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, ("--record-interval-s", "0.1"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def feed(server: Server) -> Iterator[Feed]:
    feed = Feed(server.port)
    yield feed
    feed.close()


def collect(events: Any, last: int) -> list[Any]:
    """The events up to the one with the trade of that number."""
    found = []
    for event in events:
        found.append(event)
        if isinstance(event, Records) and any(row["price"] == last for row in event.rows):
            return found
    raise AssertionError("the stream has ended")


def numbers(events: list[Any]) -> list[int]:
    return [int(row["price"]) for event in events if isinstance(event, Records) for row in event.rows]


def test_from_a_time_on_everything_comes_once(server: Server, feed: Feed) -> None:
    feed.send(300)
    feed.recorded()
    with Client(server.url.rstrip("/")) as client, client.stream("trades", "*", start="2024-01-01") as stream:
        events = collect(stream, 299)
        while not isinstance(events[-1], CaughtUp):
            events.append(next(iter(stream)))
        feed.send(30)
        events += collect(stream, 329)
        assert sorted(numbers(events)) == list(range(330))
        records = [event for event in events if isinstance(event, Records)]
        assert (records[0].origin, records[-1].origin) == ("stored", "live")
        assert isinstance(records[-1].ingested, int)
        assert records[-1].rows[0]["timestamp"] > 1_700_000_000 * 10**9
        assert stream.position


def test_a_server_that_dies_and_comes_back_is_not_noticed_but_for_a_word(server: Server, feed: Feed) -> None:
    with Client(server.url.rstrip("/")) as client, client.stream(["trades"], ["A", "B"]) as stream:
        events = iter(stream)
        assert isinstance(next(events), CaughtUp)
        feed.send(30)
        found = collect(events, 28)

        def again() -> None:
            server.process.kill()
            server.process.wait()
            server.start()
            feed.send(30)

        restarting = threading.Thread(target=again)
        restarting.start()
        found += collect(events, 58)
        restarting.join()
        assert any(isinstance(event, Reconnected) for event in found)
        assert sorted(set(numbers(found))) == [n for n in range(60) if n % 3 != 2]
        assert len(numbers(found)) == len(set(numbers(found)))


def test_the_same_for_an_event_loop(server: Server, feed: Feed) -> None:
    async def run() -> list[Any]:
        found: list[Any] = []
        async with AsyncClient(server.url.rstrip("/")) as client, client.stream("trades", "A") as stream:
            async for event in stream:
                if isinstance(event, CaughtUp):
                    await asyncio.to_thread(feed.send, 30)
                found.append(event)
                if numbers(found)[-1:] == [27]:
                    return found
        raise AssertionError("the stream has ended")

    assert numbers(asyncio.run(run())) == list(range(0, 30, 3))


def test_who_owns_the_folder_streams_through_its_socket(server: Server, feed: Feed) -> None:
    with Client(server.folder / "data") as client, client.stream("trades", "*") as stream:
        events = iter(stream)
        assert isinstance(next(events), CaughtUp)
        feed.send(3)
        assert 2 in numbers(collect(events, 2))
        assert stream.position


def test_what_makes_no_sense_is_raised(server: Server, tmp_path: Path) -> None:
    with Client(server.url.rstrip("/")) as client:
        with pytest.raises(InvalidRequest, match="smells"):
            next(iter(client.stream("smells", "A")))
        with pytest.raises(InvalidRequest, match="symbols"):
            client.stream("trades", [])
        with pytest.raises((InvalidRequest, UnknownInterval)):
            next(iter(client.stream("bars.7m", "A")))
    with Client("http://127.0.0.1:1") as nobody, pytest.raises(ServerUnreachable):
        next(iter(nobody.stream("trades", "A")))
    with Client(tmp_path / "own", create=True) as alone, pytest.raises(NotSupported):
        alone.stream("trades", "A")
