"""What a stream asks for, what comes, and where it goes on. Without I/O."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from tapehouse.client.reads import Time
from tapehouse.client.wire import error_named
from tapehouse.errors import InvalidData, InvalidRequest, TapehouseError
from tapehouse.times import as_bound, format_time

PATH = "/v1/stream?format=msgpack"
FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 15.0
SILENT_S = 60.0
"""A connection on which nothing came for so long, not even a heartbeat, is given up."""

Origin = Literal["live", "stored", "snapshot", "conflated"]
Delivery = Literal["lossless", "conflate", "drop"]


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one topic, in order. Times in `rows` and `ingested` are UTC nanoseconds.

    `ingested` is when the server took them; None of stored ones. `origin` says where they are from; of conflated trades
    a row has `first`, `high`, `low`, `last`, `volume` and `count`.
    """

    channel: str
    symbol: str
    rows: list[dict[str, Any]]
    source: str | None = None
    ingested: int | None = None
    origin: Origin = "live"


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Something is missing: `reason` is slow (with `dropped` records by channel), retention or lost.

    `start` and `end` say, where they are known, in which time; `fetch` what to ask the server for.
    """

    reason: str
    dropped: dict[str, int] = {}
    start: str | None = None
    end: str | None = None
    fetch: list[str] = []


class CaughtUp(msgspec.Struct, frozen=True):
    """What follows is live."""


class Reconnected(msgspec.Struct, frozen=True):
    """The connection was lost, and made again; nothing is missing, unless a `Gap` says so."""


Event = Records | Gap | CaughtUp | Reconnected

_ORIGINS: tuple[Origin, ...] = ("stored", "snapshot", "conflated")
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode


def check_names(names: str | Sequence[str], parameter: str) -> list[str]:
    """A list of names, of one or several."""
    found = [names] if isinstance(names, str) else list(names)
    if not found or not all(isinstance(name, str) for name in found):
        raise InvalidRequest(f"{parameter}: at least one name", parameter=parameter)
    return found


class Following:
    """One subscription, over as many connections as it takes."""

    def __init__(
        self,
        channels: str | Sequence[str],
        symbols: str | Sequence[str],
        *,
        start: Time | None = None,
        delivery: Delivery = "lossless",
        interval_ms: int | None = None,
    ) -> None:
        self._asked: dict[str, Any] = {
            "op": "subscribe",
            "channels": check_names(channels, "channels"),
            "symbols": check_names(symbols, "symbols"),
            "delivery": delivery,
            **({} if interval_ms is None else {"interval_ms": interval_ms}),
        }
        self.position = _start(start)
        """Up to where everything came: what `start` takes to go on there. None before the first."""
        self._retry_s = FIRST_RETRY_S
        self.connections = 0

    def request(self) -> bytes:
        """What to say when a connection is made."""
        self.connections += 1
        start = {} if self.position is None else {"from": self.position}
        return msgspec.msgpack.encode({**self._asked, **start})

    def take(self, data: bytes | str) -> Event | None:
        """The event of a message, None when it is not one for the user; raises the error that it names."""
        if isinstance(data, str):
            raise InvalidData("a text came where msgpack was asked for: is it a Tapehouse server?")
        message = _decode(data)
        self.position = message.get("position", self.position)
        kind = message["type"]
        if kind == "data":
            self._retry_s = FIRST_RETRY_S
            return _records(message)
        if kind == "gap":
            return msgspec.convert({name: message[name] for name in Gap.__struct_fields__ if name in message}, Gap)
        if kind == "caught_up":
            return CaughtUp()
        if kind == "closing":
            self._retry_s = float(message["retry_after_s"])
        if kind == "error":
            raise _error(message)
        return None

    def next_retry_s(self) -> float:
        """How long to wait before the next connection, longer each time, and not the same for all who wait."""
        wait_s = self._retry_s * random.uniform(0.75, 1.25)
        self._retry_s = min(LONGEST_RETRY_S, self._retry_s * 2)
        return wait_s


def _start(start: Time | None) -> str | None:
    if start is None or (isinstance(start, str) and (start in ("now", "snapshot") or start.startswith("at_"))):
        return start
    bound = as_bound(start, "start")
    return format_time(bound) if isinstance(bound, int) else str(bound)


def _records(message: dict[str, Any]) -> Records:
    origin: Origin = next((name for name in _ORIGINS if message.get(name)), "live")
    return Records(
        channel=message["channel"],
        symbol=message["symbol"],
        rows=message["rows"],
        source=message.get("source"),
        ingested=message.get("ingested"),
        origin=origin,
    )


def _error(message: dict[str, Any]) -> TapehouseError:
    taken = ("type", "id", "code", "message")
    details = {name: value for name, value in message.items() if name not in taken}
    return error_named(message["code"], message["message"], **details)
