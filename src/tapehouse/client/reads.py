"""Everything that a client can ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypedDict

import msgspec
import numpy as np

from tapehouse import times
from tapehouse.client.arrow import Rows, RowsReceiver, described
from tapehouse.client.wire import ARROW_STREAM, Body, Holding, JsonReceiver, Outgoing, Params, Receiver, query
from tapehouse.errors import InvalidRequest
from tapehouse.export.base import ExportOptions, partition_of
from tapehouse.model import SCHEMAS, SECOND_NS, Commit, Instrument, Interval, Kind
from tapehouse.query.base import Answer, Bound, Coverage, Request
from tapehouse.store.base import Series

Symbols = str | Sequence[str] | None
Time = str | int | date | np.datetime64
"""A date or time: `"2024"`, `"2024-01-02"`, `"2024-01-02T14:30:00Z"`, epoch digits, a date, a datetime with a zone."""


class ExportChoices(TypedDict, total=False):
    """What narrows an export, and how it is written; see `Client.export`."""

    kind: str | Sequence[str] | None
    interval: str | Sequence[str] | None
    match: str | Sequence[str] | None
    start: Time | None
    end: Time | None
    columns: Sequence[str] | None
    as_of: Time | None
    source: str | None
    format: str
    partition: str | Sequence[str]
    resample: bool


class ReadOptions(TypedDict, total=False):
    """What narrows a read. `start` is inclusive, `end` exclusive."""

    start: Time | None
    end: Time | None
    columns: Sequence[str] | str | None
    limit: int | None
    newest_first: bool
    as_of: Time | None
    source: str | None


class BarOptions(ReadOptions, total=False):
    """The same for bars."""

    interval: str


class AggregateOptions(TypedDict, total=False):
    """What narrows an aggregate. `interval` is the bars that it is computed from: by default the finest stored."""

    start: Time | None
    end: Time | None
    interval: str | None
    as_of: Time | None
    source: str | None


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one kind."""

    kind: Kind
    symbols: tuple[str, ...] | None = None
    interval: str | None = None
    start: Bound | None = None
    end: Bound | None = None
    columns: tuple[str, ...] | None = None
    limit: int | None = None
    newest_first: bool = False
    as_of: int | None = None
    as_of_text: str | None = None
    source: str | None = None
    page: str | None = None
    stored: bool = False

    def request(self) -> Outgoing:
        return Outgoing(path=f"/v1/{self.kind}", params=self.params(), accept=ARROW_STREAM)

    def params(self) -> Params:
        return query(
            symbols=self.symbols,
            interval=self.interval,
            start=bound_text(self.start),
            end=bound_text(self.end),
            columns=self.columns,
            limit=self.limit,
            order="desc" if self.newest_first else None,
            as_of=self.as_of_text,
            source=self.source,
            page=self.page,
            stored=self.stored or None,
        )

    def receiver(self, headers: Mapping[str, str]) -> RowsReceiver:
        return RowsReceiver(headers)

    def answer(self, folder: Holding) -> Answer:
        """The answer of an open folder, not yet read."""
        return folder.history.read(self.question())

    def question(self) -> Request:
        """What a `History` is asked."""
        return Request(
            kind=self.kind,
            symbols=self.symbols,
            interval=None if self.interval is None else Interval.parse(self.interval),
            start=self.start,
            end=self.end,
            columns=self.columns,
            limit=self.limit,
            newest_first=self.newest_first,
            as_of=self.as_of,
            source=self.source,
            page=self.page,
            stored=self.stored,
        )

    def locally(self, folder: Holding) -> Rows:
        answer = self.answer(folder)
        try:
            table = answer.table()
        finally:
            answer.close()
        made_from = dict(answer.made_from)
        table = described(table, answer.commit, made_from)
        return Rows(table=table, commit=answer.commit, made_from=made_from, next_page=answer.next_page)


def read(
    kind: Kind,
    symbols: Symbols,
    *,
    start: Time | None = None,
    end: Time | None = None,
    interval: str | None = None,
    columns: Sequence[str] | str | None = None,
    limit: int | None = None,
    newest_first: bool = False,
    as_of: Time | None = None,
    source: str | None = None,
    page: str | None = None,
) -> Read:
    """A read, from what a caller writes."""
    as_of_number, as_of_text = _as_of(as_of)
    return Read(
        kind=kind,
        symbols=listed(symbols),
        interval=interval,
        start=bound(start, "start"),
        end=bound(end, "end"),
        columns=_columns(kind, columns),
        limit=limit,
        newest_first=newest_first,
        as_of=as_of_number,
        as_of_text=as_of_text,
        source=source,
        page=page,
    )


def read_of(request: Request) -> Read:
    """The same question, for a client to ask."""
    as_of = None if request.as_of is None else str(request.as_of)
    fields = {name: getattr(request, name) for name in Request.__struct_fields__}
    fields["interval"] = None if request.interval is None else str(request.interval)
    return Read(**fields, as_of_text=as_of)


def export_options(
    symbols: Symbols,
    *,
    kind: str | Sequence[str] | None = None,
    interval: str | Sequence[str] | None = None,
    match: str | Sequence[str] | None = None,
    start: Time | None = None,
    end: Time | None = None,
    columns: Sequence[str] | None = None,
    as_of: Time | None = None,
    source: str | None = None,
    format: str = "parquet",
    partition: str | Sequence[str] = "symbol",
    resample: bool = False,
) -> ExportOptions:
    """What to export, from what a caller writes."""
    return ExportOptions(
        format=format,
        partition=partition_of(partition),
        kinds=tuple(kind_of(word) for word in _words(kind)),
        intervals=tuple(Interval.parse(word) for word in _words(interval)),
        symbols=listed(symbols),
        match=_words(match),
        start=bound(start, "start"),
        end=bound(end, "end"),
        columns=None if columns is None else tuple(columns),
        as_of=_as_of(as_of)[0],
        source=source,
        resample=resample,
    )


def _words(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def bars(symbols: Symbols, options: BarOptions, page: str | None = None) -> Read:
    """A read of bars: daily ones unless told otherwise."""
    return read(Kind.BARS, symbols, **({"interval": "1d"} | options), page=page)


def listed(symbols: Symbols) -> tuple[str, ...] | None:
    """The symbols as a tuple; None stands for all. An empty list is an error: it would mean all over HTTP."""
    if symbols is None or isinstance(symbols, str):
        return None if symbols is None else (symbols,)
    names = tuple(symbols) if isinstance(symbols, Iterable) else (symbols,)
    if not all(isinstance(name, str) for name in names):
        shown = f"{symbols!r:.60}"
        raise InvalidRequest(f"symbols are a name or a list of names, as text, not {shown}; None asks for all")
    if not names:
        raise InvalidRequest("the list of symbols is empty; None asks for all")
    return names


def bound(value: Time | None, name: str) -> Bound | None:
    """The time as a `Request` takes it; raises `InvalidTime`."""
    return None if value is None else times.as_bound(value, name)


def bound_text(value: Bound | None) -> str | None:
    """The same as a query parameter."""
    if value is None:
        return None
    return times.format_time(value) if isinstance(value, int) else value.isoformat()


def _as_of(value: Time | None) -> tuple[int | None, str | None]:
    """A commit number or a time, as a `Request` takes it and as a query parameter."""
    if value is None:
        return None, None
    if isinstance(value, int | np.integer | str):
        return times.parse_as_of(str(value), "as_of"), str(value)
    moment = times.as_bound(value, "as_of")
    if not isinstance(moment, int):
        midnight = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        moment = int(midnight.timestamp()) * SECOND_NS
    return moment, times.format_time(moment)


def _columns(kind: Kind, columns: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """The columns to ask for: symbol and timestamp always, since rows make no sense without."""
    if columns is None:
        return None
    keys = ("symbol", "timestamp")
    if columns == "all":
        return tuple(SCHEMAS[kind].names)
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    return (*keys, *(name for name in names if name not in keys))


def kind_of(word: str) -> Kind:
    """The kind of that name; `InvalidRequest` names those there are."""
    try:
        return Kind(word)
    except ValueError:
        raise InvalidRequest(f"kind is one of {', '.join(Kind)}, not {word!r}", parameter="kind") from None


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """The newest row of each symbol."""

    kind: Kind
    symbols: tuple[str, ...] | None
    interval: str | None

    def request(self) -> Outgoing:
        params = query(symbols=self.symbols, kind=self.kind, interval=self.interval)
        return Outgoing(path="/v1/latest", params=params, accept=ARROW_STREAM)

    def receiver(self, headers: Mapping[str, str]) -> RowsReceiver:
        return RowsReceiver(headers)

    def locally(self, folder: Holding) -> Rows:
        interval = None if self.interval is None else Interval.parse(self.interval)
        return Rows(table=folder.history.latest(self.kind, self.symbols, interval))


def latest(symbols: Symbols, kind: str, interval: str | None) -> Latest:
    """A question for newest rows, from what a caller writes."""
    return Latest(kind=kind_of(kind), symbols=listed(symbols), interval=interval)


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """Measures per symbol or group and time bucket."""

    rows: Read
    bucket: str
    measures: tuple[str, ...] | None
    groups: dict[str, tuple[str, ...]] | None

    def request(self) -> Outgoing:
        params = self.rows.params() + query(bucket=self.bucket, measures=self.measures)
        groups = [("group", f"{name}:{','.join(symbols)}") for name, symbols in (self.groups or {}).items()]
        return Outgoing(path="/v1/aggregate", params=params + groups, accept=ARROW_STREAM)

    def receiver(self, headers: Mapping[str, str]) -> RowsReceiver:
        return RowsReceiver(headers)

    def locally(self, folder: Holding) -> Rows:
        bucket = Interval.parse(self.bucket)
        return Rows(table=folder.history.aggregate(self.rows.question(), bucket, self.measures, self.groups))


DEFAULT_MEASURES = ("open", "high", "low", "close", "volume", "count")
"""Of a symbol; who leaves `measures` out for groups, which have no prices, gets volume and count."""


def aggregate(
    symbols: Symbols,
    bucket: str,
    measures: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None,
    options: AggregateOptions,
) -> Aggregate:
    """An aggregate, from what a caller writes."""
    return Aggregate(
        rows=read(Kind.BARS, symbols, **options),
        bucket=bucket,
        measures=None if measures is DEFAULT_MEASURES else tuple(measures),
        groups=None if groups is None else {name: tuple(members) for name, members in groups.items()},
    )


class SymbolList(msgspec.Struct, frozen=True, kw_only=True):
    """The symbols there are."""

    match: str | None

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/symbols", params=query(match=self.match, times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[str]]:
        return _SymbolsReceiver()

    def locally(self, folder: Holding) -> list[str]:
        return folder.history.symbols(self.match)


class _SymbolsReceiver(JsonReceiver):
    def __init__(self) -> None:
        super().__init__(list[dict[str, Any]], field="symbols")

    def result(self) -> list[str]:
        return [held["symbol"] for held in super().result()]


class SeriesList(msgspec.Struct, frozen=True):
    """What the store holds, without looking for what is missing."""

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/symbols", params=query(times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Series]]:
        return _SeriesReceiver()

    def locally(self, folder: Holding) -> list[Series]:
        return folder.store.coverage()


class _SeriesReceiver(Body):
    def result(self) -> list[Series]:
        held = JsonReceiver(list[dict[str, Any]], field="symbols")
        held.feed(self.content())
        return [
            msgspec.convert({"symbol": each["symbol"], **series}, Series)
            for each in held.result()
            for series in each["series"]
        ]


class CoverageOf(msgspec.Struct, frozen=True, kw_only=True):
    """What is held and what is missing."""

    symbols: tuple[str, ...] | None
    kind: Kind | None
    interval: str | None
    spans: int

    def request(self) -> Outgoing:
        params = query(symbols=self.symbols, kind=self.kind, interval=self.interval, spans=self.spans, times="ns")
        return Outgoing(path="/v1/coverage", params=params)

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Coverage]]:
        return JsonReceiver(list[Coverage], field="coverage")

    def locally(self, folder: Holding) -> list[Coverage]:
        interval = None if self.interval is None else Interval.parse(self.interval)
        return folder.history.coverage(kind=self.kind, symbols=self.symbols, interval=interval, spans=self.spans)


def coverage(symbols: Symbols, kind: str | None, interval: str | None, spans: int) -> CoverageOf:
    """A question for coverage, from what a caller writes."""
    of = None if kind is None else kind_of(kind)
    return CoverageOf(symbols=listed(symbols), kind=of, interval=interval, spans=spans)


class Instruments(msgspec.Struct, frozen=True):
    """What is known of instruments."""

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/instruments")

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Instrument]]:
        return JsonReceiver(list[Instrument], field="instruments")

    def locally(self, folder: Holding) -> list[Instrument]:
        return folder.instruments.instruments()


class Commits(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    after: int
    limit: int

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/commits", params=query(after=self.after, limit=self.limit, times="ns"))

    def receiver(self, headers: Mapping[str, str]) -> Receiver[list[Commit]]:
        return JsonReceiver(list[Commit], field="commits")

    def locally(self, folder: Holding) -> list[Commit]:
        return folder.history.commits(after=self.after, limit=self.limit)


class Stats(msgspec.Struct, frozen=True):
    """Sizes and counts of the store."""

    def request(self) -> Outgoing:
        return Outgoing(path="/v1/stats")

    def receiver(self, headers: Mapping[str, str]) -> Receiver[dict[str, Any]]:
        return JsonReceiver(dict[str, Any], field="store")

    def locally(self, folder: Holding) -> dict[str, Any]:
        return folder.store.stats()
