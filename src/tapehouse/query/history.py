"""History over any store: the answer to every question that a person or a program asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa

from tapehouse.errors import InvalidRequest, NotSupported
from tapehouse.model import NAME, Commit, Instrument, Interval, Kind, read_schema, wildcard
from tapehouse.query.answer import Pager, Rows, StoredAnswer, segments_of
from tapehouse.query.base import GROUPINGS, Coverage, Limits, Request
from tapehouse.query.gaps import coverage_of
from tapehouse.query.holdings import Holdings
from tapehouse.query.measures import Groups, Measures
from tapehouse.query.pages import decode_page, encode_page
from tapehouse.query.plan import (
    Plan,
    check_answerable,
    check_interval,
    check_limit,
    check_symbols,
    make_plan,
    name_of,
    resolve,
)
from tapehouse.query.resampled import EXTRA_FIELDS
from tapehouse.store.base import Capability, Selection, Store

_INTERVAL_FIELD = pa.field("interval", NAME, nullable=False)


class StoredHistory:
    """The `History` of a store."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        # What only some stores can do is asked of it only where `capabilities` says that it can.
        self._store: Any = store
        self._limits = limits or Limits()
        self._holdings = Holdings(store)

    def read(self, request: Request) -> StoredAnswer:
        """See `History.read`."""
        check_limit(request.limit, self._limits)
        schema = read_schema(request.kind, request.columns)
        page = decode_page(request)
        as_of = self._holdings.commit(request.as_of) if page is None else page.commit
        commit, plans = self._plans(request, as_of)
        if page is not None and not page.resampled:
            plans = [replace(found, used=()) for found in plans]
        made_from = {found.symbol: tuple(name_of(part) for part in found.used) for found in plans if found.used}
        resampled = bool(made_from) if page is None else page.resampled
        selection = Selection(
            kind=request.kind,
            interval=request.interval,
            columns=tuple(dict.fromkeys([*schema.names, "symbol", "timestamp"])),
            newest_first=request.newest_first,
            as_of=commit,
            source=request.source,
        )
        after = None if page is None else page.after
        segments = segments_of(selection, plans, every=request.symbols is None)
        wanted = None if request.limit is None else request.limit + 1
        rows = Rows(self._store.read, segments, after=after, wanted=wanted, extras=resampled)
        if as_of is None and (newest := rows.open_newest()) is not None:
            # One read is as of one commit by itself, and the newest is the quickest to read.
            commit = newest if commit is not None else None
        pager = None
        if request.limit is not None:
            pager = Pager(request.limit, after, partial(encode_page, request, commit, resampled))
        schema = pa.schema([*schema, *EXTRA_FIELDS]) if resampled else schema
        return StoredAnswer(schema, commit or 0, rows, made_from=made_from, page=pager)

    def _plans(self, request: Request, as_of: int | None) -> tuple[int | None, list[Plan]]:
        """The commit to read as of, and what is asked of each symbol that may have rows."""
        symbols = check_symbols(request.symbols, self._limits)
        resolve(request, Instrument(pattern="*"))
        commit, held = self._holdings.series(symbols, as_of)
        if symbols is not None:
            self._holdings.check_known(symbols, held)
        check_interval(request, held)
        instruments = self._holdings.instruments()
        plans = [make_plan(request, symbol, instruments.of(symbol), held[symbol]) for symbol in symbols or sorted(held)]
        check_answerable(request, plans, held)
        return commit, plans

    def latest(self, kind: Kind, symbols: Sequence[str] | None, interval: Interval | None) -> pa.Table:
        """See `History.latest`."""
        names = check_symbols(symbols, self._limits)
        if kind is Kind.BARS and interval is None:
            return self._latest_of_any(names)
        _, plans = self._plans(Request(kind=kind, interval=interval, symbols=names), None)
        made = [found.symbol for found in plans if found.used]
        stored = sorted({found.symbol for found in plans} - set(made))
        tables: list[pa.Table] = [self._store.latest(kind, stored, interval=interval)]
        for symbol in made:
            one = Request(kind=kind, interval=interval, symbols=(symbol,), newest_first=True, limit=1)
            tables.append(self.read(one).table().select(tables[0].column_names))
        return _by_symbol(tables)

    def _latest_of_any(self, names: Sequence[str] | None) -> pa.Table:
        _, held = self._holdings.series(names, None)
        if names is not None:
            self._holdings.check_known(names, held)
        stored = {series.interval for found in held.values() for series in found}
        return _newest(
            [
                _with_interval(self._store.latest(Kind.BARS, names, interval=interval), interval)
                for interval in Interval
                if interval in stored
            ]
        )

    def symbols(self, pattern: str | None = None) -> list[str]:
        """See `History.symbols`."""
        known: list[str] = self._store.symbols()
        if pattern is None:
            return known
        matches = wildcard(pattern, single="?").fullmatch
        return [symbol for symbol in known if matches(symbol)]

    def coverage(
        self,
        *,
        kind: Kind | None = None,
        symbols: Sequence[str] | None = None,
        interval: Interval | None = None,
        spans: int = 100,
    ) -> list[Coverage]:
        """See `History.coverage`."""
        names = check_symbols(symbols, self._limits)
        commit, held = self._holdings.series(names, None)
        if names is not None:
            self._holdings.check_known(names, held)
        instruments = self._holdings.instruments()
        return [
            coverage_of(self._store.read, series, instruments.of(symbol), commit, spans)
            for symbol in sorted(held)
            for series in held[symbol]
            if kind in (None, series.kind) and interval in (None, series.interval)
        ]

    def aggregate(
        self,
        request: Request,
        bucket: Interval,
        measures: Sequence[str] | None,
        groups: Groups | None = None,
    ) -> pa.Table:
        """See `History.aggregate`."""
        return Measures(self._store, self._holdings, self._limits).table(request, bucket, measures, groups)

    def groups(self, by: str, symbols: Sequence[str] | None = None) -> dict[str, list[str]]:
        """See `History.groups`."""
        if by not in GROUPINGS:
            raise InvalidRequest(f"symbols are grouped by one of {', '.join(GROUPINGS)}, not by {by[:64]!r}")
        instruments = self._holdings.instruments()
        groups: dict[str, list[str]] = {}
        for symbol in check_symbols(symbols, self._limits) or self._store.symbols():
            groups.setdefault(getattr(instruments.of(symbol), by) or "none", []).append(symbol)
        return dict(sorted(groups.items()))

    def instrument(self, symbol: str) -> Instrument:
        """See `History.instrument`."""
        return self._holdings.instruments().of(symbol)

    def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        """See `History.commits`; `NotSupported` by a store that does not remember."""
        if Capability.VERSIONS not in self._store.capabilities:
            raise NotSupported("this store does not remember its commits")
        found: list[Commit] = self._store.commits(after=after, limit=limit)
        return found


def _with_interval(table: pa.Table, interval: Interval) -> pa.Table:
    names = pa.array([str(interval)] * len(table), pa.string()).dictionary_encode()
    return table.append_column(_INTERVAL_FIELD, names.cast(NAME))


def _by_symbol(tables: Sequence[pa.Table]) -> pa.Table:
    every = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    symbols = every["symbol"].to_pylist()
    return every.take(pa.array(sorted(range(len(symbols)), key=lambda row: symbols[row]), pa.int64()))


def _newest(tables: Sequence[pa.Table]) -> pa.Table:
    """Of each symbol the newest row of the tables, which come from fine to coarse; of equal ones the finest."""
    schema = read_schema(Kind.BARS, None).append(_INTERVAL_FIELD)
    every = pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries().combine_chunks()
    symbols, times = every["symbol"].to_pylist(), every["timestamp"].cast(pa.int64()).to_pylist()
    order = sorted(range(len(symbols)), key=lambda row: (symbols[row], -times[row]))
    newest = [next(rows) for _, rows in groupby(order, key=lambda row: symbols[row])]
    return every.take(pa.array(newest, pa.int64()))
