"""What an export reads, and into which files: decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import msgspec
import pyarrow as pa

from tapehouse.errors import NotFound, NotSupported
from tapehouse.export.base import ExportOptions, Partition, Source, series_name
from tapehouse.export.periods import following, periods, runs, times_of
from tapehouse.model import MIN_TIME_NS, Commit, Interval, Kind, wildcard
from tapehouse.query.base import Bound, Request
from tapehouse.store.base import Series
from tapehouse.times import FIRST_DATE, LAST_DATE

LOT_SYMBOLS = 100
LOT_ROWS = 1_000_000
"""About how much one thread reads at once; more than one symbol, so that neighbours in a file are read together."""
_COMMITS = 10_000
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Job:
    """Questions whose answers, one after the other, are the rows of one file or, by symbol, of several.

    `first` is the date that the period of the file begins, where there is one and files have many symbols.
    """

    kind: Kind
    interval: Interval | None
    requests: tuple[Request, ...]
    symbols: tuple[str, ...]
    first: date | None = None


def commit_of(source: Source, as_of: int | None) -> int:
    """The commit that an export is as of: the newest, or the newest at the time given."""
    with source.rows(Request(kind=Kind.TRADES, limit=1, as_of=as_of)) as rows:
        return rows.commit


def chosen(source: Source, options: ExportOptions, commit: int) -> list[Series]:
    """The series to export, by symbol in each; their spans hold all their rows as of the commit.

    Raises `NotFound` when a symbol that is named, or all that was asked for, is not there.
    """
    every = series_as_of(source, commit)
    matches = [wildcard(pattern, single="?").fullmatch for pattern in options.match]
    named = set(options.symbols or ())
    if unknown := sorted(named - {series.symbol for series in every}):
        raise NotFound(f"no data for {', '.join(unknown[:5])}", symbols=unknown[:5])
    everyone = options.symbols is None and not matches
    held = [each for each in every if everyone or each.symbol in named or any(found(each.symbol) for found in matches)]
    if every and not held:
        raise NotFound(_no_match(every, options))
    found = [each for each in held if _is_wanted(each, options)]
    if options.resample:
        found = _with_made(held, found, options)
    if not found:
        raise NotFound(_nothing(held, options))
    return sorted(found, key=lambda each: (list(Kind).index(each.kind), _length(each.interval), each.symbol))


def _is_wanted(series: Series, options: ExportOptions) -> bool:
    kinds = options.kinds or ((Kind.BARS,) if options.intervals else tuple(Kind))
    return series.kind in kinds and (series.interval is None or series.interval in (options.intervals or Interval))


def _with_made(held: Sequence[Series], found: Sequence[Series], options: ExportOptions) -> list[Series]:
    """The series asked for, and those that can be made from finer bars or trades."""
    every = {(each.kind, each.interval, each.symbol): each for each in found}
    for each in held:
        for interval in options.intervals:
            finer = each.kind is Kind.TRADES or (each.interval is not None and each.interval.divides(interval))
            if finer:
                reach = 2 * interval.nanos
                made = Series(
                    symbol=each.symbol, kind=Kind.BARS, interval=interval, rows=0,
                    first=max(each.first - reach, MIN_TIME_NS), last=each.last,
                )  # fmt: skip
                known = every.setdefault((Kind.BARS, interval, each.symbol), made)
                every[Kind.BARS, interval, each.symbol] = _spanning(known, made)
    return list(every.values())


def _spanning(one: Series, other: Series) -> Series:
    return msgspec.structs.replace(one, first=min(one.first, other.first), last=max(one.last, other.last))


def _no_match(every: Sequence[Series], options: ExportOptions) -> str:
    symbols = sorted({each.symbol for each in every})
    some = ", ".join(symbols[:_NAMED]) + (", ..." if len(symbols) > _NAMED else "")
    return f"no stored symbol matches {' or '.join(map(repr, options.match))}; {len(symbols):,} are stored: {some}"


def _nothing(held: Sequence[Series], options: ExportOptions) -> str:
    stored = sorted({series_name(each.kind, each.interval) for each in held})
    kinds = [kind for kind in options.kinds if kind is not Kind.BARS or not options.intervals]
    what = " or ".join([*map(str, kinds), *(f"bars of {interval}" for interval in options.intervals)])
    hint = "; --resample makes bars that are not stored" if options.intervals and not options.resample else ""
    return f"no {what or 'rows'} are stored to export; stored: {', '.join(stored) or 'nothing'}{hint}"


def _length(interval: Interval | None) -> int:
    return 0 if interval is None else interval.nanos


def series_as_of(source: Source, commit: int) -> list[Series]:
    """The series as of a commit, with spans that may be wider than the rows and are never narrower."""
    held = source.series()
    since = source.commits(after=commit, limit=_COMMITS)
    if len(since) < _COMMITS and all(each.action == "write" for each in since):
        return held
    written = {(each.kind, each.interval) for each in _commits(source, commit)}
    return [series for kind, interval in sorted(written, key=str) for series in _looked(source, kind, interval, commit)]


def _commits(source: Source, last: int) -> Iterator[Commit]:
    after = 0
    while found := [each for each in source.commits(after=after, limit=_COMMITS) if each.number <= last]:
        yield from found
        after = found[-1].number


def _looked(source: Source, kind: Kind, interval: Interval | None, commit: int) -> Iterator[Series]:
    """The series of a kind as of a commit since which rows were removed: all their times are read."""
    request = Request(kind=kind, interval=interval, columns=("symbol", "timestamp"), as_of=commit, stored=True)
    with source.rows(request) as rows:
        spans: dict[str, tuple[int, int, int]] = {}
        for symbol, low, high, count in _spans(rows.batches):
            first, last, known = spans.get(symbol, (low, high, 0))
            spans[symbol] = (min(first, low), max(last, high), known + count)
    for symbol, (first, last, count) in spans.items():
        yield Series(symbol=symbol, kind=kind, interval=interval, first=first, last=last, rows=count)


def _spans(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, int, int, int]]:
    for batch in batches:
        for symbol, rows in runs(batch):
            times = times_of(rows)
            yield symbol, int(times[0]), int(times[-1]), len(times)


def jobs(source: Source, options: ExportOptions, series: Sequence[Series], commit: int) -> Iterator[Job]:
    """What is to be done, in an order in which files are found again: by series, then by symbol or period."""
    for (kind, interval), group in groupby(series, key=lambda each: (each.kind, each.interval)):
        held = list(group)
        base = Request(
            kind=kind,
            interval=interval,
            start=options.start,
            end=options.end,
            columns=options.columns_of(kind),
            as_of=commit,
            source=options.source,
            stored=kind is Kind.BARS and not options.resample,
        )
        if options.by_symbol:
            yield from (_job(base, lot) for lot in _lots(held))
        elif options.period is None:
            yield _job(base, held)
        else:
            yield from _by_period(source, base, held, options.period)


def _job(base: Request, held: Sequence[Series], first: date | None = None) -> Job:
    symbols = tuple(each.symbol for each in held)
    lots = [symbols[low : low + LOT_SYMBOLS] for low in range(0, len(symbols), LOT_SYMBOLS)]
    requests = tuple(msgspec.structs.replace(base, symbols=lot) for lot in lots)
    return Job(base.kind, base.interval, requests, symbols, first)


def _lots(held: Sequence[Series]) -> Iterator[list[Series]]:
    lot: list[Series] = []
    for each in held:
        if lot and (len(lot) == LOT_SYMBOLS or sum(one.rows for one in lot) + each.rows > LOT_ROWS):
            yield lot
            lot = []
        lot.append(each)
    if lot:
        yield lot


def _by_period(source: Source, base: Request, held: Sequence[Series], period: Partition) -> Iterator[Job]:
    """A job for every period that may have rows; dates as bounds are midnights in the zone of each symbol."""
    first = min(each.first for each in held)
    last = max(each.last for each in held)
    low = first if not isinstance(base.start, int) else max(first, base.start)
    high = last if not isinstance(base.end, int) else min(last, base.end)
    every = list(periods(low, high, period)) if low <= high else []
    is_stored = base.stored or base.kind is not Kind.BARS
    if is_stored and sum(each.rows for each in held) < len(every):
        every = _occupied(source, base, held, period)
    for begins in every:
        ends = following(begins, period)
        start = _later(base.start, begins)
        end = _earlier(base.end, ends)
        if isinstance(start, date) and isinstance(end, date) and start >= end:
            continue
        yield _job(msgspec.structs.replace(base, start=start, end=end), held, begins)


def _occupied(source: Source, base: Request, held: Sequence[Series], period: Partition) -> list[date]:
    """The periods near a row: with few rows far apart, such as one of 1970, most of the periods between are empty."""
    found: set[date] = set()
    for request in _job(base, held).requests:
        with source.rows(msgspec.structs.replace(request, columns=("symbol", "timestamp"))) as rows:
            for batch in rows.batches:
                for time in times_of(batch).tolist():
                    found.update(periods(time, time, period))
    return sorted(found)


def _later(bound: Bound | None, begins: date) -> Bound | None:
    """The date, or the bound where that is a later date; an instant is cut to when the rows are there."""
    if isinstance(bound, date):
        return max(bound, begins)
    return begins if begins > FIRST_DATE else None


def _earlier(bound: Bound | None, ends: date) -> Bound | None:
    if isinstance(bound, date):
        return min(bound, ends)
    return ends if ends <= LAST_DATE else None


def check(options: ExportOptions, series: Sequence[Series], commit: int) -> None:
    """Raise `UnknownColumn` unless every kind has the columns, `NotSupported` for a store that cannot stand still."""
    for kind in dict.fromkeys(each.kind for each in series):
        options.columns_of(kind)
    if commit == 0 and series:
        raise NotSupported("this store has no commits, and an export is of one, whatever is written meanwhile")
