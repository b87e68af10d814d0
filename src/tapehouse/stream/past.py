"""Stored records for a stream that begins in the past: in order of time over all symbols, span by span.

Each span is read as of one commit; the next one begins where it ended, so that a client that is cut off goes on there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tapehouse.codec.live.channels import parse_channel
from tapehouse.model import DAY_NS, MAX_TIME_NS, SECOND_NS, Kind, wildcard
from tapehouse.store.base import Recorded, Selection, Store
from tapehouse.stream.conflation import Summary
from tapehouse.stream.requests import Asked

SPAN_ROWS = 5_000
"""Rows that a span should have, about; of a symbol, a message has no more than that."""
MOST_ROWS = 50_000
_FIRST_SPAN_NS = DAY_NS
_SHORTEST_NS = SECOND_NS


class Span(NamedTuple):
    """The messages of one span of time, in order, and where the next one begins."""

    messages: list[Summary]
    end: int


def latest(store: Store, asked: Asked, recorded: Recorded) -> list[Summary]:
    """The newest stored row of each topic, as of that commit."""
    past = Past(store, asked, recorded.commit, 0)
    found = []
    for name in asked.channels:
        channel = parse_channel(name)
        for symbol in past.symbols if channel.kind is not None else ():
            assert channel.kind is not None
            selection = Selection(
                kind=channel.kind, interval=channel.interval, symbols=(symbol,), columns=_COLUMNS[channel.kind],
                limit=1, newest_first=True, as_of=recorded.commit,
            )  # fmt: skip
            table = store.read(selection).table()
            if table.num_rows:
                time = int(table["timestamp"].to_numpy().view(np.int64)[0])
                row = table.drop_columns(["timestamp", "symbol"]).to_pylist()[0]
                given = {n: v for n, v in row.items() if v is not None and n != "source"}
                found.append(Summary(name, symbol, row["source"], None, [{"timestamp": time, **given}], "snapshot"))
    return found


class Past:
    """What the store has of a subscription, as of a commit, from a time on."""

    def __init__(self, store: Store, asked: Asked, commit: int, start: int) -> None:
        self._store, self._asked, self._commit = store, asked, commit
        self._at, self._width = start, _FIRST_SPAN_NS
        self.symbols = self._matching()
        self._end = self._last() + 1

    def _matching(self) -> tuple[str, ...]:
        """The symbols, those that the store has which match a pattern among them."""
        asked = self._asked
        if not asked.patterns:
            return asked.symbols
        known = self._store.symbols()
        found = [name for name in known if any(wildcard(pattern).fullmatch(name) for pattern in asked.patterns)]
        return tuple(dict.fromkeys([*asked.symbols, *found]))

    def _last(self) -> int:
        """The time of the newest record."""
        wanted = {(channel.kind, channel.interval) for channel in map(parse_channel, self._asked.channels)}
        found = self._store.coverage(symbols=self.symbols)
        held = [series for series in found if (series.kind, series.interval) in wanted]
        self._at = max(self._at, min((series.first for series in held), default=self._at))
        return max((series.last for series in held), default=self._at - 1)

    def next(self) -> Span | None:
        """The next span with any records; None when there are no more."""
        while self._at < self._end:
            end = min(self._at + self._width, self._end)
            tables = self._read(end)
            if tables is None:
                self._width = max(_SHORTEST_NS, self._width // 4)
                continue
            rows = sum(len(times) for _, _, times, _ in tables)
            self._at = end
            if rows < SPAN_ROWS:
                self._width = min(self._width * 2, MAX_TIME_NS // 4)
            if rows:
                return Span(list(_in_order(tables)), end)
        return None

    def _read(self, end: int) -> list[tuple[str, pa.Table, np.ndarray, np.ndarray]] | None:
        """The rows of each channel up to that time; None when they are too many for one span."""
        found, rows = [], 0
        wide = self._width > _SHORTEST_NS
        for name in self._asked.channels:
            channel = parse_channel(name)
            if channel.kind is None:
                continue
            selection = Selection(
                kind=channel.kind, interval=channel.interval, symbols=self.symbols, start=self._at, end=end,
                columns=_COLUMNS[channel.kind], limit=MOST_ROWS if wide else None, as_of=self._commit,
            )  # fmt: skip
            table = self._store.read(selection).table().unify_dictionaries().combine_chunks()
            rows += table.num_rows
            if wide and rows >= MOST_ROWS:
                return None
            if table.num_rows:
                codes = table["symbol"].chunk(0).indices.to_numpy()
                found.append((name, table, table["timestamp"].to_numpy().view(np.int64), codes))
        return found


_COLUMNS = {
    Kind.TRADES: ("symbol", "timestamp", "price", "size", "side", "exchange", "conditions", "id", "source"),
    Kind.QUOTES: (
        "symbol",
        "timestamp",
        "bid",
        "bid_size",
        "ask",
        "ask_size",
        "exchange",
        "conditions",
        "id",
        "source",
    ),
    Kind.BARS: ("symbol", "timestamp", "open", "high", "low", "close", "volume", "vwap", "trades", "source"),
}


def _in_order(tables: list[tuple[str, pa.Table, np.ndarray, np.ndarray]]) -> Iterator[Summary]:
    """Rows of several channels and symbols by time, those of one topic that stand next to each other as one message."""
    channels = np.concatenate([np.full(len(times), number) for number, (_, _, times, _) in enumerate(tables)])
    places = np.concatenate([np.arange(len(times)) for _, _, times, _ in tables])
    times, codes = np.concatenate([t for _, _, t, _ in tables]), np.concatenate([c for _, _, _, c in tables])
    order = np.argsort(times, kind="stable")
    channels, places, codes = channels[order], places[order], codes[order]
    breaks = np.flatnonzero((channels[1:] != channels[:-1]) | (codes[1:] != codes[:-1])) + 1
    for run in np.split(np.arange(len(order)), breaks):
        for start in range(0, len(run), SPAN_ROWS):
            part = run[start : start + SPAN_ROWS]
            name, table, all_times, _ = tables[channels[part[0]]]
            where = pa.array(places[part])
            rows = table.drop_columns("timestamp").take(where).to_pylist()
            sources = {row.pop("source") for row in rows}
            stamped = zip(all_times[places[part]].tolist(), rows, strict=True)
            given = [
                {"timestamp": time, **{n: v for n, v in row.items() if v is not None and n != "symbol"}}
                for time, row in stamped
            ]
            source = sources.pop() if len(sources) == 1 else None
            yield Summary(name, rows[0]["symbol"], source, None, given, "stored")
