"""Follows the log, makes bars of its trades, and appends them to the log.

    trades ──► books, one for each interval ──► bars that form, every so often
                                            └─► bars that are over, once the watermark has passed their end, and again
                                                with the next revision whenever a late trade changed them

What is made says which entry was the last that went into it. State is kept with the position of that entry; after a
restart the entries since are read again, our own among them, so that what was said is not said twice. A trade that is
too late for the books is waited for in the store, and its bar made anew from what is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.bus.base import Bus, Logged
from tapehouse.codec.live.channels import bars as bars_channel
from tapehouse.codec.live.channels import body_schema, parse_channel
from tapehouse.codec.live.entries import Entry, pack, rows_of
from tapehouse.derive.book import Bars, Book, Trades
from tapehouse.derive.buckets import Clock
from tapehouse.derive.state import Watermark, decode_state, encode_state
from tapehouse.errors import TapehouseError
from tapehouse.failpoints import failpoint
from tapehouse.model import TIMESTAMP, Instruments, Interval, Kind, Position
from tapehouse.record.base import Records
from tapehouse.resample import Rows, resample
from tapehouse.store.base import Capability, Selection, Store

SOURCE = "tapehouse"
"""The source of what is made here."""
GROUP = "derive"
INTERVALS = (Interval.S1, Interval.M1, Interval.M5, Interval.H1, Interval.D1)
FLUSH_S = 0.5
SAVE_S = 30.0
_SLOTS = {Interval.S1: 6}
_READ_ENTRIES = 500
_REVISIONS_KEPT = 100_000
_PAUSE_S = 1.0

log = logging.getLogger(__name__)

Late = tuple[Interval, int, int, int, int]
"""Interval, symbol, stamp, and the edges of the bucket."""


class Deriver:
    """Makes the bars of one partition. One thread calls `step`, or `run`."""

    def __init__(
        self,
        bus: Bus,
        partition: int,
        store: Store,
        records: Records | None,
        *,
        intervals: Sequence[Interval] = INTERVALS,
        grace_s: float = 2.0,
        flush_s: float = FLUSH_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._bus, self._partition, self._store, self._records = bus, partition, store, records
        self._group = f"{GROUP}-{partition}"
        self._flush_s, self._clock = flush_s, clock
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._books = {interval: Book(_SLOTS.get(interval, 3)) for interval in intervals}
        self._clocks = {interval: Clock(interval, self._names, self._instruments) for interval in intervals}
        self._watermark = Watermark(int(grace_s * 1e9))
        self._late: dict[Late, int] = {}
        self._revisions: OrderedDict[tuple[Interval, int, int], int] = OrderedDict()
        self._position: Position | None = None
        self._pending: list[Entry] = []
        """What is made and the log does not have yet."""
        self._saved_s = self._flushed_s = time.monotonic()
        self.published = self.revised = 0

    def _instruments(self) -> Instruments:
        if Capability.INSTRUMENTS not in self._store.capabilities:
            return Instruments([])
        keeps: Any = self._store
        return Instruments(keeps.instruments())

    def resume(self) -> None:
        """Go on with what was known, then read what came since, what we made of it included."""
        kept = self._bus.committed(self._group)
        if kept.state is not None:
            state = decode_state(kept.state, self._books)
            self._names.extend(state.names)
            self._numbers.update({name: number for number, name in enumerate(state.names)})
            self._watermark.restore(state.watermark)
            self._late = {(Interval(key[0]), *key[1:]): offset for key, offset in state.late}
            self._revisions.update({(Interval(key[0]), *key[1:]): revision for key, revision in state.revisions})
            self._position = kept.positions[self._partition]
        while entries := self._read(0.0):
            for logged in entries:
                self._recall(logged)

    def _recall(self, logged: Logged) -> None:
        entry = logged.entry
        if entry.made_from is not None:
            channel = parse_channel(entry.channel)
            if channel.interval in self._books:
                self._books[channel.interval].note(self._said(entry))
        else:
            self._take(entry)

    def _said(self, entry: Entry) -> Bars:
        """The bars that are over of an entry of ours."""
        rows = rows_of(entry)
        rows = rows.filter(rows["final"])
        symbols = np.array([self._number(name) for name in entry.symbols])[rows.column(0).to_numpy()]
        stamps = rows["timestamp"].cast(pa.int64()).to_numpy()

        def column(name: str) -> np.ndarray:
            values: np.ndarray = rows[name].to_numpy(zero_copy_only=False)
            return values

        return Bars(
            symbols, stamps, column("open"), column("high"), column("low"), column("close"), column("volume"),
            column("vwap"), column("trades"), column("revision").astype(np.int64),
        )  # fmt: skip

    def run(self, stop: threading.Event) -> None:
        """Derive until told to stop; what fails is logged, and tried again."""
        resumed = False
        while not stop.is_set():
            try:
                if not resumed:
                    self.resume()
                    resumed = True
                self.step()
            except TapehouseError as exc:
                log.error("cannot derive: %s; trying again", exc)
                stop.wait(_PAUSE_S)
        if resumed:
            self.save()

    def step(self) -> None:
        """Take what has come, and publish when it is time to."""
        left_s = self._flushed_s + self._flush_s - time.monotonic()
        for logged in self._read(max(0.0, left_s)):
            if logged.entry.made_from is None:
                self._take(logged.entry)
        failpoint("derive.taken")
        if time.monotonic() - self._flushed_s >= self._flush_s:
            self._flushed_s = time.monotonic()
            self.publish()
            if time.monotonic() - self._saved_s >= SAVE_S:
                self.save()

    def _read(self, wait_s: float) -> list[Logged]:
        piece = self._bus.read(self._partition, self._position, limit=_READ_ENTRIES, wait_s=wait_s)
        if piece.lost is not None:
            log.error("the log has lost what came after %s; bars of that time may be incomplete", piece.lost.after)
        if piece.entries:
            self._position = piece.entries[-1].position
        return piece.entries

    def _take(self, entry: Entry) -> None:
        if entry.channel != Kind.TRADES:
            return
        rows = rows_of(entry)
        symbols = np.array([self._number(name) for name in entry.symbols])[rows.column(0).to_numpy()]
        times = rows["timestamp"].cast(pa.int64()).to_numpy()
        prices, sizes = rows["price"].to_numpy(), rows["size"].to_numpy()
        self._watermark.note(int(times.max()), entry.ingested)
        for interval, book in self._books.items():
            stamps, starts, ends = self._clocks[interval].of(symbols, times)
            late, left = book.add(Trades(symbols, times, prices, sizes, stamps, starts, ends))
            self._emit(interval, left, final=True)
            for place in late.tolist():
                key = interval, int(symbols[place]), int(stamps[place]), int(starts[place]), int(ends[place])
                self._late[key] = 0 if self._position is None else self._position.offset

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
        return number

    def publish(self) -> None:
        """Append the bars that are over and those that form, all of them or none."""
        watermark = self._watermark.at(self._clock())
        for interval, book in self._books.items():
            self._emit(interval, book.over(watermark), final=True)
            self._emit(interval, book.forming(), final=False)
        self._remake()
        if self._pending:
            self._bus.append(self._partition, self._pending)
            failpoint("derive.published")
            self.published += sum(entry.rows for entry in self._pending)
            self._pending = []

    def _emit(self, interval: Interval, bars: Bars, *, final: bool) -> None:
        """Have bars appended at the next publication."""
        if not len(bars.symbols) or self._position is None:
            return
        if final:
            self.revised += int(np.count_nonzero(bars.revisions > 0))
        self._pending.append(self._entry(interval, bars, final=final))

    def _entry(self, interval: Interval, bars: Bars, *, final: bool) -> Entry:
        channel = bars_channel(interval)
        used, places = np.unique(bars.symbols, return_inverse=True)
        values = {
            "symbol": pa.array(places.astype(np.int32)),
            "timestamp": pa.array(bars.stamps).view(TIMESTAMP),
            **{name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume", "trades")},
            "vwap": pa.array(bars.vwap, mask=np.isnan(bars.vwap)),
            "adj_close": pa.nulls(len(places), pa.float64()),
            "revision": pa.array(np.maximum(bars.revisions, 0).astype(np.int32)),
            "final": pa.array(np.full(len(places), final)),
        }
        columns = [pa.array(values[field.name], field.type) for field in body_schema(channel)]
        symbols = [self._names[symbol] for symbol in used.tolist()]
        return pack(channel, symbols, columns, SOURCE, self._clock(), made_from=self._position)

    def _remake(self) -> None:
        """Make the bars of trades that were too late from the store, once it has those trades."""
        if not self._late or self._records is None:
            return
        stored = self._records.progress().positions.get(self._partition)
        due = [key for key, offset in self._late.items() if stored is not None and offset <= stored.offset]
        for key in due:
            interval, symbol, stamp, start, end = key
            bar = self._from_store(symbol, stamp, start, end, interval)
            if bar is not None:
                self._emit(interval, bar, final=True)
            del self._late[key]

    def _from_store(self, symbol: int, stamp: int, start: int, end: int, interval: Interval) -> Bars | None:
        selection = Selection(
            kind=Kind.TRADES,
            symbols=(self._names[symbol],),
            start=start,
            end=end,
            columns=("timestamp", "price", "size"),
        )
        table = self._store.read(selection).table().combine_chunks()
        if not table.num_rows:
            return None
        times = table["timestamp"].cast(pa.int64()).to_numpy()
        made = resample(
            Rows.of_trades(times, table["price"].to_numpy(), table["size"].to_numpy()), np.array([start, end])
        )
        rows = made.rows
        key = interval, symbol, stamp
        revision = self._revisions[key] = self._revisions.pop(key, 0) + 1
        while len(self._revisions) > _REVISIONS_KEPT:
            self._revisions.popitem(last=False)
        assert rows.vwap is not None
        assert rows.trades is not None
        return Bars(
            np.array([symbol]), np.array([stamp]), rows.open, rows.high, rows.low, rows.close, rows.volume, rows.vwap,
            rows.trades, np.array([revision]),
        )  # fmt: skip

    def save(self) -> None:
        """Keep the state with the position of the last entry that went into it, unless something waits to be said."""
        if self._position is None or self._pending:
            return
        late = {(str(key[0]), *key[1:]): offset for key, offset in self._late.items()}
        revisions = {(str(key[0]), *key[1:]): revision for key, revision in self._revisions.items()}
        state = encode_state(self._names, self._watermark.state(), self._books, late, revisions)
        self._bus.commit(self._group, {self._partition: self._position}, state)
        self._saved_s = time.monotonic()
        failpoint("derive.saved")
