"""Everything that a client can change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import uuid4

import msgspec
import pyarrow as pa

from tapehouse.calendars import midnight, timeline
from tapehouse.client import uploads
from tapehouse.client.reads import Symbols, Time, bound, bound_text, kind_of, listed
from tapehouse.client.wire import ARROW_STREAM, Holding, JsonReceiver, Outgoing, Receiver, query
from tapehouse.codec import check_instrument
from tapehouse.errors import InvalidRequest, NotSupported
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Commit, Instrument, Interval, Kind, OnConflict, check_symbol
from tapehouse.query.base import Bound
from tapehouse.store.base import Capability, CompactionReport


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """A table of records, stored as one commit."""

    kind: Kind
    table: Any
    interval: str | None
    on_conflict: str = "replace"
    prefer: tuple[str, ...] = ()
    source: str | None = None
    batch: str | None = None

    def request(self) -> Outgoing:
        params = query(
            interval=self.interval,
            source=self.source,
            on_conflict=self.on_conflict,
            prefer=self.prefer or None,
            batch=self.batch,
            times="ns",
        )
        body = uploads.encode(self.table)
        return Outgoing(method="POST", path=f"/v1/{self.kind}", params=params, content=body, content_type=ARROW_STREAM)

    def receiver(self, headers: Mapping[str, str]) -> Receiver[Commit]:
        return JsonReceiver(Commit)

    def locally(self, folder: Holding) -> Commit:
        return folder.store.write(
            self.kind,
            self.table,
            interval=None if self.interval is None else Interval.parse(self.interval),
            on_conflict=on_conflict_of(self.on_conflict),
            prefer=self.prefer,
            source=self.source,
            batch=self.batch,
        )

    @property
    def has_dates(self) -> bool:
        """Whether its times are dates, which need `dated` before they can be stored."""
        return uploads.has_dates(self.table)

    def dated(self, instruments: Sequence[Instrument]) -> Write:
        """The same with the dates as midnights in the instruments' zones."""
        return msgspec.structs.replace(self, table=uploads.with_midnights(self.table, instruments))


def write(
    frame: Any,
    *,
    kind: str = "bars",
    interval: str | None = None,
    symbol: str | None = None,
    tz: str | None = None,
    source: str | None = None,
    on_conflict: str = "replace",
    prefer: Sequence[str] = (),
    batch: str | None = None,
) -> Write:
    """A write, from what a caller has."""
    parsed = kind_of(kind)
    return Write(
        kind=parsed,
        table=uploads.to_table(frame, kind=parsed, symbol=symbol, tz=tz),
        interval=interval,
        on_conflict=on_conflict,
        prefer=tuple(prefer),
        source=source,
        batch=batch,
    )


def parts(whole: Write, rows: int) -> Iterator[Write]:
    """The same write as several of at most that many rows, all of one batch."""
    if rows < 1:
        raise InvalidRequest(f"a part has at least one row, not {rows}")
    batch = whole.batch or f"upload-{uuid4()}"
    table: pa.Table = whole.table
    for first in range(0, max(table.num_rows, 1), rows):
        yield msgspec.structs.replace(whole, table=table.slice(first, rows), batch=batch)


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """A span of some symbols, hidden as one commit."""

    kind: Kind
    symbols: tuple[str, ...]
    interval: str | None
    start: Bound | None
    end: Bound | None

    def request(self) -> Outgoing:
        params = query(
            symbols=self.symbols,
            interval=self.interval,
            start=bound_text(self.start),
            end=bound_text(self.end),
            times="ns",
        )
        return Outgoing(method="DELETE", path=f"/v1/{self.kind}", params=params)

    def receiver(self, headers: Mapping[str, str]) -> Receiver[Commit]:
        return JsonReceiver(Commit)

    def locally(self, folder: Holding) -> Commit:
        for symbol in self.symbols:
            check_symbol(symbol)
        interval = None if self.interval is None else Interval.parse(self.interval)
        start, end = self._span(folder)
        return folder.store.delete(self.kind, self.symbols, interval=interval, start=start, end=end)

    def _span(self, folder: Holding) -> tuple[int, int]:
        """In nanoseconds. A date is midnight in a zone, so all instruments have to share it: a delete is one commit."""
        zones = sorted({folder.history.instrument(symbol).timezone for symbol in self.symbols})
        if len(zones) > 1 and (isinstance(self.start, date) or isinstance(self.end, date)):
            raise InvalidRequest(
                f"a date is another instant in each of the zones {', '.join(zones)}: give times with an offset, or "
                "delete one zone's symbols at a time"
            )
        start = _instant(self.start, zones[0], MIN_TIME_NS)
        end = _instant(self.end, zones[0], MAX_TIME_NS)
        if start >= end:
            raise InvalidRequest("start has to be before end")
        return start, end


def delete(symbols: Symbols, *, kind: str, interval: str | None, start: Time | None, end: Time | None) -> Delete:
    """A deletion, from what a caller writes."""
    named = listed(symbols)
    if named is None:
        raise InvalidRequest("name the symbols to delete; there is no way to delete all of them at once")
    return Delete(
        kind=kind_of(kind),
        symbols=named,
        interval=interval,
        start=bound(start, "start"),
        end=bound(end, "end"),
    )


def _instant(bound: Bound | None, zone: str, default: int) -> int:
    if bound is None:
        return default
    return midnight(bound, zone) if isinstance(bound, date) else bound


class PutInstruments(msgspec.Struct, frozen=True, kw_only=True):
    """Instruments, added or replaced by pattern."""

    instruments: tuple[Instrument, ...]

    def __post_init__(self) -> None:
        for instrument in self.instruments:
            check_instrument(instrument)  # JSON has no NaN and no infinity, and would say null

    def request(self) -> Outgoing:
        body = msgspec.json.encode({"instruments": self.instruments})
        return Outgoing(method="PUT", path="/v1/instruments", content=body, content_type="application/json")

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Instrument]]:
        return JsonReceiver(list[Instrument], field="instruments")

    def locally(self, folder: Holding) -> list[Instrument]:
        for instrument in self.instruments:
            timeline(instrument)  # a calendar or a zone that nobody knows is refused now, not when it is asked for
        folder.instruments.put_instruments(self.instruments)
        return folder.instruments.instruments()


class Compact(msgspec.Struct, frozen=True, kw_only=True):
    """Settled rows, moved into the archive."""

    everything: bool

    def request(self) -> Outgoing:
        params = query(everything=self.everything)
        return Outgoing(method="POST", path="/v1/compact", params=params)

    def receiver(self, headers: Mapping[str, str]) -> Receiver[CompactionReport]:
        return JsonReceiver(CompactionReport)

    def locally(self, folder: Holding) -> CompactionReport:
        if Capability.COMPACTS not in folder.store.capabilities:
            raise NotSupported("this store has no archive to move rows into")
        report: CompactionReport = folder.store.compact(everything=self.everything)  # type: ignore[attr-defined]
        return report


def on_conflict_of(word: str) -> OnConflict:
    """The way of that name; `InvalidRequest` names those there are."""
    try:
        return OnConflict(word)
    except ValueError:
        known = ", ".join(OnConflict)
        raise InvalidRequest(f"on_conflict is one of {known}, not {word!r}", parameter="on_conflict") from None
