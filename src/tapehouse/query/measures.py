"""Measures per symbol or group and time bucket: which rows they are computed from, and where the buckets begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.calendars import timeline
from tapehouse.errors import InvalidRequest, LimitExceeded, NotFound
from tapehouse.model import TIMESTAMP, Instrument, Interval, Kind
from tapehouse.query.base import Limits, Request
from tapehouse.query.correlation import MEASURE, correlations
from tapehouse.query.holdings import Holdings
from tapehouse.query.plan import check_symbols, name_of, reach_of, resolve, stored_text
from tapehouse.resample import (
    DEFAULT_GROUP_MEASURES,
    DEFAULT_MEASURES,
    GROUP_MEASURES,
    MEASURES,
    check_measures,
)
from tapehouse.store.base import Aggregation, Selection, Series, Store

Groups = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Job:
    """What one call of the store computes: series of one kind and interval, with the same buckets."""

    instrument: Instrument
    series: tuple[Series, ...]
    groups: Groups | None = None


class Measures:
    """Answers `History.aggregate`."""

    def __init__(self, store: Store, holdings: Holdings, limits: Limits) -> None:
        self._store = store
        self._holdings = holdings
        self._limits = limits

    def table(
        self, request: Request, bucket: Interval, measures: Sequence[str] | None, groups: Groups | None
    ) -> pa.Table:
        """See `History.aggregate`; the request's columns, limit, order and page have no part in it."""
        if measures is not None and MEASURE in measures:
            return self._correlations(request, bucket, measures, groups)
        if measures is None:
            measures = DEFAULT_MEASURES if groups is None else DEFAULT_GROUP_MEASURES
        check_measures(measures, MEASURES if groups is None else GROUP_MEASURES)
        _check(request, bucket, groups)
        asked = request.symbols if groups is None else sorted({s for members in groups.values() for s in members})
        symbols = check_symbols(asked, self._limits)
        commit, held = self._holdings.series(symbols, self._holdings.commit(request.as_of))
        if symbols is not None:
            self._holdings.check_known(symbols, held)
        options = {symbol: _options(request, bucket, series) for symbol, series in held.items()}
        if not any(options.values()):
            raise NotFound(f"nothing to compute {bucket} measures from; stored {stored_text(held)}")
        instruments = self._holdings.instruments()
        of = {symbol: instruments.of(symbol) for symbol in options}
        jobs = _of_symbols(options, of) if groups is None else _of_groups(request, bucket, groups, options, of)
        return _in_order([self._run(job, request, bucket, measures, commit) for job in jobs])

    def _correlations(
        self, request: Request, bucket: Interval, measures: Sequence[str], groups: Groups | None
    ) -> pa.Table:
        if tuple(measures) != (MEASURE,) or groups is not None:
            raise InvalidRequest(f"{MEASURE} has a row per pair of symbols, and is asked for alone and without groups")
        closes = self.table(request, bucket, ("close",), None)
        names = closes["symbol"].unique().to_pylist()
        if len(names) < 2:
            raise InvalidRequest(f"{MEASURE} needs at least two symbols with rows, not {', '.join(names) or 'none'}")
        if len(names) > self._limits.symbols:
            raise LimitExceeded(
                f"{MEASURE} of {len(names)} symbols; at most {self._limits.symbols} at once", limit=self._limits.symbols
            )
        instruments = self._holdings.instruments()
        found = {}
        for name in names:
            rows = closes.filter(pc.equal(closes["symbol"], name))
            stamps = rows["timestamp"].combine_chunks()
            found[name] = _numbered(stamps, bucket, instruments.of(name)), rows["close"].to_numpy()
        return correlations(found)

    def _run(
        self, job: Job, request: Request, bucket: Interval, measures: Sequence[str], commit: int | None
    ) -> pa.Table:
        line = timeline(job.instrument)
        start, end = self._span(job, request, bucket)
        buckets = line.buckets(bucket, start, end)
        kind, interval = job.series[0].kind, job.series[0].interval
        edges = line.part_edges(interval, buckets).edges if len(buckets) else np.zeros(2, np.int64)
        selection = Selection(
            kind=kind,
            interval=interval,
            symbols=tuple(series.symbol for series in job.series),
            start=int(edges[0]),
            end=int(edges[-1]),
            as_of=commit,
            source=request.source,
        )
        aggregation = Aggregation(measures=tuple(measures), groups=job.groups)
        table = self._store.aggregate(selection, lambda _symbol: edges, aggregation)
        # The store's buckets start where their rows do; a bar is stamped with midnight of its first date.
        at = np.searchsorted(edges, table["timestamp"].cast(pa.int64()).to_numpy())
        stamps = pa.array(buckets.stamps[at]).cast(TIMESTAMP)
        return table.set_column(1, table.schema.field("timestamp"), stamps)

    def _span(self, job: Job, request: Request, bucket: Interval) -> tuple[int, int]:
        """The part of the request's span that can have rows; raises when it has too many buckets."""
        start, end = resolve(request, job.instrument)
        reach = reach_of(bucket)
        start = max(start, min(series.first for series in job.series) - reach)
        end = max(start, min(end, max(series.last for series in job.series) + reach))
        if (count := (end - start) // bucket.nanos * len(job.series)) > self._limits.buckets:
            raise LimitExceeded(
                f"{count} buckets asked for ({len(job.series)} symbols); at most {self._limits.buckets}: "
                "ask for a shorter span or a longer bucket",
                limit=self._limits.buckets,
            )
        return start, end


def _numbered(stamps: pa.Array, bucket: Interval, instrument: Instrument) -> np.ndarray:
    """Bucket starts as numbers that are the same for the same bucket: of days by their date, wherever they begin."""
    if bucket.by_calendar:
        stamps = pc.local_timestamp(stamps.cast(pa.timestamp("ns", instrument.timezone)))
    numbers: np.ndarray = stamps.cast(pa.int64()).to_numpy()
    return numbers


def _check(request: Request, bucket: Interval, groups: Groups | None) -> None:
    if request.kind is Kind.QUOTES:
        raise InvalidRequest("quotes cannot be aggregated: they have no price and no volume of their own")
    if request.kind is Kind.TRADES and request.interval is not None:
        raise InvalidRequest("trades have no interval; leave it out", interval=request.interval)
    if request.interval not in (None, bucket) and not request.interval.divides(bucket):
        raise InvalidRequest(f"{request.interval} bars do not make up buckets of {bucket}", interval=request.interval)
    if groups is not None and request.symbols is not None:
        raise InvalidRequest("ask for symbols or for groups of symbols, not for both")
    if groups is not None and not (groups and all(groups.values())):
        raise InvalidRequest("a group needs at least one symbol")
    resolve(request, Instrument(pattern="*"))


def _options(request: Request, bucket: Interval, held: Sequence[Series]) -> list[Series]:
    """What measures of a symbol can be computed from, best first: the finest bars that fit, then trades."""
    bars = [
        series
        for series in held
        if request.kind is Kind.BARS
        and series.interval is not None
        and request.interval in (None, series.interval)
        and (series.interval is bucket or series.interval.divides(bucket))
    ]
    bars.sort(key=lambda series: series.interval.nanos if series.interval else 0)
    trades = [series for series in held if series.kind is Kind.TRADES and request.interval is None]
    return [*bars, *trades]


def _of_symbols(options: Mapping[str, list[Series]], instruments: Mapping[str, Instrument]) -> Iterator[Job]:
    """One job for all symbols of the same days and the same kind of rows."""
    found = [(instruments[symbol], series[0]) for symbol, series in sorted(options.items()) if series]

    def alike(pair: tuple[Instrument, Series]) -> tuple[str, str, str]:
        return pair[0].calendar, pair[0].timezone, name_of(pair[1])

    for _, pairs in groupby(sorted(found, key=alike), key=alike):
        members = list(pairs)
        yield Job(members[0][0], tuple(series for _, series in members))


def _of_groups(
    request: Request,
    bucket: Interval,
    groups: Groups,
    options: Mapping[str, list[Series]],
    instruments: Mapping[str, Instrument],
) -> Iterator[Job]:
    """A job for each group: its members need the same buckets, and the same kind of rows."""
    by_date = bucket.by_calendar or isinstance(request.start, date) or isinstance(request.end, date)
    for name, members in groups.items():
        symbols = sorted(set(members))
        places = {(instruments[symbol].calendar, instruments[symbol].timezone) for symbol in symbols}
        if by_date and len(places) > 1:
            shown = ", ".join(f"{calendar} in {zone}" for calendar, zone in sorted(places))
            raise InvalidRequest(f"the members of group {name!r} have different days ({shown})", group=name)
        common = set.intersection(*({name_of(series) for series in options[symbol]} for symbol in symbols))
        best = next((name_of(series) for series in options[symbols[0]] if name_of(series) in common), None)
        if best is None:
            raise InvalidRequest(f"the members of group {name!r} have no bars or trades in common", group=name)
        series = tuple(next(s for s in options[symbol] if name_of(s) == best) for symbol in symbols)
        yield Job(instruments[symbols[0]], series, {name: symbols})


def _in_order(tables: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    names = table.column(0).cast(pa.string())
    keys = pa.table({"name": names, "timestamp": table["timestamp"]})
    return table.take(pc.sort_indices(keys, sort_keys=[("name", "ascending"), ("timestamp", "ascending")]))
