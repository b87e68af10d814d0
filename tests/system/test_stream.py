"""Streams, end to end: a real server, real connections, numbered trades of which each client gets every one, once."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import Server, until
from tests.system.streams import Feed, Screen
from websockets.exceptions import ConnectionClosed

FLAGS = ("--record-interval-s", "0.1", "--max-outbox-bytes", "65536", "--max-message-bytes", "65536")


@pytest.fixture
def stall_s() -> str:
    return "60"


@pytest.fixture
def server(tmp_path: Path, stall_s: str) -> Iterator[Server]:
    server = Server(tmp_path, (*FLAGS, "--stall-timeout-s", stall_s, "--stream-heartbeat-s", "1"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def feed(server: Server) -> Iterator[Feed]:
    feed = Feed(server.port)
    yield feed
    feed.close()


@pytest.fixture
def screen(server: Server) -> Iterator[Callable[..., Screen]]:
    """Opens clients."""
    screens: list[Screen] = []

    def opened(query: str = "", **options: Any) -> Screen:
        screens.append(Screen(server.port, query, options))
        return screens[-1]

    yield opened
    for each in screens:
        each.close()


Open = Callable[..., Screen]


def test_a_client_gets_what_comes_in_order(feed: Feed, screen: Open) -> None:
    all_, one, packed = screen(), screen(compression=None), screen("?format=msgpack")
    all_.subscribe()
    one.subscribe("A", "C*", id="mine")
    packed.subscribe("B")
    for _ in range(20):
        feed.send(30)
    all_.expect(599)
    one.expect(597)
    packed.expect(598)
    assert sorted(all_.numbers) == list(range(600))
    assert sorted(one.numbers) == [n for n in range(600) if n % 3 != 1]
    assert packed.numbers == [n for n in range(600) if n % 3 == 1]
    (data, *_) = one.of("data")
    assert (data["id"], data["channel"], data["source"]) == ("mine", "trades", "feed")
    assert data["ingested"].endswith("Z")
    assert isinstance(packed.of("data")[0]["rows"][0]["timestamp"], int)
    for symbol in "ABC":
        own = [row["price"] for event in all_.of("data") if event["symbol"] == symbol for row in event["rows"]]
        assert own == sorted(own)


def test_history_the_log_and_live_have_no_seam(feed: Feed, screen: Open) -> None:
    """A client that begins in the past while records come in gets all of them, in order of each symbol, once."""
    stop = threading.Event()

    def feed_on() -> None:
        while not stop.is_set():
            feed.send(30)
            time.sleep(0.002)

    feed.send(300)
    feed.recorded()
    feeding = threading.Thread(target=feed_on)
    feeding.start()
    clients = []
    for _ in range(4):
        clients.append(screen())
        clients[-1].subscribe("A", "B", **{"from": "2024-01-01"})
        time.sleep(0.15)
    stop.set()
    feeding.join()
    for client in clients:
        client.expect(feed.sent - 3)
        client.expect(feed.sent - 2)
        assert sorted(client.numbers) == [n for n in range(feed.sent) if n % 3 != 2]
        assert len(client.of("caught_up")) == 1
        assert any("stored" in event for event in client.of("data"))
        assert any("stored" not in event for event in client.of("data"))
        assert not client.of("gap")


def test_a_client_that_comes_back_with_its_position_misses_nothing(feed: Feed, screen: Open) -> None:
    got: list[int] = []
    position: str | None = None
    for _ in range(5):
        client = screen()
        client.subscribe(**({"from": position} if position else {}))
        feed.send(30)
        client.until(lambda event: event["type"] == "data")
        client.until(lambda event: event["type"] == "position")
        got += client.numbers
        position = client.position
        client.close()
        feed.send(30)
    last = screen()
    last.subscribe(**{"from": position})
    last.expect(feed.sent - 1)
    assert sorted(got + last.numbers) == list(range(feed.sent))


def test_a_position_in_history_goes_on_there(feed: Feed, screen: Open) -> None:
    feed.send(300)
    feed.recorded()
    client = screen()
    client.subscribe(**{"from": "2024-01-01"})
    position = client.until(lambda event: event["type"] == "position")["position"]
    seen = list(client.numbers)
    client.close()
    again = screen()
    again.subscribe(**{"from": position})
    again.until(lambda event: event["type"] == "caught_up")
    assert sorted(seen + again.numbers) == list(range(300))


def test_a_snapshot_is_the_newest_of_each_and_then_what_comes(feed: Feed, screen: Open) -> None:
    feed.send(30)
    feed.recorded()
    client = screen()
    client.subscribe(**{"from": "snapshot"})
    client.until(lambda event: event["type"] == "caught_up")
    assert sorted(client.numbers) == [27, 28, 29]
    assert all(event["snapshot"] for event in client.of("data"))
    feed.send(30)
    client.expect(59)
    assert sorted(client.numbers) == list(range(27, 60))


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_stops_or_dies_loses_nothing(server: Server, feed: Feed, screen: Open, kill: int) -> None:
    client = screen()
    client.subscribe()
    for _ in range(10):
        feed.send(30)
    client.expect(299)
    server.process.send_signal(kill)
    server.process.wait(20)
    with pytest.raises(ConnectionClosed):
        client.until(lambda event: False)
    if kill == signal.SIGTERM:
        assert client.of("closing")[0]["retry_after_s"] > 0
        assert client.socket.close_code == 1012
    server.start()
    feed.send(30)
    again = screen()
    again.subscribe(**{"from": client.position})
    again.expect(329)
    assert sorted(client.numbers + again.numbers) == list(range(330))
    feed.recorded()
    stored = feed.get("/v1/trades", limit=1_000)["columns"]["price"]
    assert sorted(stored) == list(range(330))


def fill(feed: Feed, client: Screen, rows: int) -> None:
    """Send so much that what the client does not read does not fit into its sockets."""
    for _ in range(rows // 3_000):
        feed.send(3_000)


def slow(screen: Open, window_bytes: int = 262_144) -> Screen:
    """A client for which the system takes in little that it has not read."""
    client = screen(max_queue=1, compression=None)
    client.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
    return client


def test_a_slow_lossless_client_reads_from_the_log_and_takes_no_memory(feed: Feed, screen: Open) -> None:
    client = slow(screen)
    client.subscribe()
    fill(feed, client, 90_000)
    pending = feed.get("/v1/log")["stream"]["pending_bytes"]
    assert pending < 65_536 + 1_500_000, "what waits is bounded by the outbox and one flush"
    client.expect(feed.sent - 1)
    assert sorted(client.numbers) == list(range(feed.sent))
    assert not client.of("gap")


def test_a_slow_client_that_may_lose_is_told_how_much(feed: Feed, screen: Open) -> None:
    client = slow(screen)
    client.subscribe(delivery="drop")
    fill(feed, client, 90_000)
    client.until(lambda event: event["type"] == "gap")
    feed.send(3)
    client.expect(feed.sent - 1)
    dropped = sum(event["dropped"]["trades"] for event in client.of("gap"))
    assert len(client.numbers) + dropped == feed.sent
    assert len(set(client.numbers)) == len(client.numbers)


def test_a_conflated_client_gets_sums_that_add_up(feed: Feed, screen: Open) -> None:
    quick, sluggish = screen(), slow(screen)
    for client in (quick, sluggish):
        client.subscribe(delivery="conflate", interval_ms=20)
    fill(feed, quick, 30_000)

    def counted(client: Screen) -> int:
        return sum(row["count"] for event in client.of("data") for row in event["rows"])

    for client in (quick, sluggish):
        client.until(lambda event, client=client: counted(client) == feed.sent)  # type: ignore[misc]
        rows = [row for event in client.of("data") if event["symbol"] == "A" for row in event["rows"]]
        assert rows[0]["first"] == 0
        assert rows[-1]["last"] == feed.sent - 3
        assert all(row["low"] <= row["first"] <= row["high"] for row in rows)
        assert sum(row["volume"] for row in rows) == feed.sent / 3
        assert len(rows) < feed.sent / 3


@pytest.mark.parametrize("stall_s", ["2"])
def test_who_stops_reading_is_closed_and_others_do_not_notice(feed: Feed, screen: Open) -> None:
    stuck, healthy = slow(screen, 4_096), screen()
    for client in (stuck, healthy):
        client.subscribe()
    fill(feed, stuck, 60_000)
    healthy.expect(feed.sent - 1)
    until("the stuck client is closed", lambda: feed.get("/v1/log")["stream"]["clients"] == 1)
    feed.send(3)
    healthy.expect(feed.sent - 1)
    with pytest.raises(ConnectionClosed):
        stuck.until(lambda event: False)


BAD: list[tuple[Any, str]] = [
    ("{", "invalid_request"),
    ("[]", "invalid_request"),
    ('{"op": "fly"}', "invalid_request"),
    ('{"op": "subscribe"}', "invalid_request"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "colour": 1}', "invalid_request"),
    ('{"op": "subscribe", "channels": ["smells"], "symbols": ["A"]}', "invalid_request"),
    ('{"op": "subscribe", "channels": ["bars.7m"], "symbols": ["A"]}', "invalid_request"),
    ('{"op": "subscribe", "channels": [], "symbols": ["A"]}', "invalid_request"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A B"]}', "invalid_symbol"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A B*"]}', "invalid_symbol"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "from": "soon"}', "invalid_time"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "from": "at_x"}', "invalid_token"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "delivery": "pigeon"}', "invalid_request"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "interval_ms": 100}', "invalid_request"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "delivery": "conflate", "from": "2024"}',
     "invalid_request"),
    ('{"op": "subscribe", "channels": ["trades"], "symbols": ["A"], "id": ""}', "invalid_request"),
    ('{"op": "unsubscribe", "id": "9"}', "not_found"),
    (b'{"op": "ping"}', "invalid_request"),
]  # fmt: skip


def test_what_makes_no_sense_is_answered_and_the_connection_stays(feed: Feed, screen: Open) -> None:
    client = screen()
    for message, code in BAD:
        client.socket.send(message)
        error = client.until(lambda event: event["type"] == "error")
        assert error["code"] == code, message
        assert error["message"]
    client.subscribe("A")
    client.say(op="subscribe", channels=["trades"], symbols=["B"])
    assert client.until(lambda event: event["type"] == "error")["code"] == "conflict"
    feed.send(3)
    client.expect(0)
    client.say(op="list")
    (held,) = client.until(lambda event: event["type"] == "subscriptions")["subscriptions"]
    assert (held["id"], held["symbols"], held["phase"]) == ("1", ["A"], "live")
    client.say(op="unsubscribe")
    client.until(lambda event: event["type"] == "unsubscribed")
    feed.send(3)
    client.say(op="ping", data="x")
    assert client.until(lambda event: event["type"] == "pong")["data"] == "x"
    assert client.numbers == [0]


def test_too_much_at_once_is_refused(server: Server, feed: Feed, screen: Open) -> None:
    client = screen()
    many = [f"S{number}" for number in range(10_001)]
    with pytest.raises(ConnectionClosed):  # larger than a message may be
        client.subscribe(*many)
    assert client.socket.close_code == 1009
    client = screen()
    client.say(op="subscribe", channels=["trades", "quotes"], symbols=["*"], id="1")
    for number in range(60):
        client.say(op="ping", data=str(number))
    errors = [client.until(lambda event: event["type"] in ("error", "pong")) for _ in range(60)]
    limited = [event for event in errors if event["type"] == "error"]
    assert limited
    assert {event["code"] for event in limited} == {"rate_limited"}


def test_text_that_is_no_utf_8_closes_the_connection(screen: Open) -> None:
    client = screen()
    client.socket.send(b"\xff\xfe", text=True)
    with pytest.raises(ConnectionClosed):
        client.until(lambda event: False)
    assert client.socket.close_code == 1007


def test_a_position_of_another_log_or_the_future_is_told(server: Server, feed: Feed, screen: Open) -> None:
    from tapehouse.codec.live.tokens import token_of
    from tapehouse.model import Position

    at = feed.send(30)["positions"]["0"]
    future = token_of({0: Position(at["epoch"], at["offset"] + 5)})
    client = screen()
    client.say(op="subscribe", channels=["trades"], symbols=["*"], **{"from": future})
    assert client.until(lambda event: event["type"] == "error")["code"] == "invalid_token"
    former = token_of({0: Position(at["epoch"] - 1, 3)}, 1_700_000_000 * 10**9)
    client.subscribe(**{"from": former})
    gap = client.until(lambda event: event["type"] == "gap")
    assert (gap["reason"], gap["start"]) == ("lost", "2023-11-14T22:13:20Z")
    assert gap["fetch"] == [f"/v1/trades?symbols=*&start={gap['start']}&end={gap['end']}"]
    client.expect(29)
    assert sorted(client.numbers) == list(range(30))


def test_subscribing_and_unsubscribing_all_the_time_disturbs_nobody(feed: Feed, screen: Open) -> None:
    steady, restless = screen(), screen()
    steady.subscribe()
    random.seed(1)
    for number in range(40):
        restless.say(op="subscribe", channels=["trades"], symbols=random.choice((["*"], ["A"], ["B*", "C"])), id="x")
        feed.send(30)
        restless.say(op="unsubscribe", id="x")
        if number % 10 == 0:
            time.sleep(0.2)
    steady.expect(feed.sent - 1)
    assert sorted(steady.numbers) == list(range(feed.sent))


def test_a_producer_is_answered_over_a_websocket(server: Server, screen: Open, feed: Feed) -> None:
    import json

    from websockets.sync.client import connect

    now = time.time_ns()
    rows = [{"symbol": "A", "timestamp": now, "price": n, "size": 1} for n in range(3)]
    with connect(f"ws://127.0.0.1:{server.port}/v1/ingest") as producer:

        def ask(**message: Any) -> dict[str, Any]:
            producer.send(json.dumps(message))
            answer: dict[str, Any] = json.loads(producer.recv(20))
            return answer

        first = ask(id=1, channel="trades", source="ws", sequence=0, rows=rows)
        assert (first["type"], first["id"], first["accepted"], first["next"]) == ("ack", 1, 3, 3)
        assert ask(id=2, channel="trades", source="ws", sequence=1, rows=rows)["repeated"] == 2
        assert ask(id=3, channel="trades", source="ws", rows=[{**rows[0], "price": -0.0, "size": -1}])["rejected"] == 1
        assert ask(id=4, source="ws", heartbeat_s=60)["type"] == "ack"
        for bad in ({"channel": "metrics", "rows": rows}, {"channel": "trades", "rows": [{}]}, {"x": 1}):
            assert ask(id=5, **bad)["type"] == "error"
    sources = {source["source"]: source for source in feed.get("/v1/sources")["sources"]}
    source = sources["ws"]
    assert (source["accepted"], source["heartbeat_s"], source["silent"]) == (4, 60, False)
    (rejected,) = feed.get("/v1/ingest/rejected")["rejected"]
    assert (rejected["reason"], rejected["record"]["size"]) == ("invalid", -1)


def test_keys_are_asked_for(tmp_path: Path) -> None:
    import subprocess

    from tests.system.conftest import TAPEHOUSE, clean_environment

    made = [
        subprocess.run(
            [TAPEHOUSE, "keys", "add", scope, "--scope", scope, "--keys-file", tmp_path / "keys.json"],
            env=clean_environment(), capture_output=True, text=True, check=True,
        ).stdout.strip()
        for scope in ("read", "write")
    ]  # fmt: skip
    server = Server(tmp_path, (*FLAGS, "--keys-file", str(tmp_path / "keys.json")))
    server.start()
    try:
        client = Screen(server.port)
        client.say(op="subscribe", channels=["trades"], symbols=["*"])
        assert client.until(lambda event: event["type"] == "error")["code"] == "unauthenticated"
        client.say(op="auth", key="wrong")
        assert client.until(lambda event: event["type"] == "error")["code"] == "unauthenticated"
        client.say(op="auth", key=made[0])
        client.until(lambda event: event["type"] == "authenticated")
        client.subscribe()
        with_header = Screen(server.port, options={"additional_headers": {"Authorization": f"Bearer {made[1]}"}})
        with_header.subscribe()
        for each in (client, with_header):
            each.close()
    finally:
        server.stop()


def test_no_thread_or_process_is_left(server: Server) -> None:
    server.stop()
    assert server.process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(server.process.pid, 0)
