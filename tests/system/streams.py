"""What the tests of streams share: a feed of numbered trades, and clients that check that none is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
from websockets.sync.client import ClientConnection, connect

LIMIT_S = 30.0


class Feed:
    """Posts trades whose price is their number; `symbols` take turns."""

    def __init__(self, port: int, symbols: tuple[str, ...] = ("A", "B", "C"), source: str = "feed") -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S)
        self.symbols, self.source = symbols, source
        self.sent = 0

    def send(self, rows: int = 10, **params: Any) -> dict[str, Any]:
        """The next trades, stamped with now."""
        now = time.time_ns()
        numbers = range(self.sent, self.sent + rows)
        body = [
            {"symbol": self.symbols[n % len(self.symbols)], "timestamp": now + n % 1_000, "price": n, "size": 1}
            for n in numbers
        ]
        given = {"source": self.source, "sequence": self.sent, **params}
        answer = self._client.post("/v1/ingest/trades", params=given, json={"rows": body})
        answer.raise_for_status()
        self.sent += rows
        receipt: dict[str, Any] = answer.json()
        assert receipt["accepted"] == rows, receipt
        return receipt

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of an answer."""
        return self._client.get(path, params=params).raise_for_status().json()

    def recorded(self) -> None:
        """Wait until all of it is stored."""
        end = time.monotonic() + LIMIT_S
        while (held := self._stored()) < self.sent:
            assert time.monotonic() < end, f"{held} of {self.sent} trades are stored"
            time.sleep(0.05)

    def _stored(self) -> int:
        series = self.get("/v1/stats")["store"]["series"]
        return sum(each["rows"] for each in series if each["kind"] == "trades")

    def close(self) -> None:
        self._client.close()


@dataclass
class Screen:
    """A client of `/v1/stream`, and what it was sent."""

    port: int
    query: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    position: str | None = None
    socket: ClientConnection = field(init=False)

    def __post_init__(self) -> None:
        self._opened = ExitStack()
        connecting = connect(f"ws://127.0.0.1:{self.port}/v1/stream{self.query}", **self.options)
        self.socket = self._opened.enter_context(connecting)
        self.welcome = self.next()

    def say(self, **message: Any) -> None:
        if "msgpack" in self.query:
            self.socket.send(msgspec.msgpack.encode(message))
        else:
            self.socket.send(json.dumps(message))

    def subscribe(self, *symbols: str, **options: Any) -> None:
        """Ask for trades of those symbols, and wait until that is done."""
        self.say(op="subscribe", **{"channels": ["trades"], "symbols": symbols or ["*"], **options})
        self.until(lambda event: event["type"] == "subscribed")

    def next(self, timeout_s: float = LIMIT_S) -> dict[str, Any]:
        """The next message."""
        data = self.socket.recv(timeout_s)
        message: dict[str, Any] = msgspec.msgpack.decode(data) if isinstance(data, bytes) else json.loads(data)
        if message["type"] == "data" and message["channel"] == "trades" and "conflated" not in message:
            self.numbers += [int(row["price"]) for row in message["rows"]]
        self.position = message.get("position", self.position)
        self.events.append(message)
        return message

    def until(self, found: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first message from now on of which that holds."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            message = self.next(end - time.monotonic())
            if found(message):
                return message
        raise AssertionError(f"not among {self.events[-5:]}")

    def expect(self, last: int) -> None:
        """Read until the trade of that number has come, and where that is."""
        if last not in self.numbers:
            self.until(lambda event: last in self.numbers)
        self.until(lambda event: event["type"] == "position")

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of that type."""
        return [event for event in self.events if event["type"] == kind]

    def close(self) -> None:
        self._opened.close()
