"""One message per topic and interval instead of every record. Pure.

Of quotes and metrics the newest counts, and of bars the newest of each that changed. Trades become one row: first,
high, low and last price, volume and count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from tapehouse.codec.live.messages import EntryMessages, Variant, Wire, encode_tail
from tapehouse.model import Kind
from tapehouse.times import format_time

BARS_HELD = 16
"""Bars of one topic that may wait; of more, the newest."""


class Summary:
    """What one topic is sent, encoded once for all who get it. `rows` have times in nanoseconds.

    `how` says where it is from: `conflated`, `stored` or a `snapshot`.
    """

    def __init__(
        self, channel: str, symbol: str, source: str | None, ingested: int | None, rows: Sequence[Any], how: str
    ) -> None:
        self.channel, self.symbol, self.how = channel, symbol, how
        self._source, self._ingested, self._rows = source, ingested, rows
        self._tails: dict[Wire, bytes] = {}

    def frame(self, variant: Variant) -> bytes:
        """The frame."""
        tail = self._tails.get(variant.wire)
        if tail is None:
            tail = self._tails[variant.wire] = self._tail(variant.wire)
        return variant.frame(tail)

    def _tail(self, wire: Wire) -> bytes:
        text = wire is Wire.JSON
        members = {
            "type": "data",
            "channel": self.channel,
            **({} if self._source is None else {"source": self._source}),
            **({} if self._ingested is None else {"ingested": self._time(text)}),
            "symbol": self.symbol,
            self.how: True,
            "rows": [{**row, "timestamp": format_time(row["timestamp"])} if text else row for row in self._rows],
        }
        return encode_tail(wire, members)

    def _time(self, text: bool) -> str | int:
        ingested = self._ingested or 0
        return format_time(ingested) if text else ingested


class Conflated:
    """What waits to be sent, by topic."""

    def __init__(self) -> None:
        self._trades: dict[str, dict[str, Any]] = {}
        self._newest: dict[tuple[str, str], dict[int, tuple[EntryMessages, dict[str, Any]]]] = {}

    def __len__(self) -> int:
        return len(self._trades) + len(self._newest)

    def note(self, messages: EntryMessages, symbol: int) -> None:
        """Add the rows of the symbol at that place of an entry."""
        entry = messages.entry
        name = entry.symbols[symbol]
        if entry.channel == Kind.TRADES:
            held, new = self._trades.get(name), _aggregate(messages, symbol)
            self._trades[name] = new if held is None else merged(held, new)
            return
        rows = self._newest.setdefault((entry.channel, name), {})
        is_bar = entry.channel.startswith(Kind.BARS)
        for row in messages.records(symbol, newest=not is_bar):
            key = row["timestamp"] if is_bar else 0
            rows.pop(key, None)  # so that the newest stands last
            rows[key] = messages, row
        while len(rows) > BARS_HELD:
            rows.pop(next(iter(rows)))

    def take(self) -> Iterator[Summary]:
        """What is due; it waits no longer."""
        trades, self._trades = self._trades, {}
        newest, self._newest = self._newest, {}
        for symbol, row in trades.items():
            yield Summary(Kind.TRADES, symbol, None, row.pop("ingested"), [row], "conflated")
        for (channel, symbol), rows in newest.items():
            for messages, row in rows.values():
                yield Summary(channel, symbol, messages.entry.source, messages.entry.ingested, [row], "conflated")


def _aggregate(messages: EntryMessages, symbol: int) -> dict[str, Any]:
    rows = messages.rows(symbol)
    price, size = rows.column("price").to_numpy().tolist(), rows.column("size").to_numpy().tolist()
    return {
        "timestamp": max(rows.column("timestamp").cast("int64").to_pylist()),
        "first": price[0],
        "high": max(price),
        "low": min(price),
        "last": price[-1],
        "volume": math.fsum(size),
        "count": len(price),
        "ingested": messages.entry.ingested,
    }


def merged(held: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two aggregates of trades, one after the other, as one."""
    return {
        "timestamp": max(held["timestamp"], new["timestamp"]),
        "first": held["first"],
        "high": max(held["high"], new["high"]),
        "low": min(held["low"], new["low"]),
        "last": new["last"],
        "volume": held["volume"] + new["volume"],
        "count": held["count"] + new["count"],
        "ingested": new["ingested"],
    }
